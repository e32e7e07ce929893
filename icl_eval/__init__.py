"""Measure how well a language model learns a task from demonstrations in its prompt."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icl_eval.commands.stream import stream
    from icl_eval.runs.frames import load_records, load_runs

__version__ = "0.1.0"

__all__ = ["__version__", "load_records", "load_runs", "stream"]

_MODULES = {"load_records": "frames", "load_runs": "frames", "stream": "streaming"}


def __getattr__(name: str) -> Any:
    """Import what is public when it is first asked for, since pandas and torch take seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
