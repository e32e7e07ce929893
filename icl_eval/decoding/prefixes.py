"""Keep the key/value caches of prompt prefixes, as long as there is room.

A new prefix is extended from the kept one with which it has the most tokens in common: eight demonstrations start with
the four of an earlier run, and another sweep cell starts with the same instruction.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import Cache, DynamicCache, EncoderDecoderCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from icl_eval.decoding.memory import room_for_prefixes
from icl_eval.decoding.sharing import common_length
from icl_eval.prompts.token_ids import Ids

_MOST_KEPT = 64
"""Prefixes that a store keeps, however small they are: each new one is compared with all of them."""
_MOST_BEGINNINGS = 4
"""Caches that a stack of prefixes keeps; each is a copy of its whole prefix."""


@dataclass(frozen=True, order=True)
class Key:
    """The token ids that a cache is computed from; keys that begin alike are neighbours in their order."""

    encoder_ids: Ids
    """Empty for a decoder-only network."""
    decoder_ids: Ids


class PrefixStore:
    """The caches of one model's prefixes; the least recently used one is evicted first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, tuple[Cache, int]] = OrderedDict()  # with the number of bytes of each

    @property
    def num_bytes(self) -> int:
        """The size of all kept caches."""
        return sum(size for _, size in self._kept.values())

    def get(self, key: Key, extend: Callable[[Cache | None, Ids], Cache]) -> Cache:
        """Return the cache of a prefix, computing only tokens that no kept cache holds; callers must not change it.

        Args:
            key: The prefix.
            extend: Appends ids to a cache (None for an empty one) and returns the result; may change its argument.
        """
        if key not in self._kept:
            start, length = self._best_start(key)
            cache = extend(start, key.decoder_ids[length:])
            self._kept[key] = cache, count_bytes(cache)
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def evict(self, in_use: Cache, max_bytes: int | None, count_free: Callable[[], int]) -> None:
        """Drop caches until the others fit, the least recently used one first.

        Args:
            in_use: The cache that is in use, and therefore in memory anyway.
            max_bytes: Maximum size of all kept caches, including the one in use; None for a share of the memory, in
                which case the one in use is kept whatever its size.
            count_free: Returns the number of free bytes, or 0 if it is unknown.
        """
        kept = self.num_bytes
        limit = room_for_prefixes(count_free(), kept) if max_bytes is None else max_bytes
        for key, (cache, size) in list(self._kept.items()):
            is_too_much = kept > limit or len(self._kept) > _MOST_KEPT
            if is_too_much and not (cache is in_use and max_bytes is None):
                del self._kept[key]
                kept -= size

    def drop_others(self, in_use: Cache | None) -> bool:
        """Drop all caches but the one in use, because memory ran out; return whether there were any."""
        others = [key for key, (cache, _) in self._kept.items() if cache is not in_use]
        for key in others:
            del self._kept[key]
        return bool(others)

    def _best_start(self, key: Key) -> tuple[Cache | None, int]:
        """Return a copy of the longest kept cache that the key can start from, and its length."""
        best: Key | None = None
        best_length = 0
        for other, (cache, _) in self._kept.items():
            if other.encoder_ids != key.encoder_ids:
                continue
            length = common_length(other.decoder_ids, key.decoder_ids)
            usable = length == len(other.decoder_ids) or is_whole(cache)
            if usable and best_length < length:
                best, best_length = other, length
        if best is None:
            return None, 0
        self._kept.move_to_end(best)
        kept, _ = self._kept[best]
        return (_crop(kept, best_length) if is_whole(kept) else copy.deepcopy(kept)), best_length


class PrefixStack:
    """The caches of one prefix and of its beginnings, for prefixes that come in the order of their tokens."""

    def __init__(self) -> None:
        self._kept: list[tuple[Key, Cache]] = []

    def get(self, key: Key, pieces: Sequence[int], extend: Callable[[Cache | None, Ids], Cache]) -> Cache:
        """Return the cache of a prefix, computing only pieces that the last prefix did not have.

        Args:
            key: The prefix.
            pieces: The lengths at which the pieces end, the last one that of the prefix. The result does not depend on
                which of them are computed.
            extend: Appends ids to a cache (None for an empty one) and returns the result; may change its argument.
        """
        beginnings = {Key(key.encoder_ids, key.decoder_ids[:length]) for length in pieces}
        while self._kept and self._kept[-1][0] not in beginnings:
            self._kept.pop()
        for length in pieces:
            begun, cache = self._kept[-1] if self._kept else (Key(key.encoder_ids, ()), None)
            done = len(begun.decoder_ids)
            if done < length:
                cache = extend(copy.deepcopy(cache), key.decoder_ids[done:length])
                self._kept.append((Key(key.encoder_ids, key.decoder_ids[:length]), cache))
                del self._kept[:-_MOST_BEGINNINGS]
        return self._kept[-1][1]


def longest_whole(cache: Cache) -> int | None:
    """Return the largest number of tokens for which every layer keeps all keys and values; None if there is no limit.

    Sliding windows keep only the last tokens, and recurrent layers keep a state. A whole cache can be cropped to any
    beginning, and rows can attend to its tokens in place.
    """
    if not isinstance(cache, DynamicCache):
        return 0
    limits = [_read_limit(layer) for layer in cache.layers if type(layer) is not DynamicLayer]
    return min(limits, default=None)


def is_whole(cache: Cache) -> bool:
    """Return whether every layer holds all keys and values."""
    limit = longest_whole(cache)
    return limit is None or cache.get_seq_length() <= limit


def _read_limit(layer: CacheLayerMixin) -> int:
    """Return the number of tokens up to which a window or recurrent layer keeps all keys and values."""
    return layer.sliding_window - 1 if type(layer) is DynamicSlidingWindowLayer else 0


def count_bytes(cache: Cache) -> int:
    """Return the memory that a cache holds; each storage counts whole, even if a sliding window is a view of a part."""
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


def _crop(cache: Cache, length: int) -> Cache:
    beginning = copy.copy(cache)
    beginning.layers = [copy.copy(layer) for layer in cache.layers]
    beginning.crop(length - cache.get_seq_length())
    for layer in beginning.layers:  # a view would keep the cropped part in memory
        layer.keys, layer.values = layer.keys.clone(), layer.values.clone()
    return beginning
