"""Comparing strings: those that look the same become equal, and parts that two texts share are counted."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

# Soft hyphen, directional marks, zero-width space, word joiner, byte order mark and variation selectors. The zero-width
# joiner and non-joiner of Persian, Indic scripts and emoji are not included: they change what is displayed.
_INVISIBLE = dict.fromkeys(
    map(
        ord,
        "\xad\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufe0e\ufe0f\ufeff",
    )
)


def compose(text: str) -> str:
    """Return a string in the composed Unicode form (NFC), in which é is one character."""
    return unicodedata.normalize("NFC", text)


def drop_invisible(text: str) -> str:
    """Return a string without invisible characters, in the composed Unicode form."""
    return text if text.isascii() else compose(text.translate(_INVISIBLE))


_FEW = 4
"""Up to this many parts, searching a text for each is faster than counting all of its parts."""


class Parts:
    """The parts of a text, such as its words or n-grams, prepared for several comparisons."""

    def __init__(self, parts: Sequence[str]):
        self.all = parts
        self._distinct = frozenset(parts)

    @cached_property
    def _repeated(self) -> dict[str, int]:
        if len(self._distinct) == len(self.all):
            return {}
        return {part: count for part, count in Counter(self.all).items() if count > 1}

    def count_shared(self, others: Sequence[str]) -> int:
        """Return how many parts two texts share, where each counts as often as it is in both."""
        shared = self._distinct.intersection(others)
        if not shared or shared.isdisjoint(self._repeated):
            return len(shared)
        repeated = [part for part in self._repeated if part in shared]
        count = others.count if len(repeated) <= _FEW else Counter(others).__getitem__
        return len(shared) + sum(min(self._repeated[part], count(part)) - 1 for part in repeated)
