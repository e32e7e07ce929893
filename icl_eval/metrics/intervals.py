"""Intervals of corpus scores: how much a score would vary with another sample of questions.

A corpus score such as BLEU is not a mean of sentence scores, but it is a function of a sum: each example contributes a
row of counts, the rows add up, and the score is computed from the total. Bootstrap resampling therefore only sums rows
again and never reads a string twice (Koehn, 2004, https://aclanthology.org/W04-3250). A mean of values from 0 to 1 gets
a score interval instead, which stays valid near 0 and 1, where resampling shows little or no variation.

Questions about the same text, or of the same rule, are not independent. Where each question has a cluster, the clusters
are the sample: `sum_by_cluster` turns the rows of questions into those of clusters, and whole clusters are drawn, left
out or exchanged.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

ROUNDING = 1e-10
"""Relative tolerance: numbers that differ by less than this fraction of the largest count as equal."""

NUM_RESAMPLES = 1000
"""The number of bootstrap resamples behind the standard error and the interval of a score."""

_DRAWN_ONE_BY_ONE = 1000
"""The number of units up to which each unit of a resample is drawn by itself."""
_REPEATED = 8
"""How often each distinct unit must occur, on average, for the numbers of units of a kind to be drawn instead."""
_CELLS_AT_ONCE = 1_000_000

NORMAL_QUANTILE = 1.959963984540054
"""The 97.5th percentile of the normal distribution."""


@dataclass(frozen=True)
class Interval:
    """The sampling error of a score."""

    stderr: float
    """Standard error of the score."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""


def bootstrap(
    rows: FloatArray, score_sums: Callable[[FloatArray], FloatArray], seed: int, num_resamples: int = NUM_RESAMPLES
) -> Interval:
    """Return the 95 % interval of a corpus score by resampling two or more units, and its standard error.

    Resamples of n units vary too little, by (n - 1) / n, and their percentiles ignore that the spread is estimated. The
    standard error is corrected for the first. The interval is the expanded percentile interval, which takes wider
    percentiles for both (Hesterberg, 2015, https://doi.org/10.1080/00031305.2015.1089789); for many units these are the
    2.5th and the 97.5th. If all units have equal statistics, it has zero width: resampling cannot show unseen cases.

    Args:
        rows: One row of statistics per example or cluster, `[num_units, num_statistics]`.
        score_sums: Maps summed statistics `[..., num_statistics]` to scores `[...]`.
        seed: The same seed gives the same interval, in any order of the units.
        num_resamples: The number of resampled corpora.
    """
    from scipy.special import ndtr

    scores = score_sums(resample_sums(rows, seed, num_resamples))  # [num_resamples]
    expansion = (len(rows) / (len(rows) - 1)) ** 0.5
    level = 100 * float(ndtr(-expansion * student_quantile(len(rows) - 1)))
    low, high = np.percentile(scores, [level, 100 - level])
    return Interval(stderr=spread(scores) * expansion, low=float(low), high=float(high))


def log_jackknife(rows: FloatArray, score_sums: Callable[[FloatArray], FloatArray], highest: float) -> Interval | None:
    """Return the 95 % interval of a positive corpus score by leaving out each of two or more units, and its error.

    Student's t interval of the logarithm of the score, from the jackknife (see `pseudo_values`). For BLEU it covers
    better than percentiles where the score is low or sentences are few. None if a part of the corpus scores 0.

    Args:
        rows: One row of statistics per example or cluster, `[num_units, num_statistics]`.
        score_sums: Maps summed statistics `[..., num_statistics]` to scores `[...]`.
        highest: The highest possible score, at which the interval ends.
    """
    score = float(score_sums(rows.sum(axis=0)))
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithms = pseudo_values(rows, lambda sums: np.log(score_sums(sums)))
    if not np.isfinite(logarithms).all():
        return None
    root = len(rows) ** 0.5
    with np.errstate(over="ignore"):
        factor = float(np.exp(student_quantile(len(rows) - 1) * spread(logarithms) / root))
    stderr = spread(pseudo_values(rows, score_sums)) / root
    return Interval(stderr, score / factor, max(score, min(highest, score * factor)))


