"""Format numbers, values, names and lists for sentences, tables and file names."""

import difflib
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


def format_score(score: float) -> str:
    """Return a score with three decimals up to 2, one decimal above, and in scientific notation from a million on."""
    size = abs(score)
    return f"{score:.3f}" if size <= 2 else f"{score:.1f}" if size < 1e6 else f"{score:.2e}"


def typeset(number: str) -> str:
    """Return a formatted number with typographic minus signs instead of hyphens, for pages."""
    return number.replace("-", "−")


def count_noun(count: int, noun: str) -> str:
    """Return a count with its noun, in the singular or the plural."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def list_names(names: Sequence[str]) -> str:
    """Return the first three names and the number of remaining ones."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def format_p_value(p_value: float) -> str:
    """Return a p-value with three decimals, or with one significant digit if it is below 0.001."""
    return f"{p_value:.3f}" if p_value >= 0.001 else f"{p_value:.1g}"


def format_difference(difference: float) -> str:
    """Return a difference of scores, with its sign."""
    return ("+" if difference > 0 else "") + format_score(difference)


def mark_direction(higher_is_better: bool) -> str:
    """Return what stands after a score, or after its name: an arrow if lower is better."""
    return "" if higher_is_better else " ↓"


def format_interval(ends: tuple[float, float] | None, number: Callable[[float], str] = format_score) -> str:
    """Return the ends of an interval, or an empty string if there is no interval."""
    return "" if ends is None else f"{number(ends[0])} to {number(ends[1])}"


_ESCAPES = {ord("\n"): r"\n", ord("\t"): r"\t"}
"""The two characters that an option takes as escapes."""


def format_options(options: Mapping[str, str], separator: str = " ") -> str:
    r"""Return options as a user writes them: `order=random seed=3`, `decoding.stop=["\n"]`."""
    return separator.join(f"{key}={value}" for key, value in options.items()).translate(_ESCAPES)


def format_value(value: Any) -> str:
    """Return a value as one would write it in a configuration."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that move the cursor or change the colour or order of other text; line breaks and tabs are allowed."""


def escape_controls(text: str) -> str:
    r"""Return a string with its control characters escaped, so that a terminal does not execute them.

    >>> escape_controls("\x1b[2J")
    '\\x1b[2J'
    """
    return _HIDDEN.sub(lambda match: ascii(match[0])[1:-1], text)


def join_lines(text: str) -> str:
    """Return a string with each run of white space replaced by one space."""
    return " ".join(text.split())


def describe_error(error: BaseException) -> str:
    """Return the message of an error on one line, or the name of its type if the message is empty."""
    return join_lines(str(error)) or type(error).__name__


def suggest_name(name: str, known: Iterable[str]) -> str:
    """Return the closest known name as the end of a sentence; an empty string if none is close."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def describe_unknown_key(key: str, known: Sequence[str]) -> str:
    """Return the error message for an unknown key, with the closest known key as a suggestion.

    >>> describe_unknown_key("model.sorce", ["model.source", "model.revision"])
    "unknown key 'model.sorce'; did you mean 'model.source'? (known: model.revision, model.source)"

    Args:
        key: The unknown key.
        known: The known keys of the same mapping. Only last parts are compared: what all keys share, such as
            `demonstrations.`, would make any two of them look alike.
    """
    place, dot, name = key.rpartition(".")
    close = difflib.get_close_matches(name, [each.removeprefix(place + dot) for each in known], n=1)
    advice = f"; did you mean '{place}{dot}{close[0]}'?" if close else ""
    names = f"known: {', '.join(sorted(known))}" if known else f"{place} has none"
    return f"unknown key '{key}'{advice} ({names})"


def shorten_name(name: str, text: str, size: int) -> str:
    """Return a name cut to a number of bytes, followed by a digest that keeps it unique.

    Args:
        name: The readable part of the result.
        text: The string to digest; different strings give different results.
        size: The number of bytes to keep of the name; the digest adds 9 more.
    """
    return f"{name.encode()[:size].decode(errors='ignore')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def find_not_finite(value: Any, place: str = "") -> str:
    """Return the place and value of the first number that is infinite or NaN, or an empty string."""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{place} is {value}"
    if isinstance(value, Mapping):
        parts = [(f"{place}.{key}" if place else str(key), part) for key, part in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(f"{place}[{number}]", part) for number, part in enumerate(value)]
    else:
        return ""
    return next(filter(None, (find_not_finite(part, name) for name, part in parts)), "")


def find_lone_surrogate(text: str) -> str | None:
    """Return a phrase with the first lone surrogate of a string, which JSON and YAML can escape; None without one.

    No tokenizer can encode one half of a surrogate pair, and no file in UTF-8 can hold it.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"a lone surrogate ({text[error.start]!r})"
    return None
