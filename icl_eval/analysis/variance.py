"""Variance: how much of the spread of a score each incidental option is responsible for, and the test set.

Every level of every factor (seed, order, template …) meets every other and the same questions, so a question's
value is a sum of effects: one for each set of factors, and one for each such set together with the question. Their
variances are estimated by setting mean squares to their expectations, factors and questions taken as random draws
(balanced crossed random-effects design: Searle, Casella and McCulloch, 1992, Variance Components, chapter 4; an
order is nested in the demonstrations that it orders; in generalizability theory a G study, Brennan, 2001). A score
is a mean over n questions, so effects that involve the question count by one n-th: they are the sampling error of
the test set.
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
"""Between the names of options that act together."""


@dataclass(frozen=True)
class Component:
    """What one factor, or several of them acting together, add to the variance of a score."""

    factors: tuple[str, ...]
    """`("seed",)`; `("seed", "template")` for what only their combination explains; with `questions` among them,
    what another sample of questions would change. Orders are drawn within draws of demonstrations, so what depends on
    both is the order's."""
    variance: float
    """In squared units of the score; an estimate below zero counts as 0."""
    share: float
    """Of the sum of all components."""
    estimate: float
    """The estimate before it was cut at zero."""
    p_value: float | None
    """How probable differences as large as these would be if this component were zero, whatever larger effects with
    questions, other factors or orders within it there are: see `icl_eval.analysis.quasi_f`. None for components with
    questions."""


@dataclass(frozen=True)
class CellScore:
    """One cell of the design."""

    options: Mapping[str, str]
    score: float


@dataclass(frozen=True)
class VarianceAnalysis:
    """The spread of one metric of one task over a crossed design."""

    task: str
    metric: str
    higher_is_better: bool
    conditions: Mapping[str, str]
    """The values of the sweep's other options, where there are any: there is an analysis for each."""
    factors: Mapping[str, tuple[str, ...]]
    """By factor, its levels."""
    n: int
    """Questions behind each score."""
    mean: float
    """Over all cells."""
    stdev: float
    """Of the cells' scores (n - 1)."""
    worst: CellScore
    best: CellScore
    test_set_stderr: float
    """Standard error of one score over another sample of questions: root mean square over cells."""
    components: tuple[Component, ...]
    """Factors alone, then their interactions, then the same with the questions."""
    level_means: Mapping[str, Mapping[str, float]]
    """By factor and level, the mean score over everything else."""

    @property
    def shares(self) -> dict[str, float]:
        """The share of each option, of options together, and of all that involves the questions, as `TEST_SET`."""
        shares: dict[str, float] = {}
        for component in self.components:
            label = TEST_SET if QUESTIONS in component.factors else JOINED.join(component.factors)
            shares[label] = shares.get(label, 0.0) + component.share
        return shares


def variance_analyses(cells: Sequence[SweepCell]) -> tuple[list[VarianceAnalysis], list[str]]:
    """Return an analysis for each combination of the sweep's conditions, and notes on what could not be analysed.

    Args:
        cells: One metric of one task, on the same questions.
    """
    analyses, notes = [], []
    for group in split(cells, is_incidental):
        if group.gap:
            notes.append(f"variance, {group.where}: {group.gap}")
        levels = {key: tuple(dict.fromkeys(cell.options[key] for cell in group.cells)) for key in group.options}
        factors = {key: values for key, values in levels.items() if len(values) > 1}
        if not factors:
            continue
        expected, found = prod(map(len, factors.values())), len(group.cells)
        if found != expected:
            notes.append(f"variance, {group.where}: {found} of {expected} combinations have a score; all are needed")
            continue
        values = _values(group.cells, factors)
        if values is not None:
            analyses.append(_analyse(group.cells, group.conditions, factors, values))
    return analyses, notes


def variance_table(analyses: Sequence[VarianceAnalysis]) -> PlainTable:
    """Return a row for each component of each analysis."""
    conditions = condition_keys(found.conditions for found in analyses)
    rows = [
        (
            *(found.task, found.metric, *(found.conditions.get(key) for key in conditions)),
            *(JOINED.join(each.factors), each.variance**0.5, each.share, each.p_value),
        )
        for found in analyses
        for each in found.components
    ]
    return PlainTable("variance", ("task", "metric", *conditions, "component", "stdev", "share", "p"), tuple(rows))


def _values(cells: Sequence[SweepCell], factors: Mapping[str, tuple[str, ...]]) -> FloatArray | None:
    """Return a value for each combination and question, `[levels, …, num_questions]`."""
    shape = [len(levels) for levels in factors.values()]
    values = np.empty([*shape, len(cells[0].measurement.example_ids)])
    for cell in cells:
        found = cell.measurement.values
        if found is None or len(found) < 2:
            return None
        values[_place(cell, factors)] = found
    return values


def _place(cell: SweepCell, factors: Mapping[str, tuple[str, ...]]) -> tuple[int, ...]:
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
    """Return the components of the variance of a score, which is a mean over the questions.

    Args:
        values: One value a combination and question, `[levels of the first factor, …, num_questions]`.
        factors: The names of all axes but the last.
        nested: A factor whose levels are drawn anew within each level of another one, and that other one. What
            depends on both is then an effect of the first alone.
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
    effect[np.abs(effect) < ROUNDING * np.abs(values).max()] = 0.0  # else noise would be tested against noise
    repetitions = values.size / effect.size
    return SumOfSquares(float(repetitions * (effect**2).sum()), prod(values.shape[axis] - 1 for axis in axes))


def _pool(effects: Sequence[SumOfSquares]) -> SumOfSquares:
    return SumOfSquares(sum(effect.squares for effect in effects), sum(effect.degrees for effect in effects))


def _estimate(effects: Mapping[Axes, SumOfSquares], axes: Axes, shape: Sequence[int]) -> float:
    """Solve for one variance: an expected mean square is the sum over all sets that hold its axes."""
    holding = [other for other in effects if set(axes) <= set(other)]
    signs = {other: 1 if (len(other) - len(axes)) % 2 == 0 else -1 for other in holding}
    signed = sum(sign * effects[other].mean_square for other, sign in signs.items())
    return signed / prod(length for axis, length in enumerate(shape) if axis not in axes)
