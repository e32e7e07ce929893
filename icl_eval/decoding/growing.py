"""Append keys and values to a cache in place.

The default cache layer of transformers builds a new tensor of all keys at every step. With many rows that each hold a
long prefix, copying costs more than attention. The layer here preallocates room, so that a step writes only its own
keys and values.
"""

import torch
from transformers import Cache, DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer

_ROOM = 64
"""Number of tokens for which room is added whenever a layer has to be copied."""


class GrowingLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no type hints here
    """A default cache layer, `[rows, heads, tokens, size]`, whose tensors are views of a larger buffer."""

    def __init__(self, layer: DynamicLayer):
        """Take over the keys and values of a default layer."""
        super().__init__()
        if layer.is_initialized:
            self.lazy_initialization(layer.keys, layer.values)
            self.keys, self.values = layer.keys, layer.values
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        if self._buffers is None or self._buffers[0].shape[-2] < end:
            self._buffers = _allocate(self.keys, key_states, begin), _allocate(self.values, value_states, begin)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, begin:end] = states
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep only the rows at `beam_idx`, in new tensors without spare room."""
        super().reorder_cache(beam_idx)
        self._buffers = None


def _allocate(held: torch.Tensor, new: torch.Tensor, begin: int) -> torch.Tensor:
    """Return a buffer that starts with the held states and has room for the new ones and `_ROOM` more tokens."""
    rows, heads, count, size = new.shape
    buffer = new.new_empty(rows, heads, begin + count + _ROOM, size)
    if begin:
        buffer[:, :, :begin] = held
    return buffer


def grow_in_place(cache: Cache) -> None:
    """Make the default layers of a cache grow in place; sliding windows and cross-attention keys stay as they are."""
    own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
    if isinstance(own, DynamicCache):
        own.layers = [GrowingLayer(layer) if type(layer) is DynamicLayer else layer for layer in own.layers]
