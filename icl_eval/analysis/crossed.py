"""The mean of values over draws and questions, with the error of both.

Every draw of demonstrations answers the same questions, so the values form a table of draws by questions, and two kinds
of chance decide their mean: which demonstrations were drawn, and which questions were asked. With `MS_s`, `MS_q` and
`MS_e` the mean squares of draws, of questions and of what is left, the squared standard error of the mean is

    SE² = (MS_s + MS_q - MS_e) / (S n) = s²_s / S + s²_q / n + s²_e / (S n)

where s² are the variance components, none of them less than zero. This is the two-way cluster variance (Cameron,
Gelbach and Miller, 2011, https://doi.org/10.1198/jbes.2010.07136) of a balanced design, and what the pigeonhole
bootstrap (Owen, 2007, https://doi.org/10.1214/07-AOAS122) finds by resampling. Degrees of freedom are Satterthwaite's
(1946, https://doi.org/10.2307/3002019). In simulations with 5 draws the 95 % interval of a share covers the truth 94 to
99 times of 100, where an interval over questions alone covers it 30 to 91 times (`tests/analysis/test_crossed.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from icl_eval.metrics.intervals import ROUNDING, FloatArray, share_interval


@dataclass(frozen=True)
class Components:
    """Variances of the values, in squared units of the score."""

    draws: float
    """Of the true score over draws of demonstrations."""
    questions: float
    """Of the difficulty of questions, which all draws have in common. Where questions stand in clusters, this and the
    next are variances of clusters."""
    residual: float
    """Of what a draw does to a question beyond both."""

    def stderr(self, num_draws: int, num_questions: int) -> float:
        """Return the standard error of the mean of so many draws and questions."""
        return float(sum(self.parts(num_draws, num_questions)) ** 0.5)

    def parts(self, num_draws: int, num_questions: int) -> tuple[float, float, float]:
        """Return the parts of the squared standard error: of draws, of questions, and of both together."""
        both = num_draws * num_questions
        return self.draws / num_draws, self.questions / num_questions, self.residual / both


@dataclass(frozen=True)
class CrossedMean:
    """The mean of a table of values, draws by questions."""

    mean: float
    stderr: float
    """Standard error over draws and questions."""
    degrees: float
    """Degrees of freedom of the standard error."""
    components: Components
    num_draws: int
    num_questions: int

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the mean over all draws and questions, by Student's t distribution."""
        reach = _quantile(self.degrees) * self.stderr
        return self.mean - reach, self.mean + reach

    def interval_within(self, low: float, high: float) -> tuple[float, float]:
        """Return the same interval, computed on the logit scale of a score that lies between two ends.

        Near an end the error shrinks with the distance from it, so that the interval on the scale itself is too
        narrow on the side of the middle. Where nothing varies, as at the very end, it is Wilson's interval of the
        questions.
        """
        place = (self.mean - low) / (high - low)
        if self.stderr == 0.0 or not ROUNDING < place < 1 - ROUNDING:
            ends = share_interval(min(1.0, max(0.0, place)), self.num_questions)
        else:
            reach = _quantile(self.degrees) * self.stderr / (high - low) / (place * (1 - place))
            odds = np.log(place / (1 - place)) + np.array([-reach, reach])
            ends = tuple((1 / (1 + np.exp(-odds))).tolist())
        return low + (high - low) * ends[0], low + (high - low) * ends[1]

    def p_value(self) -> float:
        """Return the two-sided p-value of the mean being zero: below 0.05 where `interval` is without zero."""
        from scipy.special import stdtr

        if self.stderr == 0.0:
            return 1.0 if self.mean == 0.0 else 0.0
        return float(2 * stdtr(self.degrees, -abs(self.mean) / self.stderr))


def crossed_mean(values: FloatArray, groups: Sequence[object] | None = None) -> CrossedMean:
    """Return the mean of values and its error over draws and questions.

    Args:
        values: One value per draw and question, `[num_draws, num_questions]`, at least two of both.
        groups: The cluster of each question, where questions of one cluster are not independent of each other; clusters
            then take the place of questions. None if every question stands for itself.
    """
    num_draws, num_questions = values.shape
    mean = float(values.mean())
    _, places = np.unique([str(group) for group in groups] if groups else np.arange(num_questions), return_inverse=True)
    weights = np.bincount(places) / num_questions  # [num_groups]
    num_groups = len(weights)
    sums = np.stack([np.bincount(places, row, num_groups) for row in values - mean]) / values.size  # [draws, groups]
    of_draws, of_groups = sums.sum(axis=1), sums.sum(axis=0)
    residuals = sums - np.outer(of_draws, weights) - of_groups / num_draws
    for part in (of_draws, of_groups, residuals):
        part[np.abs(part) < ROUNDING * np.abs(values).max() / values.size] = 0.0  # rounding errors are no variation
    draws = float((of_draws**2).sum()) * num_draws / (num_draws - 1)  # MS_s / (S n), and so on
    groups_part = float((of_groups**2).sum()) * num_groups / (num_groups - 1)
    residual = float((residuals**2).sum()) * num_draws * num_groups / ((num_draws - 1) * (num_groups - 1))
    squared, degrees = combine(np.array(draws), np.array(groups_part), np.array(residual), num_draws, num_groups)
    return CrossedMean(
        mean=mean,
        stderr=float(squared) ** 0.5,
        degrees=float(degrees),
        components=Components(
            max(0.0, draws - residual) * num_draws,
            max(0.0, groups_part - residual) * num_groups,
            residual * num_draws * num_groups,
        ),
        num_draws=num_draws,
        num_questions=num_groups,
    )


def combine(
    draws: FloatArray, questions: FloatArray, residual: FloatArray, num_draws: int, num_questions: int
) -> tuple[FloatArray, FloatArray]:
    """Return the squared standard errors that mean squares give, and their degrees of freedom by Satterthwaite.

    Args:
        draws: Mean squares of draws, each divided by the number of all values.
        questions: Those of questions.
        residual: Those of what is left.
        num_draws: Number of draws.
        num_questions: Number of questions.
    """
    draws, questions = np.maximum(draws, residual), np.maximum(questions, residual)  # no variance is less than zero
    rows, columns = num_draws - 1, num_questions - 1
    squared = draws + questions - residual
    spread = draws**2 / rows + questions**2 / columns + residual**2 / (rows * columns)
    fewest = float(min(rows, columns))
    with np.errstate(invalid="ignore", divide="ignore"):
        degrees = np.where(spread > 0.0, np.maximum(squared**2 / spread, fewest), float(columns))
    return squared, degrees


def _quantile(degrees: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))
