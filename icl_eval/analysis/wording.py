"""The spread of a score over wordings, as it is and with noise taken off.

The spread of FormatSpread (Sclar et al., 2023, https://arxiv.org/abs/2310.11324) is the score of the best wording minus
that of the worst. Even wordings that are equally good lie apart when few questions are asked, so that it is too large.
Here each observed mean is what the wording is worth plus an error, both normal, and their variances are known as well
as the mean squares of the design tell (`icl_eval.analysis.generalised`). For each draw of the variances, what each
wording is worth is drawn given its observed mean: its deviation from the mean of all wordings, shrunk by the share of
true variance, plus what remains unknown. The range of these values is the true spread.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from icl_eval.analysis.designs import is_wording
from icl_eval.analysis.generalised import draw_expectations, interval_of
from icl_eval.analysis.mean_squares import Nested, coefficients, mean_squares, sums_of_squares
from icl_eval.metrics.intervals import FloatArray


@dataclass(frozen=True)
class WordingSpread:
    """Best minus worst wording of a sweep, each averaged over draws, orders and questions."""

    factors: tuple[str, ...]
    """The parts of the wording that vary; each combination of them is a wording."""
    count: int
    """Number of wordings."""
    spread: float
    """Best minus worst mean score, as observed."""
    true_spread: float
    """The same with noise taken off: the mean of its distribution given the records."""
    ci95: tuple[float, float]
    """95 % interval of the true spread of these wordings, over other draws, orders and questions."""


def wording_spread(
    values: FloatArray, factors: Sequence[str], nested: tuple[str, str] | None = None
) -> WordingSpread | None:
    """Return the spread over wordings, always the same for the same values; None if the wording does not vary.

    Args:
        values: One value per combination and question, `[levels of the first factor, …, num_questions]`.
        factors: Names of all axes but the last.
        nested: A factor whose levels are drawn within each level of its host, and the host.
    """
    wordings = [axis for axis, factor in enumerate(factors) if is_wording(factor)]
    if not wordings:
        return None
    others = [axis for axis in range(values.ndim) if axis not in wordings]
    shape = (-1, *(values.shape[axis] for axis in others))
    merged = values.transpose([*wordings, *others]).reshape(shape)  # [num_wordings, other levels, …, num_questions]
    places = [factors[axis] for axis in others[:-1]]
    inside = Nested(*(1 + places.index(name) for name in nested)) if nested else None
    effects = sums_of_squares(merged, inside)
    order = list(effects)
    row = order.index((0,))
    drawn = draw_expectations(mean_squares(effects), [effect.degrees for effect in effects.values()])
    true = np.maximum(drawn @ coefficients(merged.shape, order, inside)[row], 0.0)  # [num_draws]
    observed = drawn[:, row] * len(merged) / merged.size  # variance of an observed mean
    kept = np.divide(true, observed, out=np.zeros_like(true), where=observed > 0.0).clip(0.0, 1.0)
    means = merged.reshape(len(merged), -1).mean(axis=1)
    unknown = np.random.default_rng(0).standard_normal((len(kept), len(means)))
    worth = kept[:, None] * (means - means.mean()) + (true * (1 - kept))[:, None] ** 0.5 * unknown
    spreads = np.ptp(worth, axis=1)
    return WordingSpread(
        factors=tuple(factors[axis] for axis in wordings),
        count=len(merged),
        spread=float(np.ptp(means)),
        true_spread=float(spreads.mean()),
        ci95=interval_of(spreads),
    )
