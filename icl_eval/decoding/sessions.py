"""Sessions: rows in a network, with the key/value cache of what they have seen.

A session knows tensors and nothing of text, stopping or streaming:

    session.join(rows)           new rows with their own tokens   ─▶ logits after each    [new rows, vocabulary]
    session.step(token_ids)      one more token a row             ─▶ logits after each    [rows, vocabulary]
    session.keep(rows)           the other rows leave

All rows of a session begin with the same prefix, which is in the cache before the first row joins. There are
two ways to keep rows of different lengths apart:

    SplitSession     decoder-only networks with plain attention, whose windows no row reaches: rows are padded, join
                     and leave at any time, and attend to the prefix in place (see `split_attention`)
    UniformSession   every other network, encoder-decoder ones too: all rows have seen equally many tokens, so no
                     position, window or recurrent state is ever disturbed by padding
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from transformers import Cache, PreTrainedModel

from icl_eval.decoding.growing import grow_in_place
from icl_eval.decoding.networks import MAX_PREFILL_TOKENS, chunks, encode, last_logits, new_cache, run
from icl_eval.decoding.prefixes import is_whole
from icl_eval.decoding.sharing import Ids
from icl_eval.decoding.split_attention import LayerKeysValues, SlotCache


@dataclass(frozen=True)
class Joining:
    """A row that is to join a session."""

    encoder_ids: Ids
    """Empty for a decoder-only network, and where the session's prefix brings the encoder's states."""
    own_ids: Ids
    """Decoder tokens after the prefix; at least one."""


class Session(Protocol):
    """Rows that are decoded together."""

    pads: bool
    """Whether rows of different lengths can join together, and others later."""

    def join(self, rows: Sequence[Joining]) -> torch.Tensor:
        """Add rows after those that are there and return the logits after them, [new rows, vocabulary]."""

    def step(self, token_ids: Sequence[int]) -> torch.Tensor:
        """Append one token to each row and return the logits after it, [rows, vocabulary]."""

    def keep(self, rows: Sequence[int]) -> None:
        """Let all rows but these leave; afterwards they stand in the order given."""


class SplitSession:
    """Rows in slots beside a prefix that is shared in place."""

    pads = True

    def __init__(
        self,
        network: PreTrainedModel,
        prefix: Cache | None,
        num_rows: int,
        longest_own: int,
        max_new_tokens: int,
        told_length: int = 1,
    ):
        """Allocate room.

        Args:
            network: A decoder-only network whose attention is `split_attention`.
            prefix: The cache of the shared prefix, whole; None for no prefix.
            num_rows: How many rows may be there at once.
            longest_own: The most tokens that a row joins with.
            max_new_tokens: The most tokens that are appended to a row.
            told_length: What the network is told of the cache's length; by default only that it is not empty.
        """
        self._network = network
        self._prefix_length = 0 if prefix is None else prefix.get_seq_length()
        # Room for one more generation than a row needs, so that columns seldom have to be shifted.
        self._num_columns = longest_own + 2 * max_new_tokens
        num_layers = network.config.get_text_config(decoder=True).num_hidden_layers
        self._cache = SlotCache(num_rows, self._num_columns, num_layers, layers_of(prefix))
        self._cache.slots.told_length = told_length
        self._longest_own = longest_own
        self._firsts: list[int] = []  # by row, the column of its first own token
        self._end = longest_own  # columns before it are taken

    @torch.inference_mode()
    def join(self, rows: Sequence[Joining]) -> torch.Tensor:
        """Add rows after those that are there and return the logits after them, [new rows, vocabulary]."""
        self._firsts += [self._end - len(row.own_ids) for row in rows]
        begin = len(self._firsts) - len(rows)
        logits = []
        for chunk in chunks([len(row.own_ids) for row in rows]):
            logits.append(self._prefill(rows[chunk], begin + chunk.start))
        return torch.cat(logits)

    @torch.inference_mode()
    def step(self, token_ids: Sequence[int]) -> torch.Tensor:
        """Append one token to each row and return the logits after it, [rows, vocabulary]."""
        if self._end == self._num_columns:
            self._shift()
        self._end += 1
        return self._forward([list(token_ids)], slice(0, len(token_ids)), min(self._firsts), self._end - 1)

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Let all rows but these leave; afterwards they stand in the order given."""
        self._firsts = [self._firsts[row] for row in rows]
        for layer in self._cache.slot_layers:
            layer.move_rows(rows)

    def _prefill(self, rows: Sequence[Joining], begin: int) -> torch.Tensor:
        width = max(len(row.own_ids) for row in rows)
        padded = [[0] * (width - len(row.own_ids)) + list(row.own_ids) for row in rows]
        columns = [list(column) for column in zip(*padded, strict=True)]
        first = self._end - width
        # In pieces, since the mask of a pass has a line of columns for each of its own.
        for start in range(0, width, MAX_PREFILL_TOKENS):
            piece = columns[start : start + MAX_PREFILL_TOKENS]
            logits = self._forward(piece, slice(begin, begin + len(rows)), first, first + start)
        return logits

    def _forward(self, columns: Sequence[Sequence[int]], rows: slice, first: int, begin: int) -> torch.Tensor:
        """Write columns of tokens, [columns][rows], that attend to the columns from `first` on."""
        device = self._network.device
        input_ids = torch.tensor(columns, device=device).T  # [rows, columns]
        row_firsts = self._firsts[rows]
        firsts = torch.tensor(row_firsts, device=device)[:, None]  # [rows, 1]
        written = torch.arange(begin, begin + len(columns), device=device)  # [columns]
        slots = self._cache.slots
        slots.rows, slots.first, slots.begin, slots.end = rows, first, begin, begin + len(columns)
        unpadded = len(columns) == 1 and max(row_firsts) <= first
        slots.mask = None if unpadded else self._mask(firsts, written, first)
        return last_logits(
            self._network,
            input_ids=input_ids,
            position_ids=self._prefix_length + (written - firsts).clamp(min=0),
            past_key_values=self._cache,
        )

    def _mask(self, firsts: torch.Tensor, written: torch.Tensor, first: int) -> torch.Tensor:
        """Return what is added to scores, [rows, 1, written, read]."""
        read = torch.arange(first, self._cache.slots.end, device=written.device)
        causal = read <= written[:, None]  # [written, read]
        own = read >= firsts  # [rows, read]
        # A column of padding sees itself, since a softmax over nothing is not a number.
        seen = (causal & own[:, None]) | (read == written[:, None])  # [rows, written, read]
        mask = torch.zeros(seen.shape, dtype=self._network.dtype, device=written.device)
        return mask.masked_fill_(~seen, float("-inf"))[:, None]

    def _shift(self) -> None:
        """Move all columns to the left, over those that no row reads any more."""
        first = min(self._firsts)
        end = max(self._longest_own, self._end - first)
        distance = self._end - end
        for layer in self._cache.slot_layers:
            layer.move_columns(first, self._end, distance)
        self._firsts = [column - distance for column in self._firsts]
        self._end = end


