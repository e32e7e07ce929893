"""Token ids that wait to be decoded, in four bytes each instead of the 8 to 40 of numbers in a tuple.

The prompts of a task wait together, and often begin with the same demonstrations:

    [1 2 3 4 5 6] [1 2 3 4 7 8] [1 2 3 4 9]      ──▶  beginning 1 2 3 4, kept once; own 5 6, 7 8 and 9

Ids are big-endian numbers of four bytes, so that their bytes are in the same order as they are.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from struct import pack, unpack

import numpy as np

Ids = tuple[int, ...]

_SIZE = 4


@dataclass(frozen=True, slots=True, eq=False)
class TokenIds:
    """The token ids of one side of a prompt. They are equal if all of their ids are, wherever the beginning ends."""

    beginning: bytes
    """The first ids, which other prompts may share."""
    own: bytes
    """The ids after them."""

    def __len__(self) -> int:
        return (len(self.beginning) + len(self.own)) // _SIZE

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenIds) and len(self) == len(other) == common_length(self, other)

    def __hash__(self) -> int:
        return hash(self.after(0))

    def __getitem__(self, place: int) -> int:
        """Return the id at a place, counted from 0; raises IndexError beyond the last one."""
        if not 0 <= place < len(self):
            raise IndexError(place)
        start = place * _SIZE - len(self.beginning)
        found = self.own[start : start + _SIZE] if start >= 0 else self.beginning[place * _SIZE : (place + 1) * _SIZE]
        return int.from_bytes(found, "big")

    def unpack(self) -> Ids:
        """Return the ids as numbers."""
        return _unpack_beginning(self.beginning) + _unpack(self.own)

    def after(self, length: int) -> bytes:
        """Return the bytes of all ids but the first few, by which ids with the same first ones can be sorted."""
        return self.beginning[length * _SIZE :] + self.own[max(0, length * _SIZE - len(self.beginning)) :]

    def cut(self, length: int) -> "TokenIds":
        """Return the first ids, at most this many."""
        beginning = self.beginning[: length * _SIZE]
        return TokenIds(beginning, self.own[: max(0, length * _SIZE - len(self.beginning))])


def pack_ids(ids: Sequence[int]) -> TokenIds:
    """Return the ids of one prompt, with no beginning."""
    return TokenIds(b"", _pack(ids))


def pack_together(sides: Iterable[Sequence[int]]) -> list[TokenIds]:
    """Return the ids of several prompts; what all of them begin with is kept once."""
    packed = list(map(_pack, sides))
    if not packed:
        return []
    length = _SIZE * _common_length(min(packed), max(packed))
    beginning = packed[0][:length]
    return [TokenIds(beginning, ids[length:]) for ids in packed]


def common_length(first: TokenIds, second: TokenIds) -> int:
    """Return the number of ids that both begin with."""
    if first.beginning == second.beginning:
        return len(first.beginning) // _SIZE + _common_length(first.own, second.own)
    return _common_length(first.after(0), second.after(0))


def order_ids(sides: Sequence[TokenIds]) -> Callable[[TokenIds], bytes]:
    """Return a key by which these ids can be sorted like tuples of numbers. It holds no copy of what all begin with."""
    beginnings = {side.beginning for side in sides}
    shared = _common_length(min(beginnings), max(beginnings)) if beginnings else 0
    return lambda side: side.after(shared)


def find_distinct(sides: Iterable[TokenIds]) -> set[int]:
    """Return the ids that occur."""
    found: set[int] = set()
    for part in {part for side in sides for part in (side.beginning, side.own)}:
        found.update(_unpack(part))
    return found


def _pack(ids: Sequence[int]) -> bytes:
    return pack(f">{len(ids)}I", *ids)


def _unpack(packed: bytes) -> Ids:
    return unpack(f">{len(packed) // _SIZE}I", packed)


_unpack_beginning = lru_cache(maxsize=8)(_unpack)  # its numbers are then the same objects for all rows that are decoded


def _common_length(first: bytes, second: bytes) -> int:
    length = min(len(first), len(second)) // _SIZE
    differ = np.frombuffer(first, np.uint32, length) != np.frombuffer(second, np.uint32, length)
    return int(differ.argmax()) if differ.any() else length
