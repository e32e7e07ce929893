"""Variance components: how much of a score's variance is due to each incidental option and to the test set.

Every level of each factor (seed, order, template …) is crossed with every level of the others and with the same
questions. The value of a question is therefore a sum of effects: one for each set of factors, and one for each such set
together with the question. The variances of these effects are estimated by equating mean squares to their
expectations, with factors and questions as random effects. This is a balanced crossed random-effects design (Searle,
Casella and McCulloch, 1992, Variance Components, chapter 4), in which an order is nested in the demonstrations that it
orders; generalizability theory calls it a G study (Brennan, 2001). A score is a mean over n questions, so effects that
involve the question are divided by n: they are the sampling error of the test set.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from icl_eval.analysis.designs import SweepCell, is_incidental, nesting, split
from icl_eval.analysis.quasi_f import Axes, Nested, SumOfSquares, own_axes, quasi_f, subsets
from icl_eval.analysis.tables import PlainTable, condition_keys
from icl_eval.metrics.intervals import ROUNDING, FloatArray, spread

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
        expected, count = prod(map(len, factors.values())), len(group.cells)
        if count != expected:
            notes.append(f"variance, {group.where}: {count} of {expected} combinations have a score; all are needed")
            continue
        values = _values(group.cells, factors)
        if values is not None:
            analyses.append(_analyse(group.cells, group.conditions, factors, values))
    return analyses, notes


def variance_table(analyses: Sequence[VarianceAnalysis]) -> PlainTable:
    """Return one row per component of each analysis."""
    conditions = condition_keys(analysis.conditions for analysis in analyses)
    rows = [
        (
            *(analysis.task, analysis.metric, *(analysis.conditions.get(key) for key in conditions)),
            *(JOINED.join(each.factors), each.variance**0.5, each.share, each.p_value),
        )
        for analysis in analyses
        for each in analysis.components
    ]
    return PlainTable("variance", ("task", "metric", *conditions, "component", "stdev", "share", "p"), tuple(rows))


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
    variances = [spread(own) ** 2 for own in values.reshape(-1, values.shape[-1])]
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
        test_set_stderr=float((np.mean(variances) / values.shape[-1]) ** 0.5),
        components=variance_components(values, tuple(factors), nesting(factors)),
        level_means={
            factor: dict(zip(levels, means[factor].tolist(), strict=True)) for factor, levels in factors.items()
        },
    )


def variance_components(
    values: FloatArray, factors: Sequence[str], nested: tuple[str, str] | None = None
) -> tuple[Component, ...]:
    """Return the variance components of a score that is a mean over questions.

    Args:
        values: One value per combination and question, `[levels of the first factor, …, num_questions]`.
        factors: Names of all axes but the last.
        nested: A factor whose levels are drawn anew within each level of its host, and the host. An effect that
            depends on both is attributed to the nested factor alone.
    """
    names = [*factors, QUESTIONS]
    inside = Nested(*map(names.index, nested)) if nested else None
    crossed = {axes: _sum_of_squares(values, axes) for axes in subsets(range(values.ndim))}
    pools: defaultdict[Axes, list[Axes]] = defaultdict(list)
    for axes in crossed:
        pools[own_axes(axes, inside)].append(axes)
    effects = {axes: _pool([crossed[member] for member in members]) for axes, members in pools.items()}
    last = len(factors)
    estimates = {
        axes: sum(_estimate(crossed, member, values.shape) for member in members)
        / (values.shape[-1] if last in axes else 1)
        for axes, members in pools.items()
    }
    total = sum(max(estimate, 0.0) for estimate in estimates.values())
    return tuple(
        Component(
            factors=tuple(names[axis] for axis in axes),
            variance=max(estimates[axes], 0.0),
            share=max(estimates[axes], 0.0) / total if total else 0.0,
            estimate=estimates[axes],
            p_value=None if last in axes else quasi_f(effects, axes, values.ndim, inside),
        )
        for axes in sorted(estimates, key=lambda axes: (last in axes, len(axes), axes))
    )


def _sum_of_squares(values: FloatArray, axes: Axes) -> SumOfSquares:
    effect = values.mean(axis=tuple(axis for axis in range(values.ndim) if axis not in axes), keepdims=True)
    for axis in axes:
        effect = effect - effect.mean(axis=axis, keepdims=True)
    effect[np.abs(effect) < ROUNDING * np.abs(values).max()] = 0.0  # rounding errors must not be tested as effects
    repetitions = values.size / effect.size
    return SumOfSquares(float(repetitions * (effect**2).sum()), prod(values.shape[axis] - 1 for axis in axes))


def _pool(effects: Sequence[SumOfSquares]) -> SumOfSquares:
    return SumOfSquares(sum(effect.squares for effect in effects), sum(effect.degrees for effect in effects))


def _estimate(effects: Mapping[Axes, SumOfSquares], axes: Axes, shape: Sequence[int]) -> float:
    """Solve for one variance: an expected mean square is a sum over all sets of axes that contain its own."""
    holding = [other for other in effects if set(axes) <= set(other)]
    signs = {other: 1 if (len(other) - len(axes)) % 2 == 0 else -1 for other in holding}
    signed = sum(sign * effects[other].mean_square for other, sign in signs.items())
    return signed / prod(length for axis, length in enumerate(shape) if axis not in axes)
