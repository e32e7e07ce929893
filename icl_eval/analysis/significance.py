"""Significance tests for two systems that answered the same questions.

The tests that are printed beside an interval are of its method: the p-value is below 0.05 where the 95 % interval is
without zero. The classical tests of the same question (McNemar's, sign flips, approximate randomisation) stand beside
them. The statistics of questions can be summed (see `icl_eval.metrics.intervals`), so the rows of both systems are
paired and resampled, or exchanged, together. The difficulty that a question has for both systems then cancels out.
Where questions are in clusters, the rows are those of clusters, and whole clusters are resampled, exchanged or flipped.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_eval.metrics.intervals import (
    NORMAL_QUANTILE,
    ROUNDING,
    FloatArray,
    as_exact,
    block_sizes,
    mean_stderr,
    resample_sums,
    spread,
    student_quantile,
    sum_by_cluster,
)


@dataclass(frozen=True)
class Paired:
    """The statistics of two systems, question by question."""

    baseline: FloatArray
    """One row per question or cluster, `[num_units, num_statistics]`."""
    other: FloatArray
    """Rows of the other system in the same order."""
    score_sums: Callable[[FloatArray], FloatArray]
    """Converts summed rows `[..., num_statistics]` to scores `[...]`, for both systems."""

    def difference(self, baseline: FloatArray, other: FloatArray) -> FloatArray:
        """Return the other system's scores minus the baseline's, from the summed rows of both."""
        differences: FloatArray = self.score_sums(other) - self.score_sums(baseline)
        return differences


@dataclass(frozen=True)
class DifferenceTest:
    """An interval of a difference, and the p-value of the same method."""

    ci95: tuple[float, float]
    p_value: float
    """Two-sided; below 0.05 where the interval is without zero."""


def bootstrap_difference(paired: Paired, seed: int, num_resamples: int) -> DifferenceTest:
    """Return the interval and the p-value of a difference of corpus scores over resampled questions.

    This is paired bootstrap resampling (Koehn, 2004, https://aclanthology.org/W04-3250), with the p-value of sacrebleu:
    the share of resampled differences that lie as far from their mean as the difference lies from zero. The interval
    reaches as far to both sides as 95 % of them.

    Resamples of n units vary too little, by (n - 1) / n, and ignore that their spread is estimated. So their distances
    are multiplied by the root of n / (n - 1) and by Student's quantile over the normal's, which matters for few units
    (Hesterberg, 2015, https://doi.org/10.1080/00031305.2015.1089789). In simulations of BLEU, chrF and TER of systems
    that are alike, the test calls 5 to 7 of 100 differences with 5 to 50 units; without this it calls 15 to 20 with 5.
    """
    width, num_units = paired.baseline.shape[1], len(paired.baseline)
    sums = resample_sums(np.hstack([paired.baseline, paired.other]), seed, num_resamples)
    resampled = paired.difference(sums[:, :width], sums[:, width:])
    observed = float(paired.difference(paired.baseline.sum(axis=0), paired.other.sum(axis=0)))
    widening = (num_units / (num_units - 1)) ** 0.5 * student_quantile(num_units - 1) / NORMAL_QUANTILE
    return _test(observed, widening * np.abs(resampled - resampled.mean()), 1.0)


def bootstrap_t(differences: FloatArray, seed: int, num_resamples: int) -> DifferenceTest:
    """Return the interval and the p-value of the mean of two or more differences.

    Each resample of the questions gives a t statistic about the observed mean; the 95th percentile of their sizes takes
    the place of Student's quantile (the symmetric bootstrap-t: Hall, 1988, https://doi.org/10.1214/aos/1176350933). So
    the test is about the mean, also where losses are small and gains are large, which sign flips take for symmetric.
    Questions of a kind that the sample does not show cannot be resampled: a rare large gain needs many questions.
    """
    count, mean = len(differences), float(np.sort(differences).mean())  # sorted, so that their order does not matter
    stderr = spread(differences) / count**0.5
    if stderr == 0.0:
        return DifferenceTest((mean, mean), 1.0 if mean == 0.0 else 1 / (num_resamples + 1))
    deviations = differences - mean
    squares, sums = resample_sums(np.column_stack([deviations**2, deviations]), seed, num_resamples).T
    around_own_mean = squares - sums**2 / count
    around_own_mean[around_own_mean < 1e-12 * squares] = 0.0  # rounding errors are no variation
    errors = np.maximum((around_own_mean / (count - 1) / count) ** 0.5, 1e-9 * stderr)
    return _test(mean, np.abs(sums / count) / errors, stderr)


def _test(observed: float, sizes: FloatArray, unit: float) -> DifferenceTest:
    """Return the test of a value, given the sizes of resampled deviations in a unit."""
    ordered = np.sort(sizes)
    count = len(ordered)
    as_large = count - int(np.searchsorted(ordered, abs(observed) / unit - 1e-9))
    most = math.ceil(0.05 * (count + 1)) - 2  # so many sizes may be as large where the p-value is below 0.05
    reach = float(ordered[count - 1 - max(0, most)]) * unit
    return DifferenceTest((observed - reach, observed + reach), (as_large + 1) / (count + 1))


def share_difference_interval(
    num_gained: float, num_lost: float, num_examples: float, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval of a difference between two shares of right answers to the same questions.

    This is Bonett and Price's interval (2012, https://doi.org/10.3102/1076998611411915): Wald's interval after adding
    one gained and one lost question. Unlike resampling, it keeps its coverage when few questions are asked or few flip.
    """
    from scipy.special import ndtri

    gained, lost = (num_gained + 1) / (num_examples + 2), (num_lost + 1) / (num_examples + 2)
    difference = gained - lost
    reach = float(ndtri((1 + level) / 2)) * ((gained + lost - difference**2) / (num_examples + 2)) ** 0.5
    return max(-1.0, difference - reach), min(1.0, difference + reach)


def alike_difference_interval(
    difference: float, num_units: float, width: float, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval of a difference that is the same for all questions or clusters, so that no error is seen.

    It is that of shares: of units that all flip if the difference is as large as can be, and of which none flips if
    there is no difference.

    Args:
        difference: The difference of every unit.
        num_units: The number of questions or clusters.
        width: The distance between the lowest and the highest possible value.
        level: The level of the interval.
    """
    low, high = share_difference_interval(*_flips_alike(difference, num_units, width), level)
    return width * low, width * high


def alike_difference_p_value(difference: float, num_units: float, width: float) -> float:
    """Return the p-value of such a difference, below 0.05 where its interval is without zero."""
    return share_difference_p_value(*_flips_alike(difference, num_units, width))


def _flips_alike(difference: float, num_units: float, width: float) -> tuple[float, float, float]:
    changed = num_units * difference / width
    return max(0.0, changed), max(0.0, -changed), num_units


def simultaneous_level(num_intervals: int) -> float:
    """Return the level at which each of several intervals has to hold, so that all hold at once with 95 %.

    By Bonferroni's inequality, however they depend on each other (Dunn, 1961, https://doi.org/10.2307/2282330).
    """
    return 1 - 0.05 / max(1, num_intervals)


def share_difference_p_value(num_gained: float, num_lost: float, num_examples: float) -> float:
    """Return the two-sided p-value of a difference between two shares: below 0.05 where its interval is without zero.

    Bonett and Price's interval (`share_difference_interval`) is Wald's of counts with one gained and one lost question
    added; this is Wald's test of the same counts.
    """
    from scipy.special import ndtr

    gained, lost = (num_gained + 1) / (num_examples + 2), (num_lost + 1) / (num_examples + 2)
    error = ((gained + lost - (gained - lost) ** 2) / (num_examples + 2)) ** 0.5
    return float(2 * ndtr(-abs(gained - lost) / error))


def count_effective_flips(differences: FloatArray, clusters: Sequence[str] | None) -> tuple[float, float, float]:
    """Return the effective numbers of questions gained, lost and asked, where questions are in clusters.

    The number of questions is divided by the design effect of the differences, and by the squared ratio of Student's
    quantile to the normal's, as for Wilson's interval. If no question flips, each cluster counts as one question.

    Args:
        differences: 1 for each question gained, -1 for each lost, and 0 for the others.
        clusters: The cluster of each question, at least two different ones.
    """
    gained, lost = float((differences > 0).mean()), float((differences < 0).mean())
    num_clusters = len(sum_by_cluster(differences, clusters))
    number = float(num_clusters)
    if np.ptp(differences):
        design = (mean_stderr(differences, clusters) / mean_stderr(differences)) ** 2
        quantiles = NORMAL_QUANTILE / student_quantile(num_clusters - 1)
        number = len(differences) / max(1.0, design) * quantiles**2
    return gained * number, lost * number, number


def approximate_randomisation(paired: Paired, seed: int, num_resamples: int) -> float:
    """Return the two-sided p-value of a difference of corpus scores.

    If the systems are equally good, exchanging the two outputs of a question changes nothing. The p-value is the share
    of random exchanges that give a difference at least as large (Noreen, 1989; Riezler and Maxwell, 2005,
    https://aclanthology.org/W05-0908). The observed outputs count as one of the exchanges.
    """
    order = np.lexsort(np.hstack([paired.baseline, paired.other]).T)  # make the result independent of question order
    gained = (paired.other - paired.baseline)[order]
    gained = as_exact(gained, np.abs(gained).sum(axis=0).max())
    baseline, other = paired.baseline.sum(axis=0), paired.other.sum(axis=0)
    observed = abs(float(paired.difference(baseline, other)))
    as_large = 0
    for tossed in _toss(len(gained), seed, num_resamples, gained.dtype):
        exchanged = tossed @ gained  # [block, num_statistics]
        differences = paired.difference(baseline + exchanged, other - exchanged)
        as_large += int((np.abs(differences) >= observed - 1e-9).sum())
    return (as_large + 1) / (num_resamples + 1)


def _toss(
    num_coins: int, seed: int, num_resamples: int, dtype: npt.DTypeLike = np.float64
) -> Iterator[npt.NDArray[Any]]:
    """Yield 0 or 1 for each coin of each resample, `[block, num_coins]`."""
    generator = np.random.default_rng(seed)
    for size in block_sizes(num_resamples, num_coins):
        drawn = generator.integers(256, size=(size, -(-num_coins // 8)), dtype=np.uint8)
        yield np.unpackbits(drawn, axis=1, count=num_coins).astype(dtype)


def sign_flip(differences: FloatArray, seed: int, num_resamples: int) -> float:
    """Return the two-sided p-value of a mean difference: the share of sign flips that give one at least as large.

    This is Fisher's permutation test for pairs (1935). It is exact if there are at most `num_resamples` ways to choose
    the signs. It tests whether differences are symmetric about zero, so it can reject where gains and losses have the
    same mean but not the same shape. Questions without a difference have no sign and are ignored.
    """
    from scipy.stats import permutation_test

    changed = np.sort(differences[differences != 0])
    if changed.size < 2:
        return 1.0  # a single difference is as large with either sign
    if 2**changed.size <= num_resamples:
        statistic = partial(np.sum, axis=-1)
        exact = permutation_test((changed,), statistic, permutation_type="samples", n_resamples=num_resamples)
        return float(exact.pvalue)
    total = float(changed.sum())
    least = abs(total) - ROUNDING * float(np.abs(changed).sum())
    flipped = (total - 2 * (tossed @ changed) for tossed in _toss(changed.size, seed, num_resamples))
    as_large = sum(int((np.abs(totals) >= least).sum()) for totals in flipped)
    return (as_large + 1) / (num_resamples + 1)


def mcnemar(num_gained: int, num_lost: int) -> float:
    """Return the exact two-sided p-value of the numbers of questions gained and lost.

    If the systems are equally good, each question that only one of them gets right is a coin toss (McNemar, 1947,
    https://doi.org/10.1007/BF02295996).
    """
    from scipy.stats import binomtest

    if num_gained + num_lost == 0:
        return 1.0
    return float(binomtest(num_gained, num_gained + num_lost).pvalue)


def mcnemar_mid_p(num_gained: int, num_lost: int) -> float:
    """Return the mid-p value of McNemar's test, which counts half of the probability of what was observed.

    The exact test errs on the safe side; this one has a size close to its level and more power (Fagerland, Lydersen and
    Laake, 2013, https://doi.org/10.1186/1471-2288-13-91).
    """
    from scipy.stats import binom

    if num_gained == num_lost:
        return 1.0
    return mcnemar(num_gained, num_lost) - float(binom.pmf(num_gained, num_gained + num_lost, 0.5))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for multiple testing, in the same order.

    The probability of rejecting any true null hypothesis stays below the level, however the tests depend on each other
    (Holm, 1979, https://www.jstor.org/stable/4615733).
    """
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted
