"""Generalised intervals: what mean squares say about the variances that they are sums of.

A mean square M with f degrees of freedom is its expectation times χ²_f / f, so that M f / χ²_f is a value that its
expectation may have. Draws of these, put through the same signed sums, give the generalised interval of a variance or
of a ratio of variances (Weerahandi, 1993, https://doi.org/10.2307/2290779; Burdick, Borror and Montgomery, 2005, Design
and Analysis of Gauge R&R Studies). In simulations with three or four levels a factor, of normal values and of right or
wrong answers, 95 % intervals cover the truth 93 to 99 times of 100 (`tests/analysis/test_generalised.py`).
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from icl_eval.metrics.intervals import FloatArray

_NUM_DRAWS = 1000


def draw_expectations(mean_squares: FloatArray, degrees: Sequence[int]) -> FloatArray:
    """Return values that the expectations of mean squares may have, `[num_draws, num_effects]`, always the same.

    Args:
        mean_squares: The mean squares, `[num_effects]`.
        degrees: Their degrees of freedom.
    """
    return mean_squares * _draw_ratios(tuple(degrees))


def interval_of(draws: FloatArray) -> tuple[float, float]:
    """Return the 95 % interval of a quantity, from draws of it `[num_draws]`."""
    (interval,) = intervals_of(draws[:, None])
    return interval


def intervals_of(draws: FloatArray) -> list[tuple[float, float]]:
    """Return the 95 % interval of each of several quantities, from draws of them `[num_draws, num_quantities]`."""
    lows, highs = np.percentile(draws, [2.5, 97.5], axis=0).tolist()
    return list(zip(lows, highs, strict=True))


@lru_cache(maxsize=32)
def _draw_ratios(degrees: tuple[int, ...]) -> FloatArray:
    generator = np.random.default_rng(0)
    ratios: FloatArray = np.array(degrees) / generator.chisquare(degrees, (_NUM_DRAWS, len(degrees)))
    ratios.flags.writeable = False  # it is shared
    return ratios
