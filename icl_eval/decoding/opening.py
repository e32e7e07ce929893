"""Opening: the right kind of session for a group of prompts, with the prefix that they share in its cache."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import Cache, PreTrainedModel

from icl_eval.decoding.capabilities import Capabilities
from icl_eval.decoding.hypotheses import Hypothesis
from icl_eval.decoding.networks import MAX_PREFILL_TOKENS, encode, new_cache, run
from icl_eval.decoding.prefixes import Key
from icl_eval.decoding.sessions import Session, SplitSession, UniformSession
from icl_eval.decoding.sharing import Group, Ids


@dataclass(frozen=True)
class Room:
    """What a session has to have room for."""

    num_rows: int
    max_new_tokens: int
    prefix_bytes: int
    """How much memory prefixes may keep for later sessions."""


@dataclass(frozen=True)
class Opened:
    """A session, and how much of its rows' histories it already holds."""

    session: Session
    prefix_length: int


def open_session(
    network: PreTrainedModel,
    capabilities: Capabilities,
    group: Group,
    rows: Sequence[Hypothesis],
    room: Room,
) -> Opened:
    """Return a session for rows of a group; their shared prefix is computed, or taken from what was kept."""
    encoder_ids = rows[0].encoder_ids if group.shares_encoder else ()
    encoded = encode(network, [encoder_ids])[0] if encoder_ids else None
    prefix_ids = rows[0].history[: len(rows[0].start_ids) + len(group.prefix)]
    if not (group.prefix or encoder_ids) or any(len(row.history) <= len(prefix_ids) for row in rows):
        prefix_ids = ()
    prefix = None
    if prefix_ids:
        key = Key(encoder_ids, prefix_ids)
        prefix = capabilities.prefixes.get(
            key, lambda start, ids: extend(network, start, ids, encoded), room.prefix_bytes
        )
    if capabilities.split:
        longest_own = max(len(row.history) for row in rows) - len(prefix_ids)
        split = SplitSession(network, prefix, room.num_rows, longest_own, room.max_new_tokens)
        return Opened(split, len(prefix_ids))
    return Opened(UniformSession(network, prefix, encoded), len(prefix_ids))


def extend(network: PreTrainedModel, start: Cache | None, ids: Ids, encoded: torch.Tensor | None) -> Cache:
    """Append ids to the cache of a prefix, None for an empty one; it may be changed."""
    cache = new_cache(network) if start is None else start
    for begin in range(0, len(ids), MAX_PREFILL_TOKENS):
        run(network, [ids[begin : begin + MAX_PREFILL_TOKENS]], cache, encoded)
    return cache
