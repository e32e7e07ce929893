"""Influence: what a demonstration adds to a random set of the others.

The cells of a sweep over seeds ask the same questions, each after another random set of demonstrations. Two estimates
come from their scores alone:

- the mean score of the sets with a demonstration minus the mean score of the sets without it (Nguyen and Wong, 2023,
  In-context Example Selection with Influences, arXiv:2302.11042)
- its coefficient in a linear model of the score on the demonstrations in the set, a datamodel (Ilyas et al., 2022,
  arXiv:2202.00622; Chang and Jia, 2023, Data Curation Alone Can Stabilize In-context Learning, arXiv:2212.10378),
  fitted by ridge regression

The first has an interval. The second takes into account which others happened to be in the same sets, but it is shrunk
towards zero. A set has a fixed size, so both say what a demonstration adds in the place of another one.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from icl_eval.analysis.designs import group_runs, is_drawn
from icl_eval.analysis.measurements import measure
from icl_eval.analysis.significance import simultaneous_level
from icl_eval.analysis.tables import PlainTable, TableValue, condition_keys
from icl_eval.formatting import format_options
from icl_eval.metrics.intervals import FloatArray, spread
from icl_eval.runs.folders import Run
from icl_eval.runs.records import Record

MIN_SETS = 5
"""The smallest number of sets with a demonstration, and without it, for which its influence is estimated."""
_PENALTIES = 10.0 ** np.arange(-4, 5)
"""Penalties of the ridge regression, as multiples of the mean variance of presence times the number of sets."""

ShownTarget = tuple[str, str | None]
"""The id of a demonstration and its target as shown, which a control with another seed changes."""


@dataclass(frozen=True)
class SetEffect:
    """The influence of one demonstration on one measure, in units of the measure.

    It is positive if the demonstration helps, also when lower values are better.
    """

    mean: float
    """The mean score of the sets with the demonstration minus that of the sets without it."""
    ci95: tuple[float, float] | None
    """Interval of `mean` over draws of sets, for these questions: Welch's. All intervals of an analysis and a measure
    hold at once with 95 %: each has a level of 1 - 0.05 / (number of demonstrations), by Bonferroni. None if all sets
    with the demonstration have one score, and all sets without it have one."""
    coefficient: float
    """The coefficient of the demonstration in the linear model of the score."""


@dataclass(frozen=True)
class Influence:
    """The influence of one demonstration."""

    id: str
    target: str | None
    """The answer as shown in the prompts."""
    sets_with: int
    """The number of sets that contain it."""
    sets_without: int
    effects: Mapping[str, SetEffect]
    """Effects by measure."""


@dataclass(frozen=True)
class InfluenceAnalysis:
    """The influence of demonstrations on one task."""

    task: str
    conditions: Mapping[str, str]
    """Values of the other options that vary in the sweep. Each combination has its own analysis."""
    num_sets: int
    """The number of different sets of demonstrations."""
    demonstrations: tuple[Influence, ...]
    """Demonstrations that enough sets contain and lack, the most helpful by the first measure first."""


def influence_analyses(
    runs: Sequence[Run], options: Sequence[Mapping[str, str]]
) -> tuple[list[InfluenceAnalysis], list[str]]:
    """Return an analysis for each task and combination of the other options, and notes on what could not be analysed.

    Runs that differ only in seeds are analysed together, if there are at least 2 · `MIN_SETS` of them.

    Args:
        runs: Finished runs, such as the cells of a sweep.
        options: For each run, the options that distinguish it; see `icl_eval.runs.options`.

    Raises:
        DataError: When records are missing or do not match the report.
    """
    analyses, notes = [], []
    for conditions, members in group_runs(runs, options, is_drawn):
        if len(members) < 2 * MIN_SETS:
            continue
        for task in members[0].report.results:
            read = [(run.records(task), _read_scores(run, task)) for run in members if task in run.report.results]
            sets = [(_find_shared(records), scores) for records, scores in read]
            where = f"influence, {task} {format_options(conditions)}".rstrip()
            if any(shown is None for shown, _ in sets):
                notes.append(f"{where}: no set of demonstrations has a score, since questions have sets of their own")
            elif len({frozenset(record.example_id for record in records) for records, _ in read}) > 1:
                notes.append(f"{where}: cells answered different questions and cannot be analysed together")
            else:
                found = measure_influences([(shown, scores) for shown, scores in sets if shown is not None])
                if found:
                    num_sets = len({shown for shown, _ in sets})
                    analyses.append(InfluenceAnalysis(task, conditions, num_sets, tuple(found)))
    return analyses, notes


def influence_table(analyses: Sequence[InfluenceAnalysis]) -> PlainTable:
    """Return one row per demonstration and measure."""
    conditions = condition_keys(analysis.conditions for analysis in analyses)
    rows: list[tuple[TableValue, ...]] = []
    for analysis in analyses:
        for each in analysis.demonstrations:
            for name, effect in each.effects.items():
                varying = (analysis.conditions.get(key) for key in conditions)
                identity = (analysis.task, *varying, each.id, each.target, name, each.sets_with, each.sets_without)
                rows.append((*identity, effect.mean, *(effect.ci95 or (None, None)), effect.coefficient))
    numbers = ("sets with", "sets without", "influence", "ci95 low", "ci95 high", "coefficient")
    return PlainTable("influence", ("task", *conditions, "demonstration", "target", "measure", *numbers), tuple(rows))


def measure_influences(cells: Sequence[tuple[frozenset[ShownTarget], Mapping[str, float]]]) -> list[Influence]:
    """Return the influence of each demonstration that at least `MIN_SETS` sets contain and as many lack.

    Cells with the same set, such as those of several orders, count as one set with their mean score.

    Args:
        cells: For each cell, its set of demonstrations, and its scores by measure, of which larger ones are better.
    """
    scores: defaultdict[frozenset[ShownTarget], list[Mapping[str, float]]] = defaultdict(list)
    for shown, own in cells:
        scores[shown].append(own)
    names = sorted(set.union(*map(set, scores)), key=lambda name: (name[0], name[1] or "")) if scores else []
    presence = np.array([[name in shown for name in names] for shown in scores], dtype=np.float64)  # [sets, names]
    counts = presence.sum(axis=0)
    known = [column for column, count in enumerate(counts) if MIN_SETS <= count <= len(scores) - MIN_SETS]
    level = simultaneous_level(len(known))
    effects: dict[int, dict[str, SetEffect]] = {column: {} for column in known}
    common = [name for name in cells[0][1] if all(name in own for _, own in cells)] if known else []
    for measured in common:
        values = np.array([np.mean([own[measured] for own in each]) for each in scores.values()])  # [sets]
        coefficients = fit_ridge(presence, values)
        for column in known:
            inside = presence[:, column] > 0
            mean, interval = _compare_means(values[inside], values[~inside], level)
            effects[column][measured] = SetEffect(mean, interval, float(coefficients[column]))
    found = [
        Influence(*names[column], int(counts[column]), int(len(scores) - counts[column]), effects[column])
        for column in known
    ]
    return sorted(found, key=lambda each: -next(iter(each.effects.values())).mean) if common else []


def fit_ridge(presence: FloatArray, values: FloatArray) -> FloatArray:
    """Return the coefficients of a linear model with an intercept, fitted by ridge regression, `[demonstrations]`.

    The penalty is the one of `_PENALTIES` with the smallest error of predicting each set from the others, which the
    hat matrix H gives without refitting: the mean of ((y - Hy) / (1 - diag H))² (Allen, 1974, PRESS,
    https://doi.org/10.2307/1267500).

    Args:
        presence: Whether a set contains a demonstration, `[sets, demonstrations]`.
        values: The scores of the sets, `[sets]`.
    """
    centered, target = presence - presence.mean(axis=0), values - values.mean()
    left, singular, right = np.linalg.svd(centered, full_matrices=False)
    scale = max(float((centered**2).sum() / centered.shape[1]), np.finfo(float).tiny)
    best, smallest = np.zeros(centered.shape[1]), np.inf
    for penalty in _PENALTIES * scale:
        shrinkage = singular**2 / (singular**2 + penalty)
        leverage = 1 / len(values) + (left**2 * shrinkage).sum(axis=1)
        residuals = target - left @ (shrinkage * (left.T @ target))
        error = float(((residuals / np.maximum(1 - leverage, 1e-9)) ** 2).mean())
        if error < smallest:
            smallest, best = error, right.T @ (singular / (singular**2 + penalty) * (left.T @ target))
    return best


def _compare_means(inside: FloatArray, outside: FloatArray, level: float) -> tuple[float, tuple[float, float] | None]:
    """Return the difference of two means and its interval (Welch, 1947, https://doi.org/10.2307/2332510)."""
    from scipy.special import stdtrit

    mean = float(inside.mean() - outside.mean())
    parts = [spread(values) ** 2 / len(values) for values in (inside, outside)]
    variance = sum(parts)
    if variance == 0:
        return mean, None
    degrees = variance**2 / (parts[0] ** 2 / (len(inside) - 1) + parts[1] ** 2 / (len(outside) - 1))
    reach = float(stdtrit(degrees, (1 + level) / 2)) * variance**0.5
    return mean, (mean - reach, mean + reach)


def _find_shared(records: Sequence[Record]) -> frozenset[ShownTarget] | None:
    """Return the set of demonstrations that all questions of a cell share; None if they differ."""
    sets = {frozenset((one.id, one.target) for one in record.demonstrations) for record in records}
    return sets.pop() if len(sets) == 1 else None


def _read_scores(run: Run, task: str) -> dict[str, float]:
    """Return a run's scores by metric, so that larger values are better."""
    return {
        measured.metric: measured.score if measured.higher_is_better else -measured.score
        for measured in measure(run, (task,))
    }
