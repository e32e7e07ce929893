"""Intervals of corpus scores: how far a score would move with another draw of questions.

A corpus score such as BLEU is no mean of sentence scores, but it is a function of a sum: each example gives
a row of counts, the rows add up, and the total becomes the score. So a resampled corpus is a resampled
sum of rows, and no text is looked at twice (Koehn, 2004, https://aclanthology.org/W04-3250). A share of right
answers has an interval of its own, which also holds where resampling sees nothing to vary: near 0 and 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

ROUNDING = 1e-10
"""Numbers that differ by less than this share of the largest are the same number."""

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
    """Upper end."""


def bootstrap(
    rows: FloatArray, score_sums: Callable[[FloatArray], FloatArray], seed: int, num_resamples: int = 1000
) -> Interval:
    """Return the 95 % percentile interval of a corpus score, and its standard error.

    Where all examples are alike the interval has no width: resampling shows no case that the examples do not show.

    Args:
        rows: one row of statistics an example, `[num_examples, num_statistics]`.
        score_sums: summed statistics `[..., num_statistics]` to scores `[...]`.
        seed: the same seed gives the same interval, whatever the order of the examples.
        num_resamples: how many corpora to draw.
    """
    scores = score_sums(resampled_sums(rows, seed, num_resamples))  # [num_resamples]
    low, high = np.percentile(scores, [2.5, 97.5])
    return Interval(stderr=spread(scores), low=float(low), high=float(high))


def spread(values: FloatArray) -> float:
    """Return the standard deviation (n - 1) of two or more values; exactly 0 where only rounding sets them apart.

    The mean of equal numbers need not be that number once it is rounded, and what numpy finds around it is not 0.
    """
    return 0.0 if np.ptp(values) <= ROUNDING * np.abs(values).max() else float(values.std(ddof=1))


def student_quantile(degrees: int) -> float:
    """Return the 97.5th percentile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))


def share_interval(share: float, num_examples: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share of right answers (Wilson, 1927, https://doi.org/10.2307/2276774).

    Unlike the bootstrap it keeps its level for small and extreme shares (Brown, Cai and DasGupta, 2001,
    https://doi.org/10.1214/ss/1009213286): none of 64 right is 0 to 0.057, and not 0 to 0.
    """
    squared = NORMAL_QUANTILE**2 / num_examples
    center = (share + squared / 2) / (1 + squared)
    reach = NORMAL_QUANTILE * ((share * (1 - share) + squared / 4) / num_examples) ** 0.5 / (1 + squared)
    return min(share, max(0.0, center - reach)), max(share, min(1.0, center + reach))  # whatever rounding does


def resampled_sums(rows: FloatArray, seed: int, num_resamples: int) -> FloatArray:
    """Return the sum of the rows of each resampled corpus, `[num_resamples, num_statistics]`.

    Two systems that answered the same questions are resampled together when their rows lie side by side.
    """
    rows = rows[np.lexsort(rows.T)]  # the draw then depends on which rows there are, not on their order
    generator = np.random.default_rng(seed)
    num_examples = len(rows)
    # One corpus at a time: memory stays at one row of counts, and 1,000 draws of 10,000 examples take 0.1 s.
    counts = (
        np.bincount(generator.integers(num_examples, size=num_examples), minlength=num_examples)
        for _ in range(num_resamples)
    )
    return np.stack([drawn @ rows for drawn in counts])


def pseudo_values(rows: FloatArray, score_sums: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Return the jackknife's value of each example, `[num_examples]`, of two or more.

    n times the score of all examples minus n - 1 times the score without this one: the share of the corpus score
    that the example answers for (Tukey, 1958; Miller, 1974, https://doi.org/10.1093/biomet/61.1.1). For a mean these
    are the examples' own values. They are shifted so that their mean is the score itself, and their variance divided
    by n is the jackknife estimate of the score's sampling variance.
    """
    num_examples = len(rows)
    total = rows.sum(axis=0)
    score = score_sums(total)
    values = num_examples * score - (num_examples - 1) * score_sums(total - rows)
    shifted: FloatArray = values - values.mean() + score
    return shifted