def sum_by_cluster(rows: FloatArray, clusters: Sequence[str] | None) -> FloatArray:
    """Return the sum of the rows of each cluster, `[num_clusters, ...]`.

    Where there are no clusters, or each row is a cluster of its own, these are the rows as they are.

    Args:
        rows: One row or value per example.
        clusters: The cluster of each example; None if examples are independent.
    """
    if clusters is None or len(set(clusters)) == len(clusters):
        return rows
    places = np.unique(np.array(clusters), return_inverse=True)[1]
    order = np.lexsort([*rows.reshape(len(rows), -1).T, places])  # so that rounding does not depend on the order
    starts = np.flatnonzero(np.diff(places[order], prepend=-1))
    sums: FloatArray = np.add.reduceat(rows[order], starts, axis=0)
    return sums


def mean_stderr(values: FloatArray, clusters: Sequence[str] | None = None) -> float:
    """Return the standard error of a mean of two or more examples, of two or more clusters if there are any.

    Without clusters it is the standard deviation (n - 1) divided by the root of n. With G clusters it is the root of
    G / (G - 1) times the sum of the squared totals of deviations in a cluster, divided by n (Liang and Zeger, 1986,
    https://doi.org/10.1093/biomet/73.1.13; for evaluations Miller, 2024, https://arxiv.org/abs/2411.00640).
    """
    squares, num_units = _squared_deviations(values, clusters)
    return float((squares * num_units / (num_units - 1)) ** 0.5 / len(values))


def effective_number(values: FloatArray, clusters: Sequence[str] | None = None) -> float:
    """Return how many independent right or wrong answers say as much about the mean of values from 0 to 1.

    This is the effective sample size of Korn and Graubard (1998, Confidence intervals for proportions with small
    expected number of positive counts estimated from survey data, Survey Methodology 24, 193-201): n m (1 - m) / s² for
    the mean m and the variance s² of the values, divided by the design effect of clusters, of which there may be none.
    For answers that are right or wrong it is n. Otherwise a variance is estimated, so that the number is multiplied by
    the squared ratio of the normal's to Student's quantile, of n - 1 or, for G clusters, of G - 1 degrees of freedom.
    Clusters never increase the number. If all values are equal, each cluster counts as one answer.

    Args:
        values: Two or more values from 0 to 1.
        clusters: The cluster of each value, at least two; None if values are independent.
    """
    num_examples, mean = len(values), fsum(values) / len(values)
    own, _ = _squared_deviations(values, None)
    squares, num_units = _squared_deviations(values, clusters)
    if own == 0.0:
        return float(num_units)
    is_binary = bool(np.isin(values, (0.0, 1.0)).all())
    if is_binary and num_units == num_examples:
        return float(num_examples)
    number = num_examples if is_binary else num_examples**2 * mean * (1 - mean) / own
    design = squares * num_units / (num_units - 1) / (own * num_examples / (num_examples - 1))
    return float(number / max(1.0, design) * (NORMAL_QUANTILE / student_quantile(num_units - 1)) ** 2)


def _squared_deviations(values: FloatArray, clusters: Sequence[str] | None) -> tuple[float, int]:
    """Return the sum over units of the squared total of their deviations from the mean, and the number of units."""
    deviations = values - fsum(values) / len(values)  # fsum rounds only once, so that order does not matter
    totals = sum_by_cluster(deviations, clusters)
    totals[np.abs(totals) <= ROUNDING * np.abs(values).max()] = 0.0
    return fsum(totals**2), len(totals)


def student_quantile(degrees: int, level: float = 0.95) -> float:
    """Return the number of standard errors that an interval of this level reaches to either side, by Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + level) / 2))


def spread(values: FloatArray) -> float:
    """Return the standard deviation (n - 1) of two or more values; exactly 0 if they differ only by rounding.

    numpy can return a tiny positive value for equal numbers, because their computed mean may be rounded.
    """
    return 0.0 if np.ptp(values) <= ROUNDING * np.abs(values).max() else float(values.std(ddof=1))


def student_interval(values: FloatArray, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of the mean of two or more values, by Student's t distribution."""
    count, mean = len(values), float(values.mean())
    reach = student_quantile(count - 1, level) * spread(values) / count**0.5
    return mean - reach, mean + reach


