"""Attend to a prefix that all rows share in place, without copying it for every row.

Attention over the shared prefix and attention over a row's own tokens are computed separately, each by the best kernel
that the device has (see `kernels`), and then combined exactly by their softmax denominators. Scores are
stored only where a device has no kernel.

For the prefix, the queries of all rows form one long list of queries to a single set of keys. A row's own keys are
stored in slots:

    columns     0 1 2 3 4 5 6 7          rows are right-aligned, so that a step writes one column
    row 0       . . a b c d              `.` is masked; its position is prefix + column - first column
    row 1       a b c d e f

Where a pass runs whole prompts at once, and keeps nothing of them, their tokens stand one after the other without any
padding (`PackedCache`); only attention sees them as rows, which may have tokens in common (`Packing`).

What else a network may ask of its attention, and what is done about it:

    scale of the scores           given to the kernel
    fewer key heads than queries  query heads with the same key head are further queries to it; no key is repeated
    sliding window                nothing, as long as the window holds the whole row; longer rows are not split
    soft cap of the scores        not split: no kernel here has one
    attention sinks               not split
    ALiBi, relative positions     not split: what is added to scores depends on the distance, so on the row

Rows that are not split hold copies of the prefix, and their network's own attention reads those (`UniformSession`).

The networks of transformers run unchanged: their cache returns keys in two parts (`SplitKeys`), and an attention
function registered with transformers handles them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface, AttentionMaskInterface, Cache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from icl_eval.decoding.kernels import FORMULA, AttentionCall, additive_mask, attend, choose_kernel, merge
from icl_eval.decoding.memory import head_sizes
from icl_eval.models.states import configs_of
from icl_eval.models.switching import AS_FOUND, Switch, switched

NAME = "icl_eval_split"
"""Name of the attention function in the registry of transformers."""

NO_LENGTH = 1 << 20
"""A length that no row has: a network that relies on the length reported by the cache gets wrong logits with it."""

_NOT_SPLIT = {
    "softcap": "soft caps of scores",
    "s_aux": "attention sinks",
    "position_bias": "biases of relative positions",
}
"""Arguments that change scores or their softmax, by the names that networks give them in transformers."""

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
    packing: Packing | None = None

    @property
    def num_tokens(self) -> int:
        """The length of the longest row."""
        own = self.own_keys.shape[2] if self.packing is None else self.packing.longest
        return own + (0 if self.prefix is None else self.prefix[0].shape[2])


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
    mask: PassMask | None = None
    reported_length: int = 1
    """The length that the cache reports: it only says that the cache is not empty, since rows have their own
    positions."""


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers has no type hints here
    """One layer's slots."""

    def __init__(self, slots: Slots, num_rows: int, num_columns: int, prefix: LayerKeysValues | None):
        super().__init__()
        self._slots = slots
        self._size = (num_rows, num_columns)
        self._prefix = prefix

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
        self.keys[slots.rows, :, slots.begin : slots.end] = key_states
        self.values[slots.rows, :, slots.begin : slots.end] = value_states
        own_keys = self.keys[slots.rows, :, slots.first : slots.end]
        own_values = self.values[slots.rows, :, slots.first : slots.end]
        return SplitKeys(self._prefix, own_keys, own_values, slots.mask), None

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

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the size of the mask that transformers creates; it is not used."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """Return the reported length; a network that relies on it fails the trial of its capabilities."""
        return self._slots.reported_length

    def get_max_length(self) -> int:
        """Return -1, which stands for no limit."""
        return -1


class SlotCache(Cache):  # type: ignore[misc]
    """The slots of all layers, and the prefix that all rows share."""

    def __init__(self, num_rows: int, num_columns: int, num_layers: int, prefix: Sequence[LayerKeysValues]):
        """Create slots, which are allocated on first use.

        Args:
            num_rows: The number of rows for which there is room; see `SlotLayer.resize`.
            num_columns: The number of own tokens for which a row has room.
            num_layers: The number of attention layers in the network.
            prefix: Keys and values of the shared prefix, by layer; empty if there is no prefix.
        """
        self.slots = Slots()
        parts: list[LayerKeysValues | None] = list(prefix) or [None] * num_layers
        self.slot_layers = [SlotLayer(self.slots, num_rows, num_columns, part) for part in parts]
        super().__init__(layers=self.slot_layers)


class PackedLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's part in a pass over packed tokens, of which nothing is kept."""

    def __init__(self, packing: Packing, prefix: LayerKeysValues | None):
        super().__init__()
        self._packing = packing
        self._prefix = prefix

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate nothing."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        """Return everything that the tokens attend to."""
        return SplitKeys(self._prefix, key_states, value_states, None, self._packing.to(key_states.device)), None

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the size of the mask that transformers creates; it is not used."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """Return a length that only says that the cache is not empty, as that of `Slots`."""
        return 1

    def get_max_length(self) -> int:
        """Return -1, which stands for no limit."""
        return -1


class PackedCache(Cache):  # type: ignore[misc]
    """The cache of one pass over packed tokens, after a prefix that all of them share."""

    def __init__(self, packing: Packing, num_layers: int, prefix: Sequence[LayerKeysValues]):
        """Prepare one pass.

        Args:
            packing: How the tokens form rows.
            num_layers: The number of attention layers in the network.
            prefix: Keys and values of the shared prefix, by layer; empty if there is no prefix.
        """
        parts: list[LayerKeysValues | None] = list(prefix) or [None] * num_layers
        super().__init__(layers=[PackedLayer(packing, part) for part in parts])


def stores_scores(network: PreTrainedModel, splits: bool) -> bool:
    """Return whether attention stores the scores of all queries and keys of a layer.

    Args:
        network: The network.
        splits: Whether rows attend to the prefix in place, with the kernels chosen here.
    """
    if not splits:
        return bool(network.config._attn_implementation == "eager")
    calls = (AttentionCall(network.dtype, *head_sizes(network.config), masked) for masked in (False, True))
    return any(choose_kernel(network.device, call) is FORMULA for call in calls)


def split_attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor | SplitKeys,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as `sdpa` of transformers does, or in two parts if the cache returned `SplitKeys`.

    Args:
        module: The attention layer.
        query: [rows, heads, queries, head size]
        key: The keys that the cache returned.
        value: The values that the cache returned; not used with `SplitKeys`.
        attention_mask: The mask of transformers; not used with `SplitKeys`, which have their own.
        scaling: Factor of the scores.
        dropout: Dropout rate of the attention weights; 0 outside training.
        options: Further arguments that the network passes to its attention.

    Returns:
        The attention output, [rows, queries, heads, head size], and None instead of the weights.

    Raises:
        NotImplementedError: If the network uses an option that split attention does not support.
    """
    if not isinstance(key, SplitKeys):
        out: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **options
        )
        return out
    unsupported = [what for name, what in _NOT_SPLIT.items() if options.get(name) is not None]
    if unsupported:
        raise NotImplementedError(f"split attention does not support {', '.join(unsupported)}")
    window = options.get("sliding_window")
    if window is not None and key.num_tokens > window:
        raise NotImplementedError(f"split attention does not support a window of {window} for {key.num_tokens} tokens")
    return _attend_in_two_parts(query, key, scaling).transpose(1, 2).contiguous(), None


