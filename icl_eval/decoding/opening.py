"""Opening: the right kind of session for a group of prompts, with the prefix that they share in its cache."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import Cache, PreTrainedModel

from icl_eval.decoding.hypotheses import Hypothesis
from icl_eval.decoding.networks import MAX_PREFILL_TOKENS, encode, new_cache, run
from icl_eval.decoding.prefixes import Key
from icl_eval.decoding.preparing import PreparedModel
from icl_eval.decoding.sessions import Session, SplitSession, UniformSession
from icl_eval.decoding.sharing import Ids, PromptGroup


@dataclass(frozen=True)
class Beginning:
    """What all rows of a group begin with; it serves every session of the group, whatever else is kept."""

    length: int
    """Tokens of the decoder that the prefix holds."""
    prefix: Cache | None
    encoded: torch.Tensor | None
    """The encoder's states, [1, tokens, size], where all rows share them."""


@dataclass(frozen=True)
class Room:
    """What a session has to have room for."""

    num_rows: int
    max_new_tokens: int


@dataclass(frozen=True)
class Opened:
    """A session, and how much of its rows' histories it already holds."""

    session: Session
    prefix_length: int


def begin_group(
    prepared: PreparedModel, group: PromptGroup, rows: Sequence[Hypothesis], prefix_bytes: int
) -> Beginning:
    """Return what the rows of a group begin with, computed or taken from what was kept.

    Args:
        prepared: What to compute it with, and what is kept of earlier groups.
        group: The group.
        rows: All its rows that are still to be decoded.
        prefix_bytes: How much memory prefixes may keep for later groups.
    """
    network = prepared.model.network
    encoder_ids = rows[0].encoder_ids if group.shares_encoder else ()
    prefix_ids = rows[0].history[: len(rows[0].start_ids) + len(group.prefix)]
    if not (group.prefix or encoder_ids) or any(len(row.history) <= len(prefix_ids) for row in rows):
        prefix_ids = ()
    prefix = None
    with prepared.accelerated():
        encoded = encode(network, [encoder_ids])[0] if encoder_ids else None
        if prefix_ids:
            key = Key(encoder_ids, prefix_ids)
            prefix = prepared.prefixes.get(key, lambda start, ids: extend(network, start, ids, encoded), prefix_bytes)
    return Beginning(len(prefix_ids), prefix, encoded)


def open_session(prepared: PreparedModel, beginning: Beginning, rows: Sequence[Hypothesis], room: Room) -> Opened:
    """Return a session for rows of a group, after what they begin with."""
    network = prepared.model.network
    longest = max(len(row.history) for row in rows)
    if prepared.capabilities.splits(longest + room.max_new_tokens):
        longest_own = longest - beginning.length
        split = SplitSession(network, beginning.prefix, room.num_rows, longest_own, room.max_new_tokens)
        return Opened(split, beginning.length)
    return Opened(UniformSession(network, beginning.prefix, beginning.encoded), beginning.length)


def extend(network: PreTrainedModel, start: Cache | None, ids: Ids, encoded: torch.Tensor | None) -> Cache:
    """Append ids to the cache of a prefix, None for an empty one; it may be changed."""
    cache = new_cache(network.config) if start is None else start
    for begin in range(0, len(ids), MAX_PREFILL_TOKENS):
        run(network, [ids[begin : begin + MAX_PREFILL_TOKENS]], cache, encoded)
    return cache