class UniformSession:
    """Rows that have all seen equally many tokens; they join together and leave one by one."""

    pads = False

    def __init__(self, network: PreTrainedModel, prefix: Cache | None, encoded: torch.Tensor | None):
        """Begin with a prefix.

        Args:
            network: Any network.
            prefix: The cache of the shared prefix; it is copied. None for no prefix.
            encoded: The encoder's states, [1, tokens, size], where all rows share them.
        """
        self._network = network
        self._prefix = prefix
        self._encoded = encoded
        self._mask: torch.Tensor | None = None  # of the encoder's states, [rows, tokens]

    @torch.inference_mode()
    def join(self, rows: Sequence[Joining]) -> torch.Tensor:
        """Add all rows, of one length, and return the logits after them, [rows, vocabulary]."""
        if self._prefix is None:
            self._cache = new_cache(self._network.config)
        else:
            self._cache = copy.deepcopy(self._prefix)
            self._cache.reorder_cache(torch.zeros(len(rows), dtype=torch.long, device=self._network.device))
        grow_in_place(self._cache)
        if self._encoded is not None:
            self._encoded = self._encoded.expand(len(rows), -1, -1)
        elif rows[0].encoder_ids:
            self._encoded, self._mask = encode(self._network, [row.encoder_ids for row in rows])
        return self._forward([row.own_ids for row in rows])

    @torch.inference_mode()
    def step(self, token_ids: Sequence[int]) -> torch.Tensor:
        """Append one token to each row and return the logits after it, [rows, vocabulary]."""
        return self._forward([[token_id] for token_id in token_ids])

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Let all rows but these leave; afterwards they stand in the order given."""
        index = torch.tensor(rows, device=self._network.device)
        self._cache.reorder_cache(index)
        if self._encoded is not None:
            self._encoded = self._encoded[index]
        if self._mask is not None:
            self._mask = self._mask[index]

    def _forward(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        return run(self._network, ids, self._cache, self._encoded, self._mask)


def layers_of(prefix: Cache | None) -> list[LayerKeysValues]:
    """Return keys and values by layer; none without a prefix."""
    if prefix is None:
        return []
    assert is_whole(prefix)
    return [(layer.keys, layer.values) for layer in prefix.layers]
