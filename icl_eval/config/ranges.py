"""Read options and check their ranges, by the schema alone, so that a wrong value is refused at once."""

import re
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

from omegaconf import DictConfig

from icl_eval.config.schema import ModelOptions, RunConfig, TaskConfig, typed_config
from icl_eval.errors import ConfigError
from icl_eval.models.devices import check_device, check_device_map

_DTYPES = ("float32", "bfloat16", "float16", "float64")
_OVERFLOWS = ("stop", "drop")
MAX_NEW_TOKENS = 1_000_000
MAX_SEED = 2**63 - 1
_MAXIMA = {
    "limit": 1_000_000_000,
    "seed": MAX_SEED,
    "batch_size": 100_000,
    "prefix_cache_mb": 100_000_000,
    "leave_out": 1_000_000,
}
"""Upper limits for numbers that no machine could handle or that can only be typos."""
_MIN_FRACTION = 1e-6
"""The smallest fraction for `limit`: one example in a million."""
_MAX_NAME_BYTES = 200
"""Limit on a task's name. File names may have 255 bytes, and the name becomes part of `samples_NAME.jsonl`."""


def read_options(cfg: DictConfig, schema: type[RunConfig] = RunConfig) -> RunConfig:
    """Return the options of an evaluation.

    Args:
        cfg: The composed configuration.
        schema: `RunConfig`, or the schema of a command that takes more keys.

    Raises:
        ConfigError: If an option is unknown, missing, of the wrong type or out of range.
    """
    config = typed_config(cfg, schema)
    _check_ranges(config)
    return config


def _check_ranges(config: RunConfig) -> None:
    """Check the ranges of an evaluation's options; raises ConfigError."""
    check_model_options(config, min_new_tokens=min_new_tokens_of(config, config.task.values()))
    for key, maximum in _MAXIMA.items():
        require_at_most(key, getattr(config, key), maximum)
    _check_tasks(config.task)
    require_at_least("num_fewshot", config.num_fewshot, 0)
    require_at_least("seed", config.seed, 0)
    if config.batch_size != "auto" and not (isinstance(config.batch_size, int) and config.batch_size >= 1):
        raise ConfigError(f"batch_size={config.batch_size}: must be auto, or 1 or more")
    if config.prefix_cache_mb != "auto" and not (
        isinstance(config.prefix_cache_mb, int) and config.prefix_cache_mb >= 0
    ):
        raise ConfigError(f"prefix_cache_mb={config.prefix_cache_mb}: must be auto, or 0 or more")
    if config.overflow not in _OVERFLOWS:
        raise ConfigError(f"overflow={config.overflow}: must be one of {', '.join(_OVERFLOWS)}")
    _check_limit(config.limit)
    require_at_least("limit_seed", config.limit_seed, 0)
    if config.limit_seed is not None and config.limit is None:
        raise ConfigError(f"limit_seed={config.limit_seed}: has no effect without limit")


def _check_tasks(tasks: Mapping[str, TaskConfig]) -> None:
    if not tasks:
        raise ConfigError("task: at least one task is needed (task=qa, or task=[qa,math])")
    for name, task in tasks.items():
        if task.name is None:  # not tasks of another harness, which have names of their own
            require_task_name(f"task.{name}", name)


def _check_limit(limit: int | float | None) -> None:
    if limit is not None and not (limit >= 1 if isinstance(limit, int) else 0 < limit < 1):
        raise ConfigError(f"limit={limit}: must be a number of examples (1 or more) or a fraction between 0 and 1")
    if limit is not None and limit < _MIN_FRACTION:
        raise ConfigError(f"limit={limit}: a fraction must be {_MIN_FRACTION} or more (one example in a million)")


def require_task_name(key: str, name: str) -> None:
    """Check that a name can be part of a file's name; raises ConfigError."""
    if not re.fullmatch(r"[\w.-]+", name):
        raise ConfigError(f"{key}: a task's name becomes a file name; use letters, digits, '_', '-' and '.'")
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise ConfigError(
            f"{key}: a task's name becomes part of a file name; this one has {len(name.encode())} bytes in UTF-8, and "
            f"at most {_MAX_NAME_BYTES} are allowed"
        )


def require_at_least(key: str, value: Any, minimum: int) -> None:
    """Raise ConfigError if a whole number is smaller than the minimum; other values, such as None, are ignored."""
    if isinstance(value, Integral) and int(value) < minimum:
        raise ConfigError(f"{key}={value}: must be {minimum} or more")


def require_at_most(key: str, value: Any, maximum: int) -> None:
    """Raise ConfigError if a whole number is larger than the maximum; other values, such as None, are ignored."""
    if isinstance(value, Integral) and int(value) > maximum:
        raise ConfigError(f"{key}={value}: must be {maximum} or less")


def check_model_options(config: ModelOptions, min_new_tokens: int = 1) -> None:
    """Check the ranges of the options that all commands with a model share.

    Args:
        config: The options.
        min_new_tokens: The smallest valid `max_new_tokens`.

    Raises:
        ConfigError: If an option is out of range.
    """
    if config.dtype not in _DTYPES:
        raise ConfigError(f"dtype={config.dtype}: must be one of {', '.join(_DTYPES)}")
    check_device(config.device)
    check_device_map(config.model.device_map, config.device)
    require_at_least("max_new_tokens", config.max_new_tokens, min_new_tokens)
    require_at_most("max_new_tokens", config.max_new_tokens, MAX_NEW_TOKENS)


def min_new_tokens_of(config: RunConfig, tasks: Iterable[TaskConfig]) -> int:
    """Return the smallest valid `max_new_tokens`: 0 if one of the tasks scores answers by likelihood, otherwise 1."""
    return 0 if config.likelihood or any(task.likelihood for task in tasks) else 1
