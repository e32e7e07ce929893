"""Variance components: how much of a score's variance is due to each incidental option and to the test set.

Every level of each factor (seed, order, template …) is crossed with every level of the others and with the same
questions. The value of a question is therefore a sum of effects: one for each set of factors, and one for each such set
together with the question. The variances of these effects are estimated by equating mean squares to their
expectations, with factors and questions as random effects. This is a balanced crossed random-effects design (Searle,
Casella and McCulloch, 1992, Variance Components, chapter 4), in which an order is nested in the demonstrations that it
orders; generalizability theory calls it a G study (Brennan, 2001). A score is a mean over n questions, so effects that
involve the question are divided by n: they are the sampling error of the test set. Where questions stand in clusters,
the clusters take their place.

With three or four levels a share is hardly known: planted at 39 %, it is printed as 0 to 69 % in nine of ten sweeps of
3 × 4 × 3 cells. So each has a generalised interval; see `icl_eval.analysis.generalised`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from icl_eval.analysis.designs import SweepCell, is_incidental, nesting, split
from icl_eval.analysis.gaps import NoiseGap, noise_gap, sum_deviations
from icl_eval.analysis.generalised import draw_expectations, intervals_of
from icl_eval.analysis.mean_squares import Nested, coefficients, mean_squares, sums_of_squares
from icl_eval.analysis.quasi_f import quasi_f
from icl_eval.analysis.tables import PlainTable, condition_keys
from icl_eval.analysis.wording import WordingSpread, wording_spread
from icl_eval.metrics.intervals import ROUNDING, FloatArray, mean_stderr, spread

QUESTIONS = "questions"
TEST_SET = "test set"
JOINED = " × "
"""Separator between the names of interacting options."""


@dataclass(frozen=True)
class Component:
    """The contribution of one factor, or of an interaction of factors, to the variance of a score."""

    factors: tuple[str, ...]
    """`("seed",)` for a main effect, `("seed", "template")` for an interaction. With `questions` among them, the
    component is the part that would change with another sample of questions. Orders are drawn within draws of
    demonstrations, so an effect that depends on both is attributed to the order."""
    variance: float
    """Variance in squared units of the score; a negative estimate counts as 0."""
    share: float
    """Share of the sum of all components."""
    estimate: float
    """The estimate before clipping at zero."""
    p_value: float | None
    """Probability of differences at least this large if the component were zero, allowing for larger effects that
    involve questions, other factors or nested orders: see `icl_eval.analysis.quasi_f`. None for components with
    questions."""
    variance_ci95: tuple[float, float] | None = None
    """Generalised 95 % interval of the variance. None in files of older versions, as below."""
    share_ci95: tuple[float, float] | None = None
    """Generalised 95 % interval of the share."""


@dataclass(frozen=True)
class CellScore:
    """One cell of the design."""

    options: Mapping[str, str]
    score: float


@dataclass(frozen=True)
class VarianceAnalysis:
    """The variance of one metric of one task over a crossed design."""

    task: str
    metric: str
    higher_is_better: bool
    conditions: Mapping[str, str]
    """Values of the other options that vary in the sweep. Each combination has its own analysis."""
    factors: Mapping[str, tuple[str, ...]]
    """Levels by factor."""
    n: int
    """Number of questions behind each score."""
    mean: float
    """Mean score over all cells."""
    stdev: float
    """Standard deviation of the cells' scores (n - 1)."""
    worst: CellScore
    best: CellScore
    test_set_stderr: float
    """Standard error of a single score over samples of questions: the root mean square over cells."""
    components: tuple[Component, ...]
    """Main effects of the factors, then their interactions, then the same together with the questions."""
    level_means: Mapping[str, Mapping[str, float]]
    """Mean score by factor and level, averaged over everything else."""
    num_clusters: int | None = None
    """Number of clusters of questions, which then take the place of questions in all components and intervals; None if
    each question stands for itself."""
    test_set_at_least: float | None = None
    """Lower end of a one-sided 95 % interval of the share of everything that involves questions. There is no upper end:
    where the test set is all there is, an interval of the other shares reaches beyond 0 all the same."""
    noise_gap: NoiseGap | None = None
    """By how much the best cell would beat the worst if no cell differed in truth."""
    wording: WordingSpread | None = None
    """Best minus worst wording, with noise taken off; None if the wording does not vary."""

    @property
    def gap(self) -> float:
        """The difference between the best and the worst score."""
        return abs(self.best.score - self.worst.score)

    @property
    def shares(self) -> dict[str, float]:
        """Shares of each option, of each interaction, and of everything that involves the questions (`TEST_SET`)."""
        shares: dict[str, float] = {}
        for component in self.components:
            label = TEST_SET if QUESTIONS in component.factors else JOINED.join(component.factors)
            shares[label] = shares.get(label, 0.0) + component.share
        return shares


