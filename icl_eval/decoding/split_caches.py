"""The caches whose layers hold a row's own tokens and know a prefix that all rows share; see `split_attention`.

The slots of a session grow and move with its rows (`SlotCache`); a pass over packed tokens keeps nothing
(`PackedCache`). Instead of keys, both return everything that a layer's attention needs (`SplitKeys`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from icl_eval.decoding.kernels import additive_mask

NO_LENGTH = 1 << 20
"""A length that no row has: a network that relies on the length reported by the cache gets wrong logits with it."""

LayerKeysValues = tuple[torch.Tensor, torch.Tensor]
"""One layer's keys and values, each [1, key/value heads, tokens, head size]."""


class PassMask:
    """Which own keys each query of a forward pass sees, in the form that each layer's kernel reads."""

    def __init__(self, seen: torch.Tensor, dtype: torch.dtype):
        """Start from whether each query sees each key, [rows, queries, columns], and the dtype of the keys."""
        self._seen = seen
        self._dtype = dtype
        self._laid_out: dict[tuple[int, torch.device], torch.Tensor] = {}

    def lay_out(self, group: int, device: torch.device) -> torch.Tensor:
        """Return the mask for queries that are repeated for each head of a group, [rows, 1, group · queries, columns].

        It is made once for all layers on a device; layers may be on several.
        """
        if (group, device) not in self._laid_out:
            self._laid_out[group, device] = additive_mask(self._seen.to(device), self._dtype, group)
        return self._laid_out[group, device]


@dataclass(frozen=True)
class PackedRows:
    """Rows of similar size among packed tokens; a token is known by its column."""

    queries: torch.Tensor
    """The tokens that attend, [rows, queries]; beyond a row's last one, any token."""
    keys: torch.Tensor
    """The tokens that they attend to, [rows, keys]; beyond a row's last one, any token."""
    mask: PassMask
    """Which keys each query sees; no query is without a key."""

    def to(self, device: torch.device) -> "PackedRows":
        """Return the rows on a device."""
        return PackedRows(self.queries.to(device), self.keys.to(device), self.mask)


@dataclass(frozen=True)
class Packing:
    """How packed tokens form rows. Each token attends in one row, and may be attended to in several."""

    parts: tuple[PackedRows, ...]
    places: torch.Tensor
    """The place of each token among the queries of all parts, [tokens]."""
    longest: int
    """The largest number of keys of a row."""

    def to(self, device: torch.device) -> "Packing":
        """Return the packing on a device."""
        if self.places.device == device:
            return self
        return Packing(tuple(part.to(device) for part in self.parts), self.places.to(device), self.longest)


class SplitKeys(NamedTuple):
    """What the cache returns instead of keys: everything that a layer's attention needs besides its queries."""

    prefix: LayerKeysValues | None
    own_keys: torch.Tensor  # [rows, key/value heads, columns, head size]; one row, if tokens are packed
    own_values: torch.Tensor
    mask: PassMask | None  # None if every query sees every own key
    longest_own: int
    """The largest number of own tokens that a row can have."""
    packing: Packing | None = None

    @property
    def num_tokens(self) -> int:
        """The largest number of tokens that a row can have."""
        return self.longest_own + (0 if self.prefix is None else self.prefix[0].shape[2])


@dataclass
class Slots:
    """The part of the slots that the next forward pass writes and reads; all layers share it."""

    rows: slice = field(default_factory=lambda: slice(0, 0))
    first: int = 0
    """The first column to read."""
    begin: int = 0
    """The first column to write."""
    end: int = 0
    """The column after the last one to read and write."""
    written: torch.Tensor | None = None
    """The column to write, [1] on the device, instead of those from `begin` to `end`."""
    mask: PassMask | None = None
    longest: int = 0
    """The largest number of own tokens that a row can have."""
    reported_length: int = 1
    """The length that the cache reports: it only says that the cache is not empty, since rows have their own
    positions."""


