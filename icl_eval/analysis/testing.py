"""Testing: which test suits a difference, by the kind of its metric and the number of draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from icl_eval.analysis.crossed import crossed_mean
from icl_eval.analysis.measurements import find_range
from icl_eval.analysis.significance import (
    Paired,
    alike_difference_interval,
    alike_difference_p_value,
    approximate_randomisation,
    bootstrap_difference,
    bootstrap_t,
    count_effective_flips,
    mcnemar,
    mcnemar_mid_p,
    share_difference_interval,
    share_difference_p_value,
    sign_flip,
)
from icl_eval.metrics.intervals import spread, sum_by_cluster
from icl_eval.metrics.measurements import Measurement

RESAMPLED = ("bootstrap_t", "paired_bootstrap")
"""The tests whose p-values cannot be smaller than one in the number of resamples."""
OTHERS = ("mcnemar", "mcnemar_mid_p", "sign_flip", "approximate_randomisation")
"""The tests that stand beside that of an interval."""

Pair = tuple[Measurement, Measurement]
"""The measurements of the baseline and of another system."""


@dataclass(frozen=True)
class Finding:
    """What the statistics of two systems say about their difference; see `icl_eval.analysis.comparison.Difference`."""

    test: str | None
    p_value: float | None
    ci95: tuple[float, float] | None
    others: Mapping[str, float] = field(default_factory=dict)
    """P-values of other tests, by name."""


_UNTESTED = Finding(None, None, None)


def compare_draws(draws: Sequence[Sequence[Pair]]) -> Finding:
    """Test a difference over draws and questions.

    Args:
        draws: For each draw, the measurements of the baseline and of the other system, in pairs. Pairs of one draw,
            such as its orders, are averaged.
    """
    means = []
    for pairs in draws:
        values = [(before.values, after.values) for before, after in pairs]
        if any(side.statistics.is_smoothed for pair in pairs for side in pair):
            return _UNTESTED
        known = [after - before for before, after in values if before is not None and after is not None]
        if len(known) < len(values) or known[0].size < 2:
            return _UNTESTED
        means.append(np.mean(known, axis=0))
    every_pair = [pair for pairs in draws for pair in pairs]
    clusters = find_clusters(every_pair)
    if clusters is not None and len(set(clusters)) < 2:
        return _UNTESTED
    found = crossed_mean(np.stack(means), clusters)
    if found.stderr == 0.0:
        return _judge_alike("crossed", every_pair, found.mean, found.num_questions)
    return Finding("crossed", found.p_value(), _clip(found.interval(), every_pair))


def compare_questions(baseline: Measurement, other: Measurement, seed: int, num_resamples: int) -> Finding:
    """Test a difference over questions, for the prompts of one draw.

    Exchanging the two turns the interval round and keeps every p-value, because the same one is resampled first.
    """
    if _comes_second(baseline, other):
        turned = compare_questions(other, baseline, seed, num_resamples)
        return turned if turned.ci95 is None else replace(turned, ci95=(0.0 - turned.ci95[1], 0.0 - turned.ci95[0]))
    before, after = baseline.statistics, other.statistics
    clusters = find_clusters([(baseline, other)])
    num_units = len(other.example_ids) if clusters is None else len(set(clusters))
    if before.is_share and after.is_share and num_units == len(other.example_ids):
        pairs = list(zip(before.per_example, after.per_example, strict=True))
        gained, lost = pairs.count((0.0, 1.0)), pairs.count((1.0, 0.0))
        return Finding(
            "bonett_price",
            share_difference_p_value(gained, lost, num_units),
            share_difference_interval(gained, lost, num_units),
            {"mcnemar": mcnemar(gained, lost), "mcnemar_mid_p": mcnemar_mid_p(gained, lost)},
        )
    if after.score_sums is None or num_units < 2 or before.is_smoothed or after.is_smoothed:
        return _UNTESTED
    if after.is_mean:
        differences = np.array(after.per_example, np.float64) - np.array(before.per_example, np.float64)
        sums = sum_by_cluster(differences, clusters)
        others = {"sign_flip": sign_flip(sums, seed, num_resamples)}
        if before.is_share and after.is_share:
            flips = count_effective_flips(differences, clusters)
            return Finding("bonett_price", share_difference_p_value(*flips), share_difference_interval(*flips), others)
        if spread(differences) == 0.0 or spread(sums) == 0.0:
            return _judge_alike("bootstrap_t", [(baseline, other)], float(differences.mean()), num_units, others)
        found = bootstrap_t(sums * num_units / len(differences), seed, num_resamples)
        return Finding("bootstrap_t", found.p_value, _clip(found.ci95, [(baseline, other)]), others)
    rows = [sum_by_cluster(each.rows, clusters) for each in (before, after)]
    paired = Paired(rows[0], rows[1], after.score_sums)
    others = {"approximate_randomisation": approximate_randomisation(paired, seed, num_resamples)}
    if np.array_equal(rows[0], rows[1]):
        return _judge_alike("paired_bootstrap", [(baseline, other)], 0.0, num_units, others)
    found = bootstrap_difference(paired, seed, num_resamples)
    return Finding("paired_bootstrap", found.p_value, _clip(found.ci95, [(baseline, other)]), others)


def find_clusters(pairs: Sequence[Pair]) -> tuple[str, ...] | None:
    """Return the cluster of each question, which a run of an earlier version does not know; None without clusters."""
    return next((side.clusters for pair in pairs for side in pair if side.clusters is not None), None)


def _clip(ends: tuple[float, float], pairs: Sequence[Pair]) -> tuple[float, float]:
    """Return an interval that ends where differences end."""
    low, high = find_range(side for pair in pairs for side in pair)
    return max(low - high, ends[0]), min(high - low, ends[1])


def _comes_second(one: Measurement, other: Measurement) -> bool:
    """Return whether the other of two measurements is resampled first, whatever the order of the questions."""
    if one.score != other.score:
        return one.score > other.score
    rows = one.statistics.rows.tolist(), other.statistics.rows.tolist()
    clusters = find_clusters([(one, other)]) or [""] * len(rows[0])
    return sorted(zip(*rows, clusters, strict=True)) > sorted(zip(*reversed(rows), clusters, strict=True))


def _judge_alike(
    test: str, pairs: Sequence[Pair], difference: float, num_units: int, others: Mapping[str, float] | None = None
) -> Finding:
    """Return the test of a difference that is the same for all questions, in which no method sees an error.

    Where the metric's values have no ends, nothing says how sure it is, unless there is no difference.
    """
    low, high = find_range(side for pair in pairs for side in pair)
    own = others or {}
    if np.isfinite((low, high)).all():
        known = difference, num_units, high - low
        return Finding(test, alike_difference_p_value(*known), alike_difference_interval(*known), own)
    return Finding(test, 1.0, (0.0, 0.0), own) if difference == 0.0 else Finding(None, None, None, own)