def share_interval(share: float, num_examples: float) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion of correct answers (Wilson, 1927, https://doi.org/10.2307/2276774).

    Unlike the bootstrap, it keeps its coverage for small samples and extreme proportions (Brown, Cai and DasGupta,
    2001, https://doi.org/10.1214/ss/1009213286): for 0 correct answers of 64 it is 0 to 0.057 instead of 0 to 0.
    """
    squared = NORMAL_QUANTILE**2 / num_examples
    center = (share + squared / 2) / (1 + squared)
    reach = NORMAL_QUANTILE * ((share * (1 - share) + squared / 4) / num_examples) ** 0.5 / (1 + squared)
    return min(share, max(0.0, center - reach)), max(share, min(1.0, center + reach))  # despite rounding


def resample_sums(rows: FloatArray, seed: int, num_resamples: int) -> FloatArray:
    """Return the sum of the rows of each resampled corpus, `[num_resamples, num_statistics]`.

    To resample two systems in pairs, concatenate their rows for the same questions along the last axis. How often each
    distinct row is drawn is multinomial. If there are many rows, and most of them occur again and again, these numbers
    are drawn; otherwise the rows are, one by one. Both give sums of the same distribution.
    """
    rows = rows[np.lexsort(rows.T)]  # sorted, so that the result does not depend on the order of the examples
    starts = np.flatnonzero(np.append(True, (rows[1:] != rows[:-1]).any(axis=1)))
    generator = np.random.default_rng(seed)
    if len(rows) > _DRAWN_ONE_BY_ONE and len(rows) >= _REPEATED * len(starts):
        shares = np.diff(np.append(starts, len(rows))) / len(rows)
        counts = (
            generator.multinomial(len(rows), shares, size).astype(np.float64)
            for size in block_sizes(num_resamples, len(starts))
        )
        return np.concatenate([block @ rows[starts] for block in counts])
    exact = as_exact(rows, len(rows) * np.abs(rows).max(initial=0.0))
    sums = [
        _draw_one_by_one(generator, size, len(rows), exact.dtype) @ exact
        for size in block_sizes(num_resamples, len(rows))
    ]
    return np.concatenate(sums, dtype=np.float64)


def _draw_one_by_one(
    generator: np.random.Generator, num_resamples: int, num_rows: int, dtype: npt.DTypeLike
) -> npt.NDArray[Any]:
    """Return how often each row is drawn, `[num_resamples, num_rows]`."""
    counts = np.empty((num_resamples, num_rows), dtype)
    for own in counts:
        own[:] = np.bincount(generator.integers(num_rows, size=num_rows), minlength=num_rows)
    return counts


def as_exact(rows: FloatArray, highest_sum: float) -> npt.NDArray[Any]:
    """Return rows in single precision, which takes half the time, if it holds all of their sums exactly.

    Args:
        rows: Statistics that are multiplied by whole numbers and summed.
        highest_sum: What no sum of them, nor any part of one, exceeds in size.
    """
    is_exact = highest_sum <= 2**24 and bool((rows == np.rint(rows)).all())
    return rows.astype(np.float32) if is_exact else rows


def block_sizes(num_resamples: int, width: int) -> Iterator[int]:
    """Yield the sizes of blocks of resamples that take little memory each, given the number of cells of a resample."""
    most = max(1, _CELLS_AT_ONCE // width)
    for start in range(0, num_resamples, most):
        yield min(most, num_resamples - start)


def pseudo_values(rows: FloatArray, score_sums: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Return the jackknife pseudo-values of two or more examples, `[num_examples]`.

    The pseudo-value of an example is n times the score of all examples minus n - 1 times the score without it, which is
    the contribution of the example to the corpus score (Tukey, 1958; Miller, 1974,
    https://doi.org/10.1093/biomet/61.1.1). For a mean, the pseudo-values are the values of the examples. They are
    shifted so that their mean equals the score; their variance divided by n is the jackknife estimate of the sampling
    variance of the score.
    """
    num_examples = len(rows)
    total = rows.sum(axis=0)
    score = score_sums(total)
    values = num_examples * score - (num_examples - 1) * score_sums(total - rows)
    shifted: FloatArray = values - values.mean() + score
    return shifted
