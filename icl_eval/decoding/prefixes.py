"""Prefixes: key/value caches of prompt beginnings that were computed once and are kept while there is room.

A prefix that is asked for is completed from the kept one with which it has most tokens in common: eight
demonstrations begin with the four of an earlier run, another sweep cell with the same instruction.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from transformers import Cache, DynamicCache, EncoderDecoderCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from icl_eval.decoding.sharing import Ids, common_length


@dataclass(frozen=True)
class Key:
    """What a cache was computed from."""

    encoder_ids: Ids
    """Empty for a decoder-only network."""
    decoder_ids: Ids


class PrefixStore:
    """Caches of one model's prefixes, the least recently used let go first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, Cache] = OrderedDict()

    def get(self, key: Key, extend: Callable[[Cache | None, Ids], Cache], max_bytes: int) -> Cache:
        """Return the cache of a prefix, computing only what no kept one holds; it must not be changed.

        Args:
            key: What to have in the cache.
            extend: Computes the cache of some more ids on top of a cache (None for an empty one); may change it.
            max_bytes: How much may be kept, this one included if it fits.
        """
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        start, length = self._best_start(key)
        cache = extend(start, key.decoder_ids[length:])
        self._kept[key] = cache
        self._let_go(max_bytes)
        return cache

    def _best_start(self, key: Key) -> tuple[Cache | None, int]:
        """Return a copy of the longest beginning that is kept, and its length."""
        best: Key | None = None
        best_length = 0
        for other, cache in self._kept.items():
            if other.encoder_ids != key.encoder_ids:
                continue
            length = common_length(other.decoder_ids, key.decoder_ids)
            usable = length == len(other.decoder_ids) or is_whole(cache)
            if usable and best_length < length:
                best, best_length = other, length
        if best is None:
            return None, 0
        self._kept.move_to_end(best)
        kept = self._kept[best]
        return (_beginning(kept, best_length) if is_whole(kept) else copy.deepcopy(kept)), best_length

    def _let_go(self, max_bytes: int) -> None:
        while self._kept and sum(map(count_bytes, self._kept.values())) > max_bytes:
            self._kept.popitem(last=False)


def longest_whole(cache: Cache) -> int | None:
    """Return up to how many tokens every layer of a cache keeps all keys and values; None for any number.

    Windows keep the last tokens, recurrent layers a state. A beginning can be cut off a cache that is whole, and its
    tokens attended to in place.
    """
    if not isinstance(cache, DynamicCache):
        return 0
    limits = [_limit(layer) for layer in cache.layers if type(layer) is not DynamicLayer]
    return min(limits, default=None)


def is_whole(cache: Cache) -> bool:
    """Return whether every layer holds all keys and values."""
    limit = longest_whole(cache)
    return limit is None or cache.get_seq_length() <= limit


def _limit(layer: CacheLayerMixin) -> int:
    """Return up to how many tokens a layer that does not keep everything does so."""
    return layer.sliding_window - 1 if type(layer) is DynamicSlidingWindowLayer else 0


def count_bytes(cache: Cache) -> int:
    """Return how much memory a cache holds: a sliding window may be a view of the whole that it was cut from."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in _tensors(cache)}
    return sum(storage.nbytes() for storage in storages.values())


def _tensors(cache: Cache) -> Iterator[torch.Tensor]:
    if isinstance(cache, EncoderDecoderCache):
        yield from _tensors(cache.self_attention_cache)
        yield from _tensors(cache.cross_attention_cache)
        return
    for layer in cache.layers:
        for value in vars(layer).values():  # keys and values, or the states of a recurrent layer
            members = value.values() if isinstance(value, dict) else (value,)
            yield from (member for member in members if isinstance(member, torch.Tensor))


def _beginning(cache: Cache, length: int) -> Cache:
    beginning = copy.copy(cache)
    beginning.layers = [copy.copy(layer) for layer in cache.layers]
    beginning.crop(length - cache.get_seq_length())
    for layer in beginning.layers:  # a view would keep what was cut off
        layer.keys, layer.values = layer.keys.clone(), layer.values.clone()
    return beginning
