"""Open the right kind of session for a group of prompts, with their shared prefix in its cache."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from transformers import Cache, PreTrainedModel

from icl_eval.decoding.memory import free_bytes_of
from icl_eval.decoding.networks import encode, most_prefill_tokens, new_cache, run
from icl_eval.decoding.padded_sessions import PaddedSession
from icl_eval.decoding.prefixes import Key
from icl_eval.decoding.preparing import PreparedModel
from icl_eval.decoding.sessions import Session, SplitSession, UniformSession
from icl_eval.decoding.sharing import PromptGroup
from icl_eval.prompts.token_ids import Ids


@dataclass(frozen=True)
class Beginning:
    """The shared beginning of all rows of a group; every session of the group uses it."""

    length: int
    """Number of decoder tokens in the prefix."""
    prefix: Cache | None
    encoded: torch.Tensor | None
    """The encoder's states, [1, tokens, size], if all rows share them."""


@dataclass(frozen=True)
class OpenSession:
    """A session whose cache already holds the prefix of its rows."""

    session: Session
    prefix_length: int
    """Number of decoder tokens in the prefix."""


def begin_group(prepared: PreparedModel, group: PromptGroup, start_ids: Ids, prefix_bytes: int | None) -> Beginning:
    """Return the shared beginning of a group's rows, computed or taken from the prefix store.

    Args:
        prepared: The model to compute it with, and the prefixes of earlier groups.
        group: The group.
        start_ids: The decoder's start tokens, which precede the prompts.
        prefix_bytes: Maximum size of the prefixes that are kept for later groups; None for as much as there is room
            for, and at least this group's.
    """
    network = prepared.model.network
    encoder_ids = group.prompts[0].encoder_ids if group.shares_encoder else ()
    prefix_ids = start_ids + group.prefix
    if not (group.prefix or encoder_ids) or any(len(each.decoder) <= len(group.prefix) for each in group.prompts):
        prefix_ids = ()
    prefix = None
    with prepared.accelerated():
        encoded = encode(network, [encoder_ids])[0] if encoder_ids else None
        if prefix_ids:
            key = Key(encoder_ids, prefix_ids)
            prefix = prepared.prefixes.get(key, lambda start, ids: extend(network, start, ids, encoded))
            prepared.prefixes.evict(prefix, prefix_bytes, lambda: free_bytes_of(network))
    return Beginning(len(prefix_ids), prefix, encoded)


def open_session(
    prepared: PreparedModel, beginning: Beginning, lengths: Collection[int], max_new_tokens: int
) -> OpenSession:
    """Return a session for rows of a group, starting after their shared beginning.

    Args:
        prepared: The model.
        beginning: The beginning.
        lengths: The number of decoder tokens of each row, with the beginning.
        max_new_tokens: The largest number of tokens that a row will get.
    """
    network = prepared.model.network
    longest = max(lengths)
    session: Session
    if prepared.capabilities.splits(longest + max_new_tokens):
        longest_own = longest - beginning.length
        session = SplitSession(network, beginning.prefix, longest_own, max_new_tokens, recorder=prepared.recorder)
    elif min(lengths) < longest and prepared.can_pool(beginning.prefix):
        session = PaddedSession(network, beginning.prefix, beginning.encoded)
    else:
        session = UniformSession(network, beginning.prefix, beginning.encoded)
    return OpenSession(session, beginning.length)


def extend(network: PreTrainedModel, start: Cache | None, ids: Ids, encoded: torch.Tensor | None) -> Cache:
    """Append ids to the cache of a prefix, in place, or to a new cache if `start` is None; return the cache."""
    cache = new_cache(network.config) if start is None else start
    most = most_prefill_tokens(network.device)
    for begin in range(0, len(ids), most):
        run(network, [ids[begin : begin + most]], cache, encoded)
    return cache