def variance_analyses(cells: Sequence[SweepCell]) -> tuple[list[VarianceAnalysis], list[str]]:
    """Return an analysis for each combination of the sweep's conditions, and notes on what could not be analysed.

    Args:
        cells: Cells with the same task, metric and questions.
    """
    analyses, notes = [], []
    for group in split(cells, is_incidental):
        if group.gap:
            notes.append(f"variance, {group.where}: {group.gap}")
        levels = {key: tuple(dict.fromkeys(cell.options[key] for cell in group.cells)) for key in group.options}
        factors = {key: values for key, values in levels.items() if len(values) > 1}
        if not factors:
            continue
        expected, count = prod(map(len, factors.values())), len({_index(cell, factors) for cell in group.cells})
        if count != expected:
            notes.append(f"variance, {group.where}: {count} of {expected} combinations have a score; all are needed")
            continue
        if len(group.cells) > expected:
            notes.append(f"variance, {group.where}: several runs have the same options; give each combination once")
            continue
        values = _values(group.cells, factors)
        if values is None:
            continue
        clusters = group.cells[0].measurement.clusters
        if clusters is not None and len(set(clusters)) < 2:
            notes.append(f"variance, {group.where}: all questions are of one cluster, so no error can be estimated")
            continue
        analyses.append(_analyse(group.cells, group.conditions, factors, values))
    return analyses, notes


def variance_table(analyses: Sequence[VarianceAnalysis]) -> PlainTable:
    """Return one row per component of each analysis, and one for all components with questions together."""
    conditions = condition_keys(analysis.conditions for analysis in analyses)
    rows = []
    for analysis in analyses:
        label = (analysis.task, analysis.metric, *(analysis.conditions.get(key) for key in conditions))
        for each in analysis.components:
            low, high = (None, None) if each.variance_ci95 is None else (end**0.5 for end in each.variance_ci95)
            deviations = (each.variance**0.5, low, high)
            shares = (each.share, *(each.share_ci95 or (None, None)))
            rows.append((*label, JOINED.join(each.factors), *deviations, *shares, each.p_value))
        of_questions = [each for each in analysis.components if QUESTIONS in each.factors]
        deviation = sum(each.variance for each in of_questions) ** 0.5
        share = sum(each.share for each in of_questions)
        rows.append((*label, TEST_SET, deviation, None, None, share, analysis.test_set_at_least, None, None))
    numbers = ("stdev", "stdev low", "stdev high", "share", "share low", "share high", "p")
    return PlainTable("variance", ("task", "metric", *conditions, "component", *numbers), tuple(rows))


def spread_table(analyses: Sequence[VarianceAnalysis]) -> PlainTable:
    """Return one row per analysis: how far its cells and its wordings lie apart, and how far noise alone puts them."""
    conditions = condition_keys(analysis.conditions for analysis in analyses)
    rows = []
    for each in analyses:
        label = (each.task, each.metric, *(each.conditions.get(key) for key in conditions))
        cells = (prod(map(len, each.factors.values())), each.n, each.mean, each.stdev, each.test_set_stderr)
        noise = (each.noise_gap.mean, each.noise_gap.p95) if each.noise_gap else (None, None)
        wording = each.wording
        spreads = (wording.count, wording.spread, wording.true_spread, *wording.ci95) if wording else (None,) * 5
        rows.append((*label, *cells, each.worst.score, each.best.score, each.gap, *noise, *spreads))
    numbers = (
        *("cells", "n", "mean", "stdev", "test set stderr", "worst", "best", "gap", "noise gap", "noise gap p95"),
        *("wordings", "wording spread", "true wording spread", "true low", "true high"),
    )
    return PlainTable("spread", ("task", "metric", *conditions, *numbers), tuple(rows))


def _values(cells: Sequence[SweepCell], factors: Mapping[str, tuple[str, ...]]) -> FloatArray | None:
    """Return the value of each combination and question, `[levels, …, num_questions]`; None if a cell has no values."""
    shape = [len(levels) for levels in factors.values()]
    values = np.empty([*shape, len(cells[0].measurement.example_ids)])
    for cell in cells:
        own = cell.measurement.values
        if own is None or len(own) < 2:
            return None
        values[_index(cell, factors)] = own
    return values


