"""Capabilities: what a network can do, found by trying it on a few tokens rather than by its name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache, PreTrainedModel

from icl_eval.decoding.networks import (
    all_finite,
    decoder_of,
    encode,
    new_cache,
    not_finite,
    rope_switches_at,
    run,
    takes,
)
from icl_eval.decoding.prefixes import count_bytes, longest_whole
from icl_eval.decoding.sessions import Joining, SplitSession, UniformSession
from icl_eval.decoding.sharing import Ids
from icl_eval.decoding.split_attention import NO_LENGTH
from icl_eval.errors import ConfigError, IclEvalError
from icl_eval.models.loading import LanguageModel
from icl_eval.models.memory import is_out_of_memory
from icl_eval.models.switching import Switch, switched

_TRIAL = 6
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Greatest difference of logits, relative to the greatest logit, that rounding explains. Some networks compute
a part in float32 whatever they are loaded in, so float64 is given room for that."""


@dataclass(frozen=True)
class Capabilities:
    """How a network can be run."""

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

    def splits(self, num_tokens: int) -> bool:
        """Return whether rows of at most so many tokens can attend to a shared prefix in place."""
        return self.split and (self.longest_whole is None or num_tokens <= self.longest_whole)


def check_history(model: LanguageModel, capabilities: Capabilities, history: Ids, num_new: int) -> None:
    """Refuse a row that few networks have: one that they compute otherwise from a cache than whole.

    Args:
        model: What is to run it.
        capabilities: What that can do.
        history: The decoder's tokens before the first new one, the start token included.
        num_new: How many tokens may follow; the last of them is not run.

    Raises:
        ConfigError: When the row is such a one.
    """
    num_run = len(history) + num_new - 1
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


def try_out(model: LanguageModel, split: Sequence[Switch]) -> Capabilities:
    """Find out what a model can do, on a few tokens; hooks of the caller's see them, too.

    Args:
        model: Its network is ready to be run.
        split: What gives it split attention; none where that is not to be tried.

    Raises:
        ConfigError: When the network fails, or gives other logits with a key/value cache than without one.
        IclEvalError: When its logits are not numbers.
    """
    try:
        return _run_trial(model, split)
    except Exception as error:  # a network of a kind that we do not know can raise anything
        if isinstance(error, IclEvalError) or is_out_of_memory(error):
            raise
        raise _refusal(model, f"its network fails ({type(error).__name__})") from error


def _refusal(model: LanguageModel, reason: str) -> ConfigError:
    return ConfigError(
        f"{model.name} cannot be decoded token by token: {reason} "
        "(decoding=generate leaves it to the library, one prompt at a time)"
    )


def _run_trial(model: LanguageModel, split_switches: Sequence[Switch]) -> Capabilities:
    network = model.network
    ids, encoded = _ids(decoder_of(network)), None
    if model.architecture == "encoder-decoder":
        encoded, _ = encode(network, [_ids(network.get_encoder())])
    whole = run(network, [ids], new_cache(network.config), encoded)
    if not all_finite(whole).all():
        raise not_finite(f"{model.name}: the largest logit", whole.dtype)
    pieces, prefix = _run_in_pieces(network, ids, encoded)
    if not _agree(whole, pieces):
        raise _refusal(model, "with its cache it gives other logits")
    bytes_per_token = count_bytes(prefix) // (_TRIAL // 2)
    limit = longest_whole(prefix)
    split = (limit is None or limit >= _TRIAL) and _can_split(network, split_switches, ids, whole)
    unnumbered_id = None if split else _find_unnumbered(network, ids, encoded)
    switches_at = rope_switches_at(network.config)
    return Capabilities(split, limit, bytes_per_token, switches_at, unnumbered_id)


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


def _can_split(network: PreTrainedModel, switches: Sequence[Switch], ids: Ids, whole: torch.Tensor) -> bool:
    """Run two rows of different lengths beside a shared prefix with split attention and tell if they come out right."""
    if not switches or not takes(network, "position_ids"):
        return False
    prefix = new_cache(network.config)
    run(network, [ids[:2]], prefix, None)
    shorter = run(network, [ids[:3]], new_cache(network.config), None)
    try:
        with switched(network, switches):
            session = SplitSession(network, prefix, 2, _TRIAL - 2, max_new_tokens=1, told_length=NO_LENGTH)
            logits = session.join([Joining((), ids[2:]), Joining((), ids[2:3])])
    except (AttributeError, TypeError, NotImplementedError, RuntimeError, ValueError):
        return False  # the network does with its keys what split keys cannot do
    return _agree(logits, torch.cat([whole, shorter]))


def _agree(first: torch.Tensor, second: torch.Tensor) -> bool:
    difference = (first - second).abs().max()
    return bool(difference <= _TOLERANCE[first.dtype] * second.abs().max())


def _ids(side: Any) -> Ids:
    """Return different ids from the middle of an encoder's or decoder's vocabulary, where no special tokens are."""
    size = side.get_input_embeddings().num_embeddings
    return tuple(number % size for number in range(size // 2, size // 2 + _TRIAL))
