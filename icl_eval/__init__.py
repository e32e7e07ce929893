"""Measure how well a language model learns a task from demonstrations in its prompt.

>>> import icl_eval
>>> run = icl_eval.evaluate(model="icl_t5", task="induction_numbers", num_fewshot=8, limit=16)
>>> run.scores  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icl_eval.api import analyse, compare, evaluate, load_model, plan, preview, score, stream
    from icl_eval.errors import IclEvalError, UserError
    from icl_eval.models.loading import LanguageModel
    from icl_eval.runs.frames import load_records, load_runs
    from icl_eval.tasks.loading import Task

__version__ = "0.1.0"

__all__ = [
    "IclEvalError",
    "LanguageModel",
    "Task",
    "UserError",
    "__version__",
    "analyse",
    "compare",
    "evaluate",
    "load_model",
    "load_records",
    "load_runs",
    "plan",
    "preview",
    "score",
    "stream",
]

_MODULES = {
    "IclEvalError": "errors",
    "LanguageModel": "models.loading",
    "Task": "tasks.loading",
    "UserError": "errors",
    "load_records": "runs.frames",
    "load_runs": "runs.frames",
}
"""Modules of the public names that are not in `api`."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, because importing pandas and torch takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return __all__
