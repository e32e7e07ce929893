"""Intervals of corpus scores: how much a score would vary with another sample of questions.

A corpus score such as BLEU is not a mean of sentence scores, but it is a function of a sum: each example contributes a
row of counts, the rows add up, and the score is computed from the total. Bootstrap resampling therefore only sums rows
again and never reads a string twice (Koehn, 2004, https://aclanthology.org/W04-3250). A proportion of correct answers
gets a score interval instead, which stays valid near 0 and 1, where resampling shows no variation.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

ROUNDING = 1e-10
"""Relative tolerance: numbers that differ by less than this fraction of the largest count as equal."""

NUM_RESAMPLES = 1000
"""The number of bootstrap resamples behind the standard error and the interval of a score."""

NORMAL_QUANTILE = 1.959963984540054
"""The 97.5th percentile of the normal distribution."""


@dataclass(frozen=True)
class Interval:
    """The spread of a score over resampled corpora."""

    stderr: float
    """Standard deviation of the resampled scores."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""


def bootstrap(
    rows: FloatArray, score_sums: Callable[[FloatArray], FloatArray], seed: int, num_resamples: int = NUM_RESAMPLES
) -> Interval:
    """Return the 95 % percentile interval of a corpus score, and its standard error.

    If all examples have equal statistics, the interval has zero width, because resampling cannot show unseen cases.

    Args:
        rows: One row of statistics per example, `[num_examples, num_statistics]`.
        score_sums: Maps summed statistics `[..., num_statistics]` to scores `[...]`.
        seed: The same seed gives the same interval, in any order of the examples.
        num_resamples: The number of resampled corpora.
    """
    scores = score_sums(resample_sums(rows, seed, num_resamples))  # [num_resamples]
    low, high = np.percentile(scores, [2.5, 97.5])
    return Interval(stderr=spread(scores), low=float(low), high=float(high))


def spread(values: FloatArray) -> float:
    """Return the standard deviation (n - 1) of two or more values; exactly 0 if they differ only by rounding.

    numpy can return a tiny positive value for equal numbers, because their computed mean may be rounded.
    """
    return 0.0 if np.ptp(values) <= ROUNDING * np.abs(values).max() else float(values.std(ddof=1))


def student_interval(values: FloatArray, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of the mean of two or more values, by Student's t distribution."""
    from scipy.special import stdtrit

    count, mean = len(values), float(values.mean())
    reach = float(stdtrit(count - 1, (1 + level) / 2)) * spread(values) / count**0.5
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

    To resample two systems in pairs, concatenate their rows for the same questions along the last axis.
    """
    rows = rows[np.lexsort(rows.T)]  # sorted, so that the result does not depend on the order of the examples
    generator = np.random.default_rng(seed)
    num_examples = len(rows)
    # One corpus at a time needs memory for only one row of counts; 1,000 resamples of 10,000 examples take 0.1 s.
    counts = (
        np.bincount(generator.integers(num_examples, size=num_examples), minlength=num_examples)
        for _ in range(num_resamples)
    )
    return np.stack([drawn @ rows for drawn in counts])


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
