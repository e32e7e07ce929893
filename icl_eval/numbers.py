"""Numbers: how scores, counts and long lists read, in the terminal, on pages and in exported tables."""

from collections.abc import Sequence


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
