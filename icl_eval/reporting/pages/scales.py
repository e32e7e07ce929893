"""Axis scales: the range of an axis, its tick labels, and the position of a value on it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from icl_eval.metrics.ranges import RANGES

_NUM_STEPS = 4
"""Approximate number of steps between the ticks of an axis."""


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high` with round numbers as ticks."""

    low: float
    high: float
    ticks: tuple[str, ...]

    def percent(self, value: float) -> float:
        """Return the position of a value: 0 at the low end, 100 at the high end."""
        fraction = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, fraction)), 2)


def metric_scale(metric: str, values: Iterable[float], reached: Iterable[float] = (), whole: bool = False) -> Scale:
    """Return a scale that covers the values of a metric but never extends beyond the metric's range.

    An unknown metric is assumed to range from 0 to 1, or without limits if a value lies outside. The axis of a metric
    whose scores begin at 1, such as a perplexity, begins at 0, which is a round number.

    Args:
        metric: Name of the metric.
        values: Scores, and ends of intervals within the metric's range.
        reached: Ends of symmetric intervals, which may lie outside the metric's range.
        whole: Whether the scale covers the metric's whole range, or includes zero if the range is unlimited.
    """
    known = RANGES.get(metric)
    low, high = (min(known.low, 0.0), known.high) if known else (0.0, 1.0)
    covered = list(values)
    if not all(low <= round(value, 9) <= high for value in covered):
        low, high = -math.inf, math.inf
    covered += reached
    if whole:
        covered += [end for end in (low, high) if math.isfinite(end)] or [0.0]
    return nice_scale(covered, low, high)


def nice_scale(values: Iterable[float], lowest: float = -math.inf, highest: float = math.inf) -> Scale:
    """Return a scale that covers the values and whose ends are round numbers.

    Steps are 1, 2 or 5 times a power of ten (Heckbert, "Nice numbers for graph labels", Graphics Gems, 1990).

    Args:
        values: Any numbers; those that are not finite are ignored.
        lowest: A round number to which lower values are clipped.
        highest: A round number to which higher values are clipped.
    """
    finite = [min(max(value, lowest), highest) for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if math.isclose(low, high, rel_tol=1e-4, abs_tol=1e-9):  # the ticks in between would have the same label
        reach = max(0.5, abs(high) / 20)
        low, high = max(low - reach, lowest), min(high + reach, highest)
    step = _nice_step((high - low) / _NUM_STEPS)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    form = f".{decimals}f" if max(abs(low), abs(high)) < 1e6 else "g"
    ticks = tuple(format(number * step, form) for number in range(first, last + 1))
    return Scale(first * step, last * step, ticks)


def log_places(numbers: Sequence[int]) -> list[float]:
    """Return the places of ascending numbers on a logarithmic axis, from 0 to 1.

    0 has no logarithm. It stands to the left of the smallest other number, by the smallest distance between two of
    these, as 0 does before 1, 2, 4, 8.
    """
    logs = [math.log2(number) for number in numbers if number > 0]
    if len(logs) < len(numbers):
        steps = [right - left for left, right in pairwise(logs)]
        logs.insert(0, (logs[0] if logs else 0.0) - min(steps, default=1.0))
    width = logs[-1] - logs[0] or 1.0
    return [(each - logs[0]) / width for each in logs]


def _nice_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return power * next(factor for factor, limit in ((1, 1.5), (2, 3), (5, 7), (10, math.inf)) if step < limit * power)
