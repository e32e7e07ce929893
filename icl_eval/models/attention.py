"""Attention implementations of transformers, by name (`model.attn_implementation`)."""

from typing import TYPE_CHECKING

from icl_eval.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_OWN = "icl_eval"
"""The beginning of the names that this package registers for its own use."""


def check_attention(name: str | None, dtype: str, trust_remote_code: bool) -> None:
    """Refuse an attention implementation that is unknown, or that cannot run as asked.

    Args:
        name: The name; None for the network's default.
        dtype: The dtype that the network computes in.
        trust_remote_code: Whether code from the hub may run: a name such as `acme/kernel` is a kernel there.

    Raises:
        ConfigError: If it is refused.
    """
    if name is None:
        return
    if "/" in name:
        if not trust_remote_code:
            raise ConfigError(
                f"model.attn_implementation={name}: runs a kernel from the hub: set model.trust_remote_code=true if "
                "you trust its author"
            )
        return
    known = list_implementations()
    if name not in known:
        raise ConfigError(f"model.attn_implementation={name}: must be one of {', '.join(known)}")
    if name.startswith("flash_") and dtype not in ("float16", "bfloat16"):
        raise ConfigError(f"model.attn_implementation={name}: computes in float16 or bfloat16 only, and dtype={dtype}")


def list_implementations() -> list[str]:
    """Return the names of the implementations that transformers has."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    names = {"eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()}
    return sorted(name for name in names if not name.startswith((_OWN, "paged|")))


def require_attention(network: "PreTrainedModel", name: str | None, model: str) -> None:
    """Refuse a network that runs another attention implementation than the one asked for; raises ConfigError."""
    effective = network.config._attn_implementation
    if name is not None and effective != name:
        raise ConfigError(f"model.attn_implementation={name}: {model} would run {effective} instead")
