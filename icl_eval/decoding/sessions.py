"""Run rows through a network and keep their key/value cache.

A session handles tensors; it knows nothing about text, stop strings or streaming:

    session.join(rows)           new rows with their own tokens   ─▶ logits after each    [new rows, vocabulary]
    session.step(token_ids)      one more token per row           ─▶ logits after each    [rows, vocabulary]
    session.keep(rows)           the other rows leave

All rows of a session start with the same prefix, which is in the cache before the first row joins. Three kinds of
session handle rows of different lengths:

    SplitSession     for decoder-only networks with plain attention and rows that fit into the sliding window: rows are
                     padded, join and leave at any time, and attend to the prefix in place (see `split_attention`);
                     the slots are as many and as long as the rows need
    PaddedSession    for other networks whose rows can be padded: rows join at once (see `padded_sessions`)
    UniformSession   for every other network, and for rows of one length: all rows have the same number of tokens, so
                     that padding never disturbs a position, a window or a recurrent state
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from transformers import Cache, PreTrainedModel

from icl_eval.decoding.cuda_graphs import StepGraphs, StepRecorder
from icl_eval.decoding.growing import grow_in_place
from icl_eval.decoding.memory import round_up
from icl_eval.decoding.networks import (
    chunks,
    copy_to,
    encode,
    last_logits,
    most_prefill_tokens,
    new_cache,
    run,
)
from icl_eval.decoding.prefixes import is_whole
from icl_eval.decoding.split_caches import LayerKeysValues, PassMask, SlotCache
from icl_eval.prompts.token_ids import Ids

_ROOM = 32
"""Number of columns for new tokens that are allocated at a time."""


@dataclass(frozen=True)
class NewRow:
    """A row to be added to a session."""

    encoder_ids: Ids
    """Empty for a decoder-only network, and if the session already has the encoder's states."""
    own_ids: Ids
    """Decoder tokens after the prefix; at least one."""


