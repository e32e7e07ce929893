"""Scales: where a score stands between the ends of its axis, and which numbers the axis shows."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

_SACREBLEU_METRICS = ("bleu", "chrf", "ter")
"""Metrics of 0 to 100; others of ours are of 0 to 1."""


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


def metric_scale(metric: str, values: Iterable[float]) -> Scale:
    """Return the whole scale of a metric, or one that holds the values where the metric has no ends."""
    values = tuple(values)
    high = 100.0 if metric in _SACREBLEU_METRICS else 1.0
    if all(0 <= value <= high for value in values):
        return nice_scale((0.0, high))
    return nice_scale((0.0, *values))


def nice_scale(values: Iterable[float], num_ticks: int = 5) -> Scale:
    """Return a scale that holds the values between two round numbers.

    Steps are 1, 2 or 5 times a power of ten (Heckbert, "Nice numbers for graph labels", Graphics Gems, 1990).
    """
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if low == high:
        low, high = low - 0.5, high + 0.5
    step = _nice_step((high - low) / (num_ticks - 1))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    ticks = tuple(f"{number * step:.{decimals}f}" for number in range(first, last + 1))
    return Scale(first * step, last * step, ticks)


def _nice_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return power * next(factor for factor, limit in ((1, 1.5), (2, 3), (5, 7), (10, math.inf)) if step < limit * power)