def _index(cell: SweepCell, factors: Mapping[str, tuple[str, ...]]) -> tuple[int, ...]:
    return tuple(levels.index(cell.options[factor]) for factor, levels in factors.items())


def _analyse(
    cells: Sequence[SweepCell],
    conditions: Mapping[str, str],
    factors: Mapping[str, tuple[str, ...]],
    values: FloatArray,
) -> VarianceAnalysis:
    measured = cells[0].measurement
    scores = values.mean(axis=-1)
    ranked = sorted(cells, key=lambda cell: cell.measurement.score, reverse=not measured.higher_is_better)
    means = {
        factor: np.moveaxis(scores, axis, 0).reshape(len(levels), -1).mean(axis=1)
        for axis, (factor, levels) in enumerate(factors.items())
    }
    by_cell = values.reshape(-1, values.shape[-1])
    stderrs = np.array([mean_stderr(own, measured.clusters) for own in by_cell])
    units = scores[..., None] + sum_deviations(values, measured.clusters)  # [levels, …, num_questions or clusters]
    components, at_least = variance_components(units, tuple(factors), nesting(factors))
    return VarianceAnalysis(
        task=measured.task,
        metric=measured.metric,
        higher_is_better=measured.higher_is_better,
        conditions=conditions,
        factors=factors,
        n=values.shape[-1],
        mean=float(scores.mean()),
        stdev=spread(scores.ravel()),
        worst=CellScore(ranked[0].options, ranked[0].measurement.score),
        best=CellScore(ranked[-1].options, ranked[-1].measurement.score),
        test_set_stderr=float(np.mean(stderrs**2) ** 0.5),
        components=components,
        level_means={
            factor: dict(zip(levels, means[factor].tolist(), strict=True)) for factor, levels in factors.items()
        },
        num_clusters=None if units.shape[-1] == values.shape[-1] else units.shape[-1],
        test_set_at_least=at_least,
        noise_gap=noise_gap(by_cell, measured.clusters),
        wording=wording_spread(units, tuple(factors), nesting(factors)),
    )


def variance_components(
    values: FloatArray, factors: Sequence[str], nested: tuple[str, str] | None = None
) -> tuple[tuple[Component, ...], float]:
    """Return the variance components of a score that is a mean over questions, and the least share of the test set.

    The latter is the lower end of a one-sided 95 % interval of the share of all components with questions.

    Args:
        values: One value per combination and question, `[levels of the first factor, …, num_questions]`.
        factors: Names of all axes but the last.
        nested: A factor whose levels are drawn anew within each level of its host, and the host. An effect that
            depends on both is attributed to the nested factor alone.
    """
    names = [*factors, QUESTIONS]
    inside = Nested(*map(names.index, nested)) if nested else None
    effects = sums_of_squares(values, inside)
    order = sorted(effects, key=lambda axes: (len(factors) in axes, len(axes), axes))
    effects = {axes: effects[axes] for axes in order}
    has_questions = np.array([len(factors) in axes for axes in order])
    matrix = coefficients(values.shape, order, inside)
    matrix[has_questions] /= values.shape[-1]
    squares = mean_squares(effects)
    estimates = matrix @ squares
    estimates[np.abs(estimates) <= ROUNDING * (np.abs(matrix) @ squares)] = 0.0  # what rounding leaves of a difference
    drawn = draw_expectations(squares, [effect.degrees for effect in effects.values()])  # [num_draws, num_effects]
    variances = np.maximum(drawn @ matrix.T, 0.0)  # [num_draws, num_components]
    shares = _shares(variances)
    own_shares = _shares(np.maximum(estimates, 0.0))
    variance_intervals, share_intervals = intervals_of(variances), intervals_of(shares)
    components = tuple(
        Component(
            factors=tuple(names[axis] for axis in axes),
            variance=max(float(estimates[row]), 0.0),
            share=float(own_shares[row]),
            estimate=float(estimates[row]),
            p_value=None if has_questions[row] else quasi_f(effects, axes, values.ndim, inside),
            variance_ci95=variance_intervals[row],
            share_ci95=share_intervals[row],
        )
        for row, axes in enumerate(order)
    )
    return components, float(np.percentile(shares[:, has_questions].sum(axis=1), 5))


def _shares(variances: FloatArray) -> FloatArray:
    """Return the share of each variance in their sum, over the last axis; 0 where all variances are."""
    total = variances.sum(axis=-1, keepdims=True)
    shares: FloatArray = np.divide(variances, total, out=np.zeros_like(variances), where=total > 0.0)
    return shares