class Session(Protocol):
    """Rows that are decoded together."""

    pads: bool
    """Whether rows of different lengths can join at once."""
    refills: bool
    """Whether more rows can join later, and any row can leave at little cost."""

    def join(self, rows: Sequence[NewRow]) -> torch.Tensor:
        """Append rows and return the logits after each of them, [new rows, vocabulary]."""

    def step(self, token_ids: Sequence[int]) -> torch.Tensor:
        """Append one token to each row and return the next logits, [rows, vocabulary]."""

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in the given order."""


class SplitSession:
    """Rows in slots, with a shared prefix that is not copied."""

    pads = True
    refills = True

    def __init__(
        self,
        network: PreTrainedModel,
        prefix: Cache | None,
        longest_own: int,
        max_new_tokens: int,
        reported_length: int = 1,
        recorder: StepRecorder | None = None,
    ):
        """Start without rows.

        Args:
            network: A decoder-only network whose attention is `split_attention`.
            prefix: The complete cache of the shared prefix; None if there is no prefix.
            longest_own: The maximum number of own tokens of a new row.
            max_new_tokens: The maximum number of tokens appended to a row.
            reported_length: The cache length reported to the network; the default only says that it is not empty.
            recorder: Records steps as CUDA graphs; None to run each step as it is.
        """
        self._network = network
        self._most_prefill = most_prefill_tokens(network.device)
        self._prefix_length = 0 if prefix is None else prefix.get_seq_length()
        self._room = min(_ROOM, max_new_tokens)
        self._num_rows = 0  # the number of rows and columns in the slots
        self._num_columns = longest_own + self._room
        self._cache = SlotCache(self._num_rows, self._num_columns, layers_of(network, prefix))
        self._cache.slots.reported_length = reported_length
        self._cache.slots.longest = longest_own + max_new_tokens
        self._longest_own = longest_own
        self._firsts: list[int] = []  # the column of each row's first own token
        self._end = longest_own  # the next free column
        self._graphs = None if recorder is None else StepGraphs(recorder, network)

    @torch.inference_mode()
    def join(self, rows: Sequence[NewRow]) -> torch.Tensor:
        """Append rows and return the logits after each of them, [new rows, vocabulary]."""
        distinct, sources = find_distinct(rows)
        begin = len(self._firsts)
        firsts = [self._end - len(row.own_ids) for row in distinct]
        self._firsts += firsts
        needed = begin + len(rows)
        if self._num_rows < needed:
            self._resize(needed, self._num_columns)
        logits = []
        for chunk in chunks([len(row.own_ids) for row in distinct], most=self._most_prefill):
            logits.append(self._prefill(distinct[chunk], begin + chunk.start))
        if len(distinct) == len(rows):
            return torch.cat(logits)
        for layer in self._cache.slot_layers:
            layer.copy_rows(begin, sources)
        self._firsts[begin:] = [firsts[source] for source in sources]
        return torch.cat(logits)[sources]

    @torch.inference_mode()
    def step(self, token_ids: Sequence[int]) -> torch.Tensor:
        """Append one token to each row and return the next logits, [rows, vocabulary]."""
        if self._end == self._num_columns:
            self._make_room()
        self._end += 1
        rows, column = slice(0, len(token_ids)), self._end - 1
        run = partial(self._forward, [list(token_ids)], rows, min(self._firsts), column)
        if self._graphs is None:
            return run()
        idle = round_up(len(token_ids)) - len(token_ids)  # rows that run one token and are not read
        numbers = [[*token_ids, *[0] * idle], [*self._firsts, *[column] * idle], [column] * (len(token_ids) + idle)]
        return self._graphs.step(copy_to(numbers, self._network.device), run, self._run_in_place)[rows]

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in the given order."""
        self._firsts = [self._firsts[row] for row in rows]
        for layer in self._cache.slot_layers:
            layer.move_rows(rows)

    def _prefill(self, rows: Sequence[NewRow], begin: int) -> torch.Tensor:
        width = max(len(row.own_ids) for row in rows)
        padded = [[0] * (width - len(row.own_ids)) + list(row.own_ids) for row in rows]
        columns = [list(column) for column in zip(*padded, strict=True)]
        first = self._end - width
        # In pieces, since the mask of a pass grows with the square of its columns.
        for start in range(0, width, self._most_prefill):
            piece = columns[start : start + self._most_prefill]
            logits = self._forward(piece, slice(begin, begin + len(rows)), first, first + start)
        return logits

    def _forward(self, columns: Sequence[Sequence[int]], rows: slice, first: int, begin: int) -> torch.Tensor:
        """Run columns of tokens, [columns][rows], that attend to the columns from `first` on."""
        device = self._network.device
        row_firsts = self._firsts[rows]
        numbers = copy_to([*columns, row_firsts], device)  # [columns + 1, rows], in one copy
        firsts = numbers[-1, :, None]  # [rows, 1]
        written = torch.arange(begin, begin + len(columns), device=device)  # [columns]
        slots = self._cache.slots
        slots.rows, slots.first, slots.begin, slots.end = rows, first, begin, begin + len(columns)
        slots.written = None
        unpadded = len(columns) == 1 and max(row_firsts) <= first
        slots.mask = None if unpadded else self._mask(firsts, written, first)
        return last_logits(
            self._network,
            input_ids=numbers[:-1].T,
            position_ids=self._prefix_length + (written - firsts).clamp(min=0),
            past_key_values=self._cache,
        )

    def _run_in_place(self, numbers: torch.Tensor) -> torch.Tensor:
        """Run a step that does the same to the same tensors each time, so that it can be recorded.

        Args:
            numbers: The token to append to each row, the row's first column, and the column to write, [3, rows].

        Returns:
            The logits after each row, [rows, vocabulary].
        """
        ids, firsts, written = numbers[..., None]  # each [rows, 1]
        slots = self._cache.slots
        slots.rows, slots.first, slots.end, slots.written = slice(0, len(ids)), 0, self._num_columns, written[0]
        slots.mask = self._mask(firsts, written[0], 0)
        return last_logits(
            self._network,
            input_ids=ids,
            position_ids=self._prefix_length + written - firsts,
            past_key_values=self._cache,
        )

    def _mask(self, firsts: torch.Tensor, written: torch.Tensor, first: int) -> PassMask:
        """Return the mask of the columns from `first` on."""
        read = torch.arange(first, self._cache.slots.end, device=written.device)
        causal = read <= written[:, None]  # [written, read]
        own = read >= firsts  # [rows, read]
        # A column of padding attends to itself, since a softmax over nothing is NaN.
        seen = (causal & own[:, None]) | (read == written[:, None])  # [rows, written, read]
        return PassMask(seen, self._network.dtype)

    def _make_room(self) -> None:
        """Move all columns to the left, over columns that no row reads anymore; if they are few, add columns instead.

        A row's tokens span at most the longest own tokens and its new ones, so that the slots never become longer than
        `max_columns`.
        """
        first = min(self._firsts)
        end = max(self._longest_own, self._end - first)
        distance = self._end - end
        if distance < self._room:
            self._resize(len(self._firsts), self._num_columns + self._room)
            return
        for layer in self._cache.slot_layers:
            layer.move_columns(first, self._end, distance)
        self._firsts = [column - distance for column in self._firsts]
        self._end = end

    def _resize(self, num_rows: int, num_columns: int) -> None:
        if self._graphs is not None:
            num_rows = round_up(num_rows)
            self._graphs.forget()
        self._num_rows, self._num_columns = num_rows, num_columns
        for layer in self._cache.slot_layers:
            layer.resize(num_rows, num_columns)


