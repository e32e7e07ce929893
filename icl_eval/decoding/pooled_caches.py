"""The cache of rows that come after any tokens of other rows.

All tokens lie in one pool, each in a column, and a row is known by the columns of the tokens that it comes after. Each
layer gathers the keys and values of a pass when it runs, so that only one layer's copies are in memory:

    columns   0 1 2 3 4 5 6        the first pass reads    0 1 2 3 4      the second pass reads    . . 0 1 2 5
    tokens    a b c d e f g        and writes                  2 3 4      and writes column 5      0 1 2 3 4 6
                                                                          of one row, 6 of another

`.` is masked. It stands before everything else, so that the distance between tokens is what it is without it.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import Cache, DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin
from transformers.modeling_outputs import MoEModelOutput

from icl_eval.decoding.networks import takes

Columns = np.ndarray
"""Columns of a pool, integers."""


@dataclass
class _Pass:
    """The columns of a pool, and those that the next pass writes and reads.

    All layers share it. They do not know their cache: it would then outlive its last use, until Python looks for
    objects that refer to each other.
    """

    num_columns: int
    prefix_length: int
    reported_length: int | None
    longest: int = 0
    """The largest number of columns that a row reads beside those of its new tokens."""
    begin: int = 0
    """The first column to write."""
    read: torch.Tensor = field(default_factory=lambda: torch.empty(0, 0, dtype=torch.long))
    """The columns that each row reads, [rows, columns]."""


class PooledLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers has no type hints here
    """One layer's part of a pool."""

    def __init__(self, pool: _Pass, prefix: CacheLayerMixin | None):
        super().__init__()
        self._pool = pool
        self._prefix = prefix

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate the columns, with the prefix in the first ones; of a window's prefix, only the end is there."""
        prefix = (None, None) if self._prefix is None else (self._prefix.keys, self._prefix.values)
        self.keys, self.values = map(self._allocate, (key_states, value_states), prefix)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new keys and values and return everything that each row of the pass attends to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        return self._exchange(self.keys, key_states), self._exchange(self.values, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of columns that the rows of the pass read, and 0."""
        return self._pool.read.shape[1], 0

    def get_max_length(self) -> int:
        """Return -1, which stands for no limit."""
        return -1

    def get_seq_length(self) -> int:
        """Return the length of the longest row, or the one that the pool was told to report."""
        return self._pool.longest if self._pool.reported_length is None else self._pool.reported_length

    def gather(self, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return keys and values of some columns of each row, [rows, heads, columns, size]; None if there are none.

        Args:
            columns: The columns, [rows, columns].
        """
        if not self.is_initialized and self._prefix is not None and self._prefix.is_initialized:
            self.lazy_initialization(self._prefix.keys, self._prefix.values)
        return (_take(self.keys, columns), _take(self.values, columns)) if self.is_initialized else None

    def _allocate(self, states: torch.Tensor, prefix: torch.Tensor | None) -> torch.Tensor:
        columns = states.new_zeros(self._pool.num_columns, states.shape[1], states.shape[3])
        if prefix is not None:
            held = prefix.transpose(1, 2).flatten(0, 1)  # [rows * tokens, heads, size]
            columns[self._pool.prefix_length - len(held) : self._pool.prefix_length] = held
        return columns

    def _exchange(self, columns: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        new = states.transpose(1, 2).flatten(0, 1)  # [rows * tokens, heads, size]
        columns[self._pool.begin : self._pool.begin + len(new)] = new
        return _take(columns, self._pool.read)


def _take(states: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return the states [columns, heads, size] of some columns of each row, [rows, heads, columns, size]."""
    taken = states.index_select(0, columns.flatten().to(states.device))
    return taken.view(*columns.shape, *states.shape[1:]).transpose(1, 2)


class PooledCache(Cache):  # type: ignore[misc]
    """The pool of all layers, and what the next pass writes and reads."""

    def __init__(
        self,
        network: PreTrainedModel,
        prefix: Cache | None,
        encoded: torch.Tensor | None,
        num_columns: int,
        reported_length: int | None = None,
        encoder_mask: torch.Tensor | None = None,
    ):
        """Create a pool, which is allocated on first use.

        Args:
            network: The network.
            prefix: The cache of what rows come after, whose tokens get the first columns, one row of the cache after
                the other; None if there is none. Windows may have cut it only if it is one row.
            encoded: The encoder's states, [rows, tokens, size], of which the prefix has keys and values; None if there
                is no encoder.
            num_columns: The number of columns, including those of the prefix.
            reported_length: The length that the cache reports; None for that of a pass's longest row.
            encoder_mask: The attention mask of the encoder's states, [rows, tokens]; None for no padding.
        """
        self._network = network
        self._encoding = find_encoding(prefix, encoded, encoder_mask)
        prefix_length = 0 if prefix is None else prefix.get_seq_length()
        self._pool = _Pass(num_columns, prefix_length * (1 if encoded is None else len(encoded)), reported_length)
        own = prefix.self_attention_cache if isinstance(prefix, EncoderDecoderCache) else prefix
        count = network.config.get_text_config(decoder=True).num_hidden_layers
        layers = [None] * count if own is None else own.layers
        super().__init__(layers=[PooledLayer(self._pool, layer) for layer in layers])

    @property
    def prefix_length(self) -> int:
        """The number of columns that hold what rows begin with."""
        return self._pool.prefix_length

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Return the number of columns before the new tokens."""
        return self._pool.longest

    def prepare(
        self,
        ids: Sequence[Sequence[int]],
        before: Sequence[Columns],
        begin: int,
        sources: Sequence[int] | None = None,
    ) -> dict[str, Any]:
        """Return the arguments with which the network runs a pass.

        Args:
            ids: The new tokens of each row; shorter rows are padded at the end.
            before: The columns of the tokens that each row comes after.
            begin: The first of the columns that the new tokens get, one row after the other.
            sources: The row of the encoder's states that each row attends to; None if there is one for all.
        """
        width, longest = max(map(len, ids)), max(map(len, before))
        read = np.zeros((len(ids), longest + width), dtype=np.int64)
        mask = np.ones_like(read)
        for number, columns in enumerate(before):
            gap = longest - len(columns)
            read[number, gap:longest] = columns
            mask[number, :gap] = 0
        read[:, longest:] = begin + np.arange(len(ids) * width).reshape(len(ids), width)
        positions = np.array([len(columns) for columns in before])[:, None] + np.arange(width)
        padded = np.array([[*row, *[0] * (width - len(row))] for row in ids])
        self._pool.longest, self._pool.begin = longest, begin
        self._pool.read, ids_there, mask_there, positions_there = (
            torch.from_numpy(each).to(self._network.device) for each in (read, padded, mask, positions)
        )
        encoding = self._encoding
        if encoding is not None:
            encoding = encoding.repeat(len(ids)) if sources is None else encoding.take(sources)
        return padded_inputs(self._network, self, ids_there, mask_there, positions_there, encoding)


@dataclass(frozen=True)
class Encoding:
    """What an encoder gives to rows of a decoder."""

    states: torch.Tensor
    """The encoder's states, [rows, tokens, size]."""
    attended: Cache
    """Their keys and values in each layer of the decoder."""
    mask: torch.Tensor | None
    """The attention mask of the states, [rows, tokens]; None for no padding."""

    def repeat(self, count: int) -> "Encoding":
        """Return that of one row for a number of rows, without copies."""
        return self._map(lambda each: each.expand(count, *each.shape[1:]))

    def take(self, rows: Sequence[int]) -> "Encoding":
        """Return that of some rows, in this order, some of them several times."""
        return self._map(lambda each: each[torch.tensor(rows, device=each.device)])

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Encoding":
        attended = DynamicCache()
        for layer in self.attended.layers:
            changed = copy.copy(layer)
            changed.keys, changed.values = change(layer.keys), change(layer.values)
            attended.layers.append(changed)
        return Encoding(change(self.states), attended, None if self.mask is None else change(self.mask))


def find_encoding(
    prefix: Cache | None, encoded: torch.Tensor | None, mask: torch.Tensor | None = None
) -> Encoding | None:
    """Return what a prefix holds of an encoder's states, [rows, tokens, size]; None if there is no encoder."""
    return None if encoded is None or prefix is None else Encoding(encoded, prefix.cross_attention_cache, mask)


def padded_inputs(
    network: PreTrainedModel,
    cache: Cache,
    ids: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor,
    encoding: Encoding | None,
) -> dict[str, Any]:
    """Return the arguments with which a network runs padded rows.

    Args:
        network: The network.
        cache: The cache of the decoder's rows.
        ids: The new tokens, [rows, tokens].
        mask: 1 for each column of the cache and of the new tokens that a row may attend to, else 0, [rows, columns].
        positions: The number of tokens before each new one, [rows, tokens].
        encoding: What each row attends to, if there is an encoder.
    """
    side = "" if encoding is None else "decoder_"
    inputs = {f"{side}input_ids": ids, f"{side}attention_mask": mask, "past_key_values": cache}
    if takes(network, f"{side}position_ids"):
        inputs[f"{side}position_ids"] = positions
    if encoding is not None:
        inputs["encoder_outputs"] = MoEModelOutput(last_hidden_state=encoding.states)
        inputs["past_key_values"] = EncoderDecoderCache(cache, encoding.attended)
        inputs["attention_mask"] = encoding.mask
    return inputs
