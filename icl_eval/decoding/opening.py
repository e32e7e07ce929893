"""Compute what prompts begin with, and open the right kind of session for a group of them after it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from transformers import Cache, PreTrainedModel

from icl_eval.decoding.memory import free_bytes_of
from icl_eval.decoding.networks import encode, most_prefill_tokens, new_cache, run
from icl_eval.decoding.padded_sessions import PaddedSession
from icl_eval.decoding.prefixes import Key, PrefixStack
from icl_eval.decoding.preparing import PreparedModel
from icl_eval.decoding.sessions import Session, SplitSession, UniformSession
from icl_eval.decoding.sharing import PromptGroup
from icl_eval.prompts.token_ids import Ids


@dataclass(frozen=True)
class Beginning:
    """The shared beginning of the rows of a group or a part, which is computed once for all of them."""

    length: int
    """Number of decoder tokens in the prefix."""
    prefix: Cache | None
    encoded: torch.Tensor | None
    """The encoder's states, [1, tokens, size], if all rows share them."""

    @property
    def num_tokens(self) -> int:
        """The number of tokens on both sides, to which every row attends."""
        return self.length + (0 if self.encoded is None else self.encoded.shape[1])


NO_BEGINNING = Beginning(0, None, None)


class BeginningStack:
    """Computes one beginning after another, for likelihoods: what it has in common with the last one is there."""

    def __init__(self, network: PreTrainedModel):
        self._network = network
        self._prefixes = PrefixStack()
        self._encoder_ids: Ids = ()
        self._encoded: torch.Tensor | None = None

    def get(self, key: Key, pauses: Sequence[int]) -> Beginning:
        """Return the beginning with some tokens.

        Args:
            key: The tokens of both sides; those of the decoder, which begin with the start token, may be missing.
            pauses: The lengths at which the decoder's part of it is cut, so that others can continue from there.
        """
        if key.encoder_ids != self._encoder_ids:
            self._encoded = encode(self._network, [key.encoder_ids])[0] if key.encoder_ids else None
            self._encoder_ids = key.encoder_ids
        prefix = None
        if key.decoder_ids:
            prefix = self._prefixes.get(
                key, pauses, lambda start, ids: extend(self._network, start, ids, self._encoded)
            )
        return Beginning(len(key.decoder_ids), prefix, self._encoded)


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
    key = Key(group.encoder_ids, group.begin(start_ids))
    prefix = None
    with prepared.accelerated():
        encoded = encode(network, [key.encoder_ids])[0] if key.encoder_ids else None
        if key.decoder_ids:
            prefix = prepared.prefixes.get(key, lambda start, ids: extend(network, start, ids, encoded))
            prepared.prefixes.evict(prefix, prefix_bytes, lambda: free_bytes_of(network))
    return Beginning(len(key.decoder_ids), prefix, encoded)


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
