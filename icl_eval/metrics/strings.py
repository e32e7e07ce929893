"""Comparing strings: those that look the same become equal, and parts that two texts share are counted."""

import unicodedata
from collections import Counter
from collections.abc import Sequence, Set

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


def count_shared(parts: Sequence[str], distinct: Set[str], others: Sequence[str]) -> int:
    """Return how many parts two texts share, where each counts as often as it is in both.

    Args:
        parts: The parts of one text, such as its words.
        distinct: The set of these parts, which several comparisons of the text need.
        others: The parts of the other text.
    """
    shared = distinct.intersection(others)
    if not shared or len(distinct) == len(parts):
        return len(shared)
    counts, other_counts = Counter(parts), Counter(others)
    return sum([min(counts[part], other_counts[part]) for part in shared])
