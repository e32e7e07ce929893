"""Capabilities: what a network can do, found by trying it on a few tokens rather than by its name."""

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import Cache, PreTrainedModel

from icl_eval.decoding import split_attention
from icl_eval.decoding.linears import restore_linears, speed_up_linears
from icl_eval.decoding.memory import is_out_of_memory
from icl_eval.decoding.networks import decoder_of, encode, new_cache, rope_switches_at, run, takes
from icl_eval.decoding.prefixes import PrefixStore, count_bytes, longest_whole
from icl_eval.decoding.sessions import Joining, SplitSession, UniformSession
from icl_eval.decoding.sharing import Ids
from icl_eval.errors import ConfigError
from icl_eval.models import LanguageModel
from icl_eval.weights.quiet import quiet_transformers

_TRIAL = 6
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Greatest difference of logits, relative to the greatest logit, that rounding explains. Some networks compute
a part in float32 whatever they are loaded in, so float64 is given room for that."""


@dataclass(frozen=True)
class Capabilities:
    """How a network can be run, and what it keeps from one run to the next."""

    split: bool
    """Whether rows can attend to a shared prefix in place, as long as no window is reached."""
    longest_whole: int | None
    """Up to how many tokens the cache keeps all of them; None for any number."""
    bytes_per_token: int
    """Memory of one token's keys and values in all layers."""
    rope_switches_at: int | None
    """Beyond how many tokens all positions of a pass turn by other angles; None for never."""
    unnumbered_id: int | None
    """The token that positions pass over, but only within one pass; None for none."""
    prefixes: PrefixStore

    def splits(self, num_tokens: int) -> bool:
        """Return whether rows of at most so many tokens can attend to a shared prefix in place."""
        return self.split and (self.longest_whole is None or num_tokens <= self.longest_whole)


_KNOWN: "WeakKeyDictionary[LanguageModel, Capabilities]" = WeakKeyDictionary()


def capabilities_of(model: LanguageModel) -> Capabilities:
    """Return what a model can do; the first call for a model tries it.

    Raises:
        ConfigError: When the network fails, or gives other logits with a key/value cache than without one.
    """
    if model not in _KNOWN:
        with quiet_transformers(reports=False):
            _KNOWN[model] = _try(model)
    return _KNOWN[model]


def check_history(model: LanguageModel, history: Ids, num_new: int) -> None:
    """Refuse a row that few networks have: one that they compute otherwise from a cache than whole.

    Args:
        model: What is to run it.
        history: The decoder's tokens before the first new one, the start token included.
        num_new: How many tokens may follow; the last of them is not run.

    Raises:
        ConfigError: When the row is such a one.
    """
    capabilities, num_run = capabilities_of(model), len(history) + num_new - 1
    limit, unnumbered_id = capabilities.rope_switches_at, capabilities.unnumbered_id
    if limit is not None and num_run > limit:
        raise ConfigError(
            f"{model.name} turns its positions differently beyond {limit} tokens, and prompt and completion may have "
            f"{num_run}: its cache cannot be shared across that (decoding=generate leaves it to the library, one "
            "prompt at a time; or fewer demonstrations)"
        )
    if unnumbered_id in history[:-1]:
        raise ConfigError(
            f"{model.name} does not count {model.tokenizer.convert_ids_to_tokens(unnumbered_id)!r} in positions, and a "
            "prompt has it: its cache cannot be shared (decoding=generate leaves it to the library, one prompt at a "
            "time)"
        )


def _try(model: LanguageModel) -> Capabilities:
    speed_up_linears(model.network)
    try:
        return _run_trial(model)
    except Exception as error:  # a network of a kind that we do not know can raise anything
        restore_linears(model.network)
        if isinstance(error, ConfigError) or is_out_of_memory(error):
            raise
        raise _refusal(model, f"its network fails ({type(error).__name__})") from error


def _refusal(model: LanguageModel, reason: str) -> ConfigError:
    return ConfigError(
        f"{model.name} cannot be decoded token by token: {reason} "
        "(decoding=generate leaves it to the library, one prompt at a time)"
    )


def _run_trial(model: LanguageModel) -> Capabilities:
    network = model.network
    ids, encoded = _ids(decoder_of(network)), None
    if model.architecture == "encoder-decoder":
        encoded, _ = encode(network, [_ids(network.get_encoder())])
    whole = run(network, [ids], new_cache(network.config), encoded)
    pieces, prefix = _run_in_pieces(network, ids, encoded)
    if not _agree(whole, pieces):
        raise _refusal(model, "with its cache it gives other logits")
    bytes_per_token = count_bytes(prefix) // (_TRIAL // 2)
    limit = longest_whole(prefix)
    split = (limit is None or limit >= _TRIAL) and _can_split(network, ids, whole)
    unnumbered_id = None if split else _find_unnumbered(network, ids, encoded)
    switches_at = rope_switches_at(network.config)
    return Capabilities(split, limit, bytes_per_token, switches_at, unnumbered_id, PrefixStore())


def _run_in_pieces(network: PreTrainedModel, ids: Ids, encoded: torch.Tensor | None) -> tuple[torch.Tensor, Cache]:
    """Return the logits after some ids, half of which come from a cache, and that cache."""
    prefix = new_cache(network.config)
    run(network, [ids[: _TRIAL // 2]], prefix, encoded)
    return UniformSession(network, prefix, encoded).join([Joining((), ids[_TRIAL // 2 :])]), prefix


def _find_unnumbered(network: PreTrainedModel, ids: Ids, encoded: torch.Tensor | None) -> int | None:
    """Return the id of padding if it changes the positions of what follows it, unless it comes from a cache."""
    pad_id: int | None = getattr(network.config.get_text_config(decoder=True), "pad_token_id", None)
    if pad_id is None:
        return None
    padded = (ids[0], pad_id, *ids[2:])
    whole = run(network, [padded], new_cache(network.config), encoded)
    pieces, _ = _run_in_pieces(network, padded, encoded)
    return None if _agree(whole, pieces) else pad_id


def _can_split(network: PreTrainedModel, ids: Ids, whole: torch.Tensor) -> bool:
    """Run two rows of different lengths beside a shared prefix; switch split attention on if they come out right."""
    implementation = network.config._attn_implementation
    if implementation not in ("sdpa", split_attention.NAME) or not takes(network, "position_ids"):
        return False
    prefix = new_cache(network.config)
    run(network, [ids[:2]], prefix, None)
    shorter = run(network, [ids[:3]], new_cache(network.config), None)
    network.set_attn_implementation(split_attention.NAME)
    try:
        session = SplitSession(network, prefix, 2, _TRIAL - 2, max_new_tokens=1, told_length=split_attention.NO_LENGTH)
        logits = session.join([Joining((), ids[2:]), Joining((), ids[2:3])])
        if _agree(logits, torch.cat([whole, shorter])):
            return True
    except (AttributeError, TypeError, NotImplementedError, RuntimeError, ValueError):
        pass  # the network does with its keys what split keys cannot do
    network.set_attn_implementation(implementation)
    return False


def _agree(first: torch.Tensor, second: torch.Tensor) -> bool:
    difference = (first - second).abs().max()
    return bool(difference <= _TOLERANCE[first.dtype] * second.abs().max())


def _ids(side: Any) -> Ids:
    """Return different ids from the middle of an encoder's or decoder's vocabulary, where no special tokens are."""
    size = side.get_input_embeddings().num_embeddings
    return tuple(number % size for number in range(size // 2, size // 2 + _TRIAL))
