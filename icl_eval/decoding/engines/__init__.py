"""What runs a model: an engine continues prompts, scores continuations and describes itself.

interface     what every engine offers, and what a run asks of it
in_process    engine=transformers: the network in this process, with exact decoding
server        engine=openai: a server that speaks OpenAI's API
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from icl_eval.targets import Family

if TYPE_CHECKING:
    from icl_eval.decoding.engines.in_process import TransformersEngine
    from icl_eval.decoding.engines.interface import Abilities, Engine, Generation, Prices, Runner
    from icl_eval.decoding.engines.server.engine import OpenAIEngine

__all__ = ["ENGINES", "Abilities", "Engine", "Generation", "OpenAIEngine", "Prices", "Runner", "TransformersEngine"]

ENGINES = Family(__name__, {"openai": "OpenAIEngine", "transformers": "TransformersEngine"})

_MODULES = {
    "Abilities": "interface",
    "Engine": "interface",
    "Generation": "interface",
    "OpenAIEngine": "server.engine",
    "Prices": "interface",
    "Runner": "interface",
    "TransformersEngine": "in_process",
}


def __getattr__(name: str) -> Any:
    """Import an engine on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
