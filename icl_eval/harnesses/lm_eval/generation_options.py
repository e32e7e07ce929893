"""What a task of the harness says of its completions: when they end, and how their tokens are chosen."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from icl_eval.errors import ConfigError

_MAX_NEW_TOKENS = 256
"""The limit on a completion's tokens of a task that sets none."""
_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""The names of that limit."""
_SAMPLING = ("temperature", "top_p", "top_k")


@dataclass(frozen=True)
class GenerationOptions:
    """The options of a task's completions."""

    stop: tuple[str, ...]
    """The strings that end a completion."""
    max_new_tokens: int
    """The limit on a completion's tokens; 0 if the task only asks for likelihoods."""
    sampling: Mapping[str, Any]
    """The options with which the task samples; empty if it decodes greedily."""


def read_generation(task: str, options: Mapping[str, Any] | None) -> GenerationOptions:
    """Read the options of a task's completions.

    Args:
        task: The name of the task.
        options: Its `generation_kwargs`; None for a task that only asks for likelihoods.

    Raises:
        ConfigError: If an option is invalid, or cannot be followed here.
    """
    if options is None:
        return GenerationOptions((), 0, {})
    where = f"task '{task}' of lm-evaluation-harness: generation_kwargs"
    until = options.get("until") or []
    stop = [until] if isinstance(until, str) else until
    if not isinstance(stop, list | tuple) or not all(isinstance(each, str) and each for each in stop):
        raise ConfigError(f"{where}.until={until!r}: must be a string that is not empty, or a list of these")
    limits = {name: options[name] for name in _LIMITS if options.get(name) is not None}
    for name, limit in limits.items():
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ConfigError(f"{where}.{name}={limit!r}: must be a whole number of 1 or more")
    followed = ("until", "do_sample", *_LIMITS, *_SAMPLING)
    for name, value in options.items():
        if name not in followed and value is not None and (name, value) != ("num_beams", 1):
            raise ConfigError(
                f"{where}.{name}={value!r}: is not followed here; run the task inside the harness "
                "(icl-eval lm-eval run)"
            )
    max_new_tokens = next(iter(limits.values()), _MAX_NEW_TOKENS)
    return GenerationOptions(tuple(stop), max_new_tokens, _read_sampling(where, options))


def _read_sampling(where: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    given = {name: options[name] for name in _SAMPLING if options.get(name) is not None}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{where}.{name}={value!r}: must be a number")
    samples = options.get("do_sample", given.get("temperature", 0) > 0)
    return ({"temperature": 1.0} | given) if samples else {}
