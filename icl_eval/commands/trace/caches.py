"""Describe the tensors in a key/value cache, for every kind of layer."""

from collections.abc import Iterator
from itertools import groupby

import torch
from transformers import Cache, EncoderDecoderCache

from icl_eval.commands.trace.traces import CacheBlock, CacheState, Shape


def describe_cache(cache: Cache) -> CacheState:
    """Return the shapes of the tensors in a cache; neighbouring layers with equal shapes form one block."""
    if isinstance(cache, EncoderDecoderCache):
        parts = {"self": cache.self_attention_cache, "cross": cache.cross_attention_cache}
    else:
        parts = {"self": cache}
    blocks = tuple(block for attention, part in parts.items() for block in _blocks(attention, part))
    size = sum((block.last_layer - block.first_layer + 1) * block.bytes_per_layer for block in blocks)
    return CacheState(blocks, size)


def _blocks(attention: str, cache: Cache) -> Iterator[CacheBlock]:
    layers = [_tensors(layer) for layer in cache.layers]
    described = [(_shapes(tensors), sum(tensor.nbytes for tensor in tensors.values())) for tensors in layers]
    for (shapes, size), group in groupby(enumerate(described), key=lambda numbered: numbered[1]):
        numbers = [number for number, _ in group]
        if shapes:
            yield CacheBlock(attention, numbers[0], numbers[-1], shapes, size)


def _tensors(layer: object) -> dict[str, torch.Tensor]:
    """Return a layer's tensors by name: keys and values, or the states of a recurrent layer."""
    tensors: dict[str, torch.Tensor] = {}
    for name, value in vars(layer).items():
        named = (
            [(f"{name}.{key}", member) for key, member in value.items()] if isinstance(value, dict) else [(name, value)]
        )
        # A sliding-window layer also stores the window size, as a tensor without dimensions.
        tensors |= {key: member for key, member in named if isinstance(member, torch.Tensor) and member.dim()}
    return tensors


def _shapes(tensors: dict[str, torch.Tensor]) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