class _SplitLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers has no type hints here
    """What the layers of both caches have in common."""

    def __init__(self, prefix: LayerKeysValues | None):
        super().__init__()
        self._prefix = prefix

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the size of the mask that transformers creates; it is not used."""
        return query_length, 0

    def get_max_length(self) -> int:
        """Return -1, which stands for no limit."""
        return -1


class SlotLayer(_SplitLayer):
    """One layer's slots."""

    def __init__(self, slots: Slots, num_rows: int, num_columns: int, prefix: LayerKeysValues | None):
        super().__init__(prefix)
        self._slots = slots
        self._size = (num_rows, num_columns)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate the slots."""
        self.keys, self.values = self._allocate(key_states), self._allocate(value_states)
        self.is_initialized = True

    def resize(self, num_rows: int, num_columns: int) -> None:
        """Change the number of rows and columns; the first of them keep their contents."""
        self._size = (num_rows, num_columns)
        if self.is_initialized:
            self.keys, self.values = self._resized(self.keys), self._resized(self.values)

    def _allocate(self, states: torch.Tensor) -> torch.Tensor:
        """Return empty slots: zeros, since masked columns must hold finite numbers."""
        num_rows, num_columns = self._size
        return states.new_zeros(num_rows, states.shape[1], num_columns, states.shape[3])

    def _resized(self, states: torch.Tensor) -> torch.Tensor:
        slots = self._allocate(states)
        kept = states[: len(slots), :, : slots.shape[2]]
        slots[: len(kept), :, : kept.shape[2]] = kept
        return slots

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        """Write new keys and values and return everything that the new tokens attend to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        slots = self._slots
        for kept, new in ((self.keys[slots.rows], key_states), (self.values[slots.rows], value_states)):
            if slots.written is None:
                kept[:, :, slots.begin : slots.end] = new
            else:
                kept.index_copy_(2, slots.written, new)
        own_keys = self.keys[slots.rows, :, slots.first : slots.end]
        own_values = self.values[slots.rows, :, slots.first : slots.end]
        return SplitKeys(self._prefix, own_keys, own_values, slots.mask, slots.longest), None

    def move_rows(self, sources: Sequence[int]) -> None:
        """Move row `sources[i]` to slot i."""
        for target, source in enumerate(sources):
            if target != source:
                self.keys[target] = self.keys[source]
                self.values[target] = self.values[source]

    def copy_rows(self, begin: int, sources: Sequence[int]) -> None:
        """Copy row `begin + sources[i]` to slot `begin + i`, where no source is larger than i."""
        for target in reversed(range(len(sources))):  # from the end, so that no source is overwritten before it is read
            if target != sources[target]:
                self.keys[begin + target] = self.keys[begin + sources[target]]
                self.values[begin + target] = self.values[begin + sources[target]]

    def move_columns(self, begin: int, end: int, distance: int) -> None:
        """Shift columns to the left by `distance`."""
        for states in (self.keys, self.values):
            states[:, :, begin - distance : end - distance] = states[:, :, begin:end].clone()

    def get_seq_length(self) -> int:
        """Return the reported length; a network that relies on it fails the trial of its capabilities."""
        return self._slots.reported_length


class SlotCache(Cache):  # type: ignore[misc]
    """The slots of all layers, and the prefix that all rows share."""

    def __init__(self, num_rows: int, num_columns: int, prefix: Sequence[LayerKeysValues | None]):
        """Create slots, which are allocated on first use.

        Args:
            num_rows: The number of rows for which there is room; see `SlotLayer.resize`.
            num_columns: The number of own tokens for which a row has room.
            prefix: Keys and values of the shared prefix for each layer of the network; None if there is no prefix.
        """
        self.slots = Slots()
        self.slot_layers = [SlotLayer(self.slots, num_rows, num_columns, part) for part in prefix]
        super().__init__(layers=self.slot_layers)


class PackedLayer(_SplitLayer):
    """One layer's part in a pass over packed tokens, of which nothing is kept."""

    def __init__(self, packing: Packing, prefix: LayerKeysValues | None):
        super().__init__(prefix)
        self._packing = packing

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate nothing."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        """Return everything that the tokens attend to."""
        packing = self._packing.to(key_states.device)
        return SplitKeys(self._prefix, key_states, value_states, None, packing.longest, packing), None

    def get_seq_length(self) -> int:
        """Return a length that only says that the cache is not empty, as that of `Slots`."""
        return 1


class PackedCache(Cache):  # type: ignore[misc]
    """The cache of one pass over packed tokens, after a prefix that all of them share."""

    def __init__(self, packing: Packing, prefix: Sequence[LayerKeysValues | None]):
        """Prepare one pass.

        Args:
            packing: How the tokens form rows.
            prefix: Keys and values of the shared prefix for each layer of the network; None if there is no prefix.
        """
        super().__init__(layers=[PackedLayer(packing, part) for part in prefix])