def max_columns(longest_own: int, max_new_tokens: int) -> int:
    """Return an upper bound of the columns that the slots of a session get."""
    return longest_own + max_new_tokens + 2 * min(_ROOM, max_new_tokens)


class UniformSession:
    """Rows with the same number of tokens; they join at once and leave one by one."""

    pads = False
    refills = False

    def __init__(self, network: PreTrainedModel, prefix: Cache | None, encoded: torch.Tensor | None):
        """Start from a prefix.

        Args:
            network: Any network.
            prefix: The cache of the shared prefix, which is copied; None if there is no prefix.
            encoded: The encoder's states, [1, tokens, size], if all rows share them.
        """
        self._network = network
        self._prefix = prefix
        self._encoded = encoded
        self._cache = new_cache(network.config)
        self._mask: torch.Tensor | None = None  # attention mask of the encoder's states, [rows, tokens]

    @torch.inference_mode()
    def join(self, rows: Sequence[NewRow]) -> torch.Tensor:
        """Add all rows, which must have the same length, and return the next logits, [rows, vocabulary]."""
        distinct, sources = find_distinct(rows)
        if self._prefix is not None:
            self._cache = copy.deepcopy(self._prefix)
            self._cache.reorder_cache(torch.zeros(len(distinct), dtype=torch.long, device=self._network.device))
        grow_in_place(self._cache)
        if self._encoded is not None:
            self._encoded = self._encoded.expand(len(distinct), -1, -1)
        elif rows[0].encoder_ids:
            self._encoded, self._mask = encode(self._network, [row.encoder_ids for row in distinct])
        logits = self._forward([row.own_ids for row in distinct])
        if len(distinct) == len(rows):
            return logits
        self.keep(sources)
        return logits[sources]

    @torch.inference_mode()
    def step(self, token_ids: Sequence[int]) -> torch.Tensor:
        """Append one token to each row and return the next logits, [rows, vocabulary]."""
        return self._forward([[token_id] for token_id in token_ids])

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in the given order."""
        index = copy_to(rows, self._network.device)
        self._cache.reorder_cache(index)
        if self._encoded is not None:
            self._encoded = self._encoded[index]
        if self._mask is not None:
            self._mask = self._mask[index]

    def _forward(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        return run(self._network, ids, self._cache, self._encoded, self._mask)


def find_distinct(rows: Sequence[NewRow]) -> tuple[list[NewRow], list[int]]:
    """Return the distinct rows, and for each row the index of its equal.

    The samples of one prompt are equal rows, which share a forward pass and differ only in what follows.
    """
    numbers: dict[NewRow, int] = {}
    sources = [numbers.setdefault(row, len(numbers)) for row in rows]
    return list(numbers), sources


def layers_of(network: PreTrainedModel, prefix: Cache | None) -> list[LayerKeysValues | None]:
    """Return the keys and values of each layer, or None for each layer if there is no prefix."""
    if prefix is None:
        return [None] * network.config.get_text_config(decoder=True).num_hidden_layers
    assert is_whole(prefix)
    return [(layer.keys, layer.values) for layer in prefix.layers]
