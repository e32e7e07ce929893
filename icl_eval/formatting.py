"""Formatting: how numbers, values, names and long lists read in sentences, tables and file names."""

import difflib
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any


def short(score: float) -> str:
    """Return a score with the digits it deserves: three decimals, one beyond 2, and powers of ten for millions."""
    size = abs(score)
    return f"{score:.3f}" if size <= 2 else f"{score:.1f}" if size < 1e6 else f"{score:.2e}"


def typeset(number: str) -> str:
    """Return a number that is written out, with minus signs in place of hyphens, as pages show it."""
    return number.replace("-", "−")


def counted(count: int, noun: str) -> str:
    """Return a count with its noun in the right form."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def probability(p_value: float) -> str:
    """Return a p-value with three decimals, or what there is of one that is smaller."""
    return f"{p_value:.3f}" if p_value >= 0.001 else f"{p_value:.1g}"


def signed(difference: float) -> str:
    """Return a difference as a score with its sign."""
    return ("+" if difference > 0 else "") + short(difference)


def written(value: Any) -> str:
    """Return a value as it is written in a configuration."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What moves the cursor, colours or reorders what stands around it; line breaks and tabs are text."""


def shown(text: str) -> str:
    r"""Return a string with its control characters written out: a terminal would obey them.

    >>> shown("\x1b[2J")
    '\\x1b[2J'
    """
    return _HIDDEN.sub(lambda found: ascii(found[0])[1:-1], text)


def unknown_key(key: str, known: Sequence[str]) -> str:
    """Return the sentence about a key that does not exist."""
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"unknown key '{key}'{hint} (known: {', '.join(sorted(known)) or 'none'})"


def shortened(name: str, text: str, size: int) -> str:
    """Return as much of a name as there is room for, with a digest of the text that it stands for.

    Args:
        name: What is readable of the text.
        text: What another name must differ for.
        size: How many bytes of the name may stay; 9 more are the digest's.
    """
    return f"{name.encode()[:size].decode(errors='ignore')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def find_not_finite(value: Any, place: str = "") -> str:
    """Return the place and the value of the first number that is infinite or not a number; empty for none."""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{place} is {value}"
    if isinstance(value, Mapping):
        parts = [(f"{place}.{key}" if place else str(key), part) for key, part in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(f"{place}[{number}]", part) for number, part in enumerate(value)]
    else:
        return ""
    return next(filter(None, (find_not_finite(part, name) for name, part in parts)), "")
