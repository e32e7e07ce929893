"""Find out what a network supports by running it on a few tokens; its name does not count."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import Cache, EncoderDecoderCache, PreTrainedModel

from icl_eval.decoding.networks import (
    agree,
    all_finite,
    decoder_of,
    encode,
    inputs_of,
    logits_at,
    new_cache,
    not_finite_error,
    rope_switches_at,
    run,
    takes,
)
from icl_eval.decoding.pooled_caches import PooledCache
from icl_eval.decoding.prefixes import count_bytes, longest_whole
from icl_eval.decoding.sessions import NewRow, SplitSession, UniformSession
from icl_eval.decoding.split_caches import NO_LENGTH
from icl_eval.errors import ConfigError, IclEvalError
from icl_eval.formatting import join_lines
from icl_eval.models.cards import read_max_length
from icl_eval.models.loading import LanguageModel
from icl_eval.models.memory import is_out_of_memory
from icl_eval.models.switching import Switch, switched
from icl_eval.prompts.token_ids import Ids

_TRIAL = 6
"""Number of tokens in a trial: half of them are the prefix of the rest."""
_SHORTER = 4
"""Number of tokens in the shorter of the two rows with which split attention is tried."""

_MOST_OF_REASON = 200
"""The number of characters that are shown of an error of the network."""


@dataclass(frozen=True)
class Capabilities:
    """How a network can be run."""

    split: bool
    """Whether rows can attend to a shared prefix in place, as long as they fit into the sliding window."""
    pools: bool
    """Whether rows of different lengths can come after tokens of others; not tried where all rows attend in place."""
    pools_aligned: bool
    """Whether they can at least if a pass has only rows that come after equally many tokens."""
    longest_whole: int | None
    """Largest number of tokens that the cache keeps completely; None if there is no limit."""
    bytes_per_token: int
    """Size of one token's keys and values in all layers."""
    rope_switches_at: int | None
    """Number of tokens beyond which all positions use other rotary frequencies (longrope); None if they never do."""
    unnumbered_id: int | None
    """The token that position ids skip, but only within one forward pass; None if there is no such token."""

    def splits(self, num_tokens: int) -> bool:
        """Return whether rows of up to `num_tokens` tokens can attend to a shared prefix in place."""
        return self.split and (self.longest_whole is None or num_tokens <= self.longest_whole)


def check_history(model: LanguageModel, capabilities: Capabilities, history: Ids, num_new: int) -> None:
    """Refuse a row whose logits would differ when computed from a cache.

    Args:
        model: The model that will run the row.
        capabilities: What the model supports.
        history: The decoder's tokens before the first new one, including the start token.
        num_new: The maximum number of new tokens; the last of them is not run.

    Raises:
        ConfigError: If the logits would differ.
    """
    num_run = len(history) + num_new - 1
    limit, unnumbered_id = capabilities.rope_switches_at, capabilities.unnumbered_id
    if limit is not None and num_run > limit:
        raise ConfigError(
            f"{model.name} switches to other rotary frequencies beyond {limit} tokens (longrope), and a prompt with "
            f"its completion may have {num_run}: use fewer demonstrations, or decoding=generate, which decodes one "
            "prompt at a time without a shared cache"
        )
    if unnumbered_id is not None and unnumbered_id in history[:-1]:
        raise ConfigError(
            f"{model.name} skips {model.tokenizer.convert_ids_to_tokens(unnumbered_id)!r} in its position ids, and a "
            "prompt contains that token: use decoding=generate, which decodes one prompt at a time without a shared "
            "cache"
        )


def try_out(model: LanguageModel, split: Sequence[Switch]) -> Capabilities:
    """Measure what a model supports with a few tokens; hooks that the caller has registered run on them, too.

    Args:
        model: A model whose network is ready to run.
        split: Switches that turn split attention on; empty if it must not be tried.

    Raises:
        ConfigError: If the network fails, or its logits with a key/value cache differ from those without.
        IclEvalError: If its logits are not finite.
    """
    try:
        return _run_trial(model, split)
    except Exception as error:  # an unknown kind of network can raise anything
        if isinstance(error, IclEvalError) or is_out_of_memory(error):
            raise
        reason = join_lines(f"{type(error).__name__}: {error}").removesuffix(":")
        if len(reason) > _MOST_OF_REASON:
            reason = reason[: _MOST_OF_REASON - 2] + " …"
        raise _undecodable(model, f"its network fails ({reason})") from error


def _undecodable(model: LanguageModel, reason: str) -> ConfigError:
    return ConfigError(
        f"{model.name} cannot be decoded token by token, because {reason}: use decoding=generate, which decodes one "
        "prompt at a time"
    )