def _attend_in_two_parts(query: torch.Tensor, keys: SplitKeys, scale: float | None) -> torch.Tensor:
    rows, heads, queries, size = query.shape
    kv_heads = keys.own_keys.shape[1]
    group = heads // kv_heads
    # Query heads that share a key head become further queries to it, so that no key is repeated.
    grouped = query.reshape(rows, kv_heads, group * queries, size)
    if keys.packing is None:
        mask = None if keys.mask is None else keys.mask.lay_out(group, query.device)
        own, own_denominator = attend(grouped, keys.own_keys, keys.own_values, mask, scale)
    else:
        packed = grouped.reshape(kv_heads, group, queries, size)
        own, own_denominator = _attend_packed(packed, keys, keys.packing, scale)
    if keys.prefix is not None:
        # The queries of all rows become one list of queries: [1, kv heads, rows * group * queries, size].
        flat = grouped.transpose(0, 1).reshape(1, kv_heads, rows * group * queries, size)
        shared, shared_denominator = attend(flat, *keys.prefix, None, scale)
        shared = shared.reshape(kv_heads, rows, group * queries, -1).transpose(0, 1)
        shared_denominator = shared_denominator.reshape(kv_heads, rows, group * queries).transpose(0, 1)
        own = merge(shared, shared_denominator, own, own_denominator)
    return own.reshape(rows, heads, queries, -1)


def _attend_packed(
    query: torch.Tensor, keys: SplitKeys, packing: Packing, scale: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend to own tokens, which are packed, as `attend` does for one row.

    Args:
        query: [key/value heads, group, columns, head size]
        keys: The keys and values of the same columns.
        packing: How the columns form rows.
        scale: See `attend`.

    Returns:
        [1, key/value heads, group * columns, value size] and [1, key/value heads, group * columns]
    """
    kv_heads, group, columns, _ = query.shape
    by_column = query.permute(2, 0, 1, 3).flatten(1)
    key, value = (states[0].transpose(0, 1).flatten(1) for states in (keys.own_keys, keys.own_values))
    outs: list[torch.Tensor] = []
    denominators: list[torch.Tensor] = []
    for part in packing.parts:
        rows, queries = part.queries.shape
        taken = _take(by_column, part.queries).reshape(rows, queries, kv_heads, group, -1)
        grouped = taken.permute(0, 2, 3, 1, 4).reshape(rows, kv_heads, group * queries, -1)
        own_keys, own_values = (
            _take(states, part.keys).reshape(*part.keys.shape, kv_heads, -1).transpose(1, 2) for states in (key, value)
        )
        out, lse = attend(grouped, own_keys, own_values, part.mask.lay_out(group, query.device), scale)
        for states, found in ((out, outs), (lse, denominators)):
            by_head = states.reshape(rows, kv_heads, group, queries, -1)
            found.append(by_head.permute(0, 3, 1, 2, 4).reshape(rows * queries, -1))
    own, own_lse = (
        (found[0] if len(found) == 1 else torch.cat(found))
        .index_select(0, packing.places)
        .reshape(columns, kv_heads, group, -1)
        .permute(1, 2, 0, 3)
        for found in (outs, denominators)
    )
    return own.reshape(1, kv_heads, group * columns, -1), own_lse.reshape(1, kv_heads, group * columns)


def _take(states: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return the states of some columns, [rows * columns, size], from [columns, size]."""
    return states.index_select(0, columns.flatten())


def attention_switches(network: PreTrainedModel) -> list[Switch]:
    """Return the switches that turn split attention on, or an empty list if the network does not use `sdpa`."""
    if network.config._attn_implementation != "sdpa":
        return []
    attribute = "_attn_implementation_internal"
    configs = configs_of(network)
    with switched(network, [Switch(vars(config), attribute, AS_FOUND) for config in configs]):
        try:
            network.set_attn_implementation(NAME)
        except (NotImplementedError, ValueError):
            return []
        changed = [config for config in configs if config._attn_implementation == NAME]
    return [Switch(vars(config), attribute, NAME) for config in changed]


AttentionInterface.register(NAME, split_attention_forward)
AttentionMaskInterface.register(NAME, sdpa_mask)
