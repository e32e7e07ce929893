"""Options that all commands with a model share, and what a type cannot say about an option."""

from collections.abc import Mapping
from typing import Any

from icl_eval.config.schema import ModelConfig, ModelOptions, RunConfig
from icl_eval.decoding.searches import SEARCHES, Search
from icl_eval.errors import ConfigError
from icl_eval.models.weights import ModelSpec
from icl_eval.prompts.conventions import RequestedConventions
from icl_eval.targets import build

DTYPES = ("float32", "bfloat16", "float16", "float64")
OVERFLOWS = ("stop", "drop")
MOST_NEW_TOKENS = 1_000_000
MOST_SEED = 2**63 - 1
_MOST = {
    "limit": 1_000_000_000,
    "seed": MOST_SEED,
    "batch_size": 100_000,
    "prefix_cache_mb": 100_000_000,
    "leave_out": 1_000_000,
}
"""Of numbers that no machine has room for, or that nobody means."""
_LEAST_FRACTION = 1e-6
"""Of `limit`: less is no example of a million."""


def build_model_spec(config: ModelConfig) -> ModelSpec:
    """Turn the model's options into a specification."""
    return ModelSpec(config.source, config.revision, config.trust_remote_code, config.allow_pickle)


def asked_conventions(config: ModelOptions) -> RequestedConventions:
    """Return which of the model's conventions the options ask for."""
    model = config.model
    return RequestedConventions(config.task_prefix, model.source_language, model.target_language, model.chat_template)


def build_search(config: Mapping[str, Any]) -> Search:
    """Turn the options of `decoding` into a search; raises ConfigError."""
    search: Search = build(config, "decoding", SEARCHES)
    return search


def check_ranges(config: RunConfig) -> None:
    """Check the options of an evaluation; raises ConfigError."""
    check_model_options(config, least_new_tokens=least_new_tokens_of(config))
    for key, most in _MOST.items():
        require_at_most(key, getattr(config, key), most)
    if not config.task:
        raise ConfigError("task: at least one is needed (task=qa, or task=[qa,math])")
    if config.num_fewshot < 0:
        raise ConfigError(f"num_fewshot={config.num_fewshot}: must be 0 or more")
    if config.seed < 0:
        raise ConfigError(f"seed={config.seed}: must be 0 or more")
    if config.batch_size != "auto" and not (isinstance(config.batch_size, int) and config.batch_size >= 1):
        raise ConfigError(f"batch_size={config.batch_size}: must be auto, or 1 or more")
    if config.prefix_cache_mb < 0:
        raise ConfigError(f"prefix_cache_mb={config.prefix_cache_mb}: must be 0 or more")
    if config.overflow not in OVERFLOWS:
        raise ConfigError(f"overflow={config.overflow}: must be one of {', '.join(OVERFLOWS)}")
    _check_limit(config.limit)


def _check_limit(limit: int | float | None) -> None:
    if limit is not None and not (limit >= 1 if isinstance(limit, int) else 0 < limit < 1):
        raise ConfigError(f"limit={limit}: must be a number of examples (1 or more) or a fraction between 0 and 1")
    if limit is not None and limit < _LEAST_FRACTION:
        raise ConfigError(f"limit={limit}: a fraction must be {_LEAST_FRACTION} or more, an example of a million")


def require_at_most(key: str, value: Any, most: int) -> None:
    """Raise ConfigError where a number is larger than can be meant."""
    if isinstance(value, int) and value > most:
        raise ConfigError(f"{key}={value}: must be {most} or less")


def check_model_options(config: ModelOptions, least_new_tokens: int = 1) -> None:
    """Check what a type cannot say about the options that all commands with a model share.

    Args:
        config: The options.
        least_new_tokens: How many new tokens must be asked for at least.

    Raises:
        ConfigError: When one is out of range.
    """
    if config.dtype not in DTYPES:
        raise ConfigError(f"dtype={config.dtype}: must be one of {', '.join(DTYPES)}")
    if config.max_new_tokens is not None and config.max_new_tokens < least_new_tokens:
        raise ConfigError(f"max_new_tokens={config.max_new_tokens}: must be {least_new_tokens} or more")
    require_at_most("max_new_tokens", config.max_new_tokens, MOST_NEW_TOKENS)


def least_new_tokens_of(config: RunConfig) -> int:
    """Return 0 where answers can be scored by their likelihood alone, and else 1."""
    return 0 if config.likelihood else 1