def _run_trial(model: LanguageModel, split_switches: Sequence[Switch]) -> Capabilities:
    network = model.network
    ids, encoded = _ids(decoder_of(network)), None
    if model.architecture == "encoder-decoder":
        encoded, _ = encode(network, [_ids(network.get_encoder())])
    # Each pass reads all weights, whatever its tokens: one gives the logits of both rows, the longer one last.
    inputs = inputs_of(network, [ids], new_cache(network.config), encoded)
    whole = logits_at(network, (_SHORTER - 1, _TRIAL - 1), **inputs)[0]
    if not all_finite(whole).all():
        raise not_finite_error(f"{model.name}: the largest logit", whole.dtype)
    prefix = _run_prefix(network, ids, encoded)
    bytes_per_token = count_bytes(prefix) // (_TRIAL // 2)
    limit = longest_whole(prefix)
    split = (limit is None or limit >= _TRIAL) and _can_split(network, split_switches, prefix, ids, whole)
    # Also where rows attend to a prefix in place: the prefix itself is computed in pieces, each after those before it.
    if not agree(_run_rest(network, prefix, ids, encoded), whole[-1:], network):
        raise _undecodable(model, "its logits with a key/value cache differ from those without")
    pools, pools_aligned = _try_pools(network, prefix, ids, encoded, whole) if not split or limit else (False, False)
    unnumbered_id = None if split else _find_unnumbered(network, ids, encoded)
    switches_at = rope_switches_at(network.config)
    return Capabilities(split, pools, pools_aligned, limit, bytes_per_token, switches_at, unnumbered_id)


def _run_prefix(network: PreTrainedModel, ids: Ids, encoded: torch.Tensor | None) -> Cache:
    """Run the first half of some ids and return their cache."""
    prefix = new_cache(network.config)
    run(network, [ids[: _TRIAL // 2]], prefix, encoded)
    return prefix


def _run_rest(network: PreTrainedModel, prefix: Cache, ids: Ids, encoded: torch.Tensor | None) -> torch.Tensor:
    """Run the second half after a copy of the first one's cache and return the last logits, [1, vocabulary]."""
    return UniformSession(network, prefix, encoded).join([NewRow((), ids[_TRIAL // 2 :])])


def _find_unnumbered(network: PreTrainedModel, ids: Ids, encoded: torch.Tensor | None) -> int | None:
    """Return the padding id if its position depends on whether it comes from a cache, else None."""
    pad_id: int | None = getattr(network.config.get_text_config(decoder=True), "pad_token_id", None)
    # A padding token that was added without a vector, or -1 for none, is in no prompt.
    if pad_id is None or not 0 <= pad_id < decoder_of(network).get_input_embeddings().num_embeddings:
        return None
    padded = (ids[0], pad_id, *ids[2:])
    whole = run(network, [padded], new_cache(network.config), encoded)
    pieces = _run_rest(network, _run_prefix(network, padded, encoded), padded, encoded)
    return None if agree(whole, pieces, network) else pad_id


def _can_split(
    network: PreTrainedModel, switches: Sequence[Switch], prefix: Cache, ids: Ids, whole: torch.Tensor
) -> bool:
    """Return whether two rows of different lengths after a shared prefix get the right logits from split attention."""
    if not switches or not takes(network, "position_ids"):
        return False
    begin = prefix.get_seq_length()
    rows = [NewRow((), ids[begin:end]) for end in (_SHORTER, _TRIAL)]
    try:
        with switched(network, switches):
            session = SplitSession(network, prefix, _TRIAL - begin, max_new_tokens=1, reported_length=NO_LENGTH)
            logits = session.join(rows)
    except (AttributeError, TypeError, NotImplementedError, RuntimeError, ValueError):
        return False  # the network needs more from its keys than split keys offer
    return agree(logits, whole, network)


def _try_pools(
    network: PreTrainedModel, prefix: Cache, ids: Ids, encoded: torch.Tensor | None, whole: torch.Tensor
) -> tuple[bool, bool]:
    """Return whether rows of a pool get the right logits that come after any tokens, and after equally many."""
    if longest_whole(prefix.self_attention_cache if isinstance(prefix, EncoderDecoderCache) else prefix) == 0:
        return False, False  # a state cannot be taken apart
    # What a network computes from the length, instead of positions and masks, may show in longer rows only, or rounding
    # may hide it. So the length is wrong here, unless positions are relative to it.
    is_told = encoded is None or takes(network, "decoder_position_ids")
    count = prefix.get_seq_length()
    if is_told or read_max_length(network.config) is None:
        pool = PooledCache(network, prefix, encoded, count + 2 * (_TRIAL - count), NO_LENGTH if is_told else None)
        if _can_pool(pool, network, ids, (count, count - 1), whole):
            return True, True
    pool = PooledCache(network, prefix, encoded, count + 2 * (_TRIAL - count))
    return False, _can_pool(pool, network, ids, (count, count), whole)


def _can_pool(
    pool: PooledCache, network: PreTrainedModel, ids: Ids, lengths: tuple[int, int], whole: torch.Tensor
) -> bool:
    """Return whether padded rows that come after so many tokens of the prefix get the right logits from a pool."""
    rows = [ids[lengths[0] :], ids[lengths[1] : _SHORTER]]
    inputs = pool.prepare(rows, list(map(np.arange, lengths)), begin=pool.prefix_length)
    try:
        logits = logits_at(network, range(len(rows[0])), **inputs)
    except (AttributeError, IndexError, TypeError, NotImplementedError, RuntimeError, ValueError):
        return False  # the network needs more from its cache or its mask than they offer
    found = torch.stack([logits[1, len(rows[1]) - 1], logits[0, -1]])
    return agree(found, whole, network)


def _ids(side: Any) -> Ids:
    """Return distinct ids from the middle of an encoder's or decoder's vocabulary, away from special tokens."""
    size = side.get_input_embeddings().num_embeddings
    return tuple(number % size for number in range(size // 2, size // 2 + _TRIAL))
