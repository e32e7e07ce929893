"""Scales: where a score stands between the ends of its axis, and which numbers the axis shows."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

_ENDS = {
    "bleu": (0.0, 100.0),
    "chrf": (0.0, 100.0),
    "ter": (0.0, math.inf),
    "reference_logprob": (-math.inf, 0.0),
    "reference_perplexity": (0.0, math.inf),  # it begins at 1, as ranks do, and its axis at a round number
    "reference_rank": (0.0, math.inf),
}
"""The lowest and the highest score of a metric; others of ours are of 0 to 1."""

_NUM_STEPS = 4
"""Between the ticks of an axis, about."""


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high`, with round numbers on it."""

    low: float
    high: float
    ticks: tuple[str, ...]

    def percent(self, value: float) -> float:
        """Return where a value stands, 0 at the low end and 100 at the high one."""
        fraction = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, fraction)), 2)


def metric_scale(metric: str, values: Iterable[float], reached: Iterable[float] = (), whole: bool = False) -> Scale:
    """Return a scale that holds what is drawn of a metric, and never goes beyond the metric's ends.

    A metric that we do not know has the ends 0 and 1, or none where a value is beyond them.

    Args:
        metric: Its name.
        values: Scores, and ends of intervals that are scores too.
        reached: Ends of symmetric intervals, which may reach beyond the metric's.
        whole: Whether the scale holds the metric's ends too, or zero where it has none.
    """
    low, high = _ENDS.get(metric, (0.0, 1.0))
    held = list(values)
    if not all(low <= round(value, 9) <= high for value in held):
        low, high = -math.inf, math.inf
    held += reached
    if whole:
        held += [end for end in (low, high) if math.isfinite(end)] or [0.0]
    return nice_scale(held, low, high)


def nice_scale(values: Iterable[float], lowest: float = -math.inf, highest: float = math.inf) -> Scale:
    """Return a scale that holds the values between two round numbers.

    Steps are 1, 2 or 5 times a power of ten (Heckbert, "Nice numbers for graph labels", Graphics Gems, 1990).

    Args:
        values: Any numbers; those that are not finite are left out.
        lowest: A round number; what is below it stands at it.
        highest: The same for what is above it.
    """
    finite = [min(max(value, lowest), highest) for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if math.isclose(low, high, rel_tol=1e-4, abs_tol=1e-9):  # ticks in between would read alike
        reach = max(0.5, abs(high) / 20)
        low, high = max(low - reach, lowest), min(high + reach, highest)
    step = _nice_step((high - low) / _NUM_STEPS)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    form = f".{decimals}f" if max(abs(low), abs(high)) < 1e6 else "g"
    ticks = tuple(format(number * step, form) for number in range(first, last + 1))
    return Scale(first * step, last * step, ticks)


def _nice_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return power * next(factor for factor, limit in ((1, 1.5), (2, 3), (5, 7), (10, math.inf)) if step < limit * power)
