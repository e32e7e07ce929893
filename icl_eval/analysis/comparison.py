"""Compare finished runs with a baseline, question by question, from their records alone.

Runs that differ in seeds alone are draws of one condition, and conditions are compared: over draws and questions if
both have two or more draws in common, otherwise over the questions of one draw, which says nothing about other draws.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from icl_eval.analysis.conditions import Condition, SharedDraws, list_conditions_to_compare, pair_draws
from icl_eval.analysis.measurements import Measured, gain, measure_alike
from icl_eval.analysis.significance import holm
from icl_eval.analysis.tables import PlainTable
from icl_eval.analysis.testing import OTHERS, RESAMPLED, Pair, compare_draws, compare_questions, find_clusters
from icl_eval.errors import DataError
from icl_eval.formatting import count_noun, format_difference, format_p_value, list_names
from icl_eval.metrics.intervals import ROUNDING
from icl_eval.runs.folders import Run

if TYPE_CHECKING:
    import pandas

SCHEMA_VERSION = 2
"""In version 1, p-values were of another method than intervals, and every run was a condition of its own."""


@dataclass(frozen=True)
class Difference:
    """How one condition differs from the baseline in one metric of one task."""

    run: str
    task: str
    metric: str
    higher_is_better: bool
    n: int
    baseline_score: float
    """Score of the baseline, as a mean over the draws that both have."""
    score: float
    difference: float
    """`score` minus `baseline_score`."""
    ci95: tuple[float, float] | None
    """95 % interval by the method of `test`. None for a metric whose statistics cannot be summed over questions, and
    for a score without ends that changes alike for all questions, so that no error is seen."""
    test: str | None
    """`crossed` over draws and questions, if there are several draws (`icl_eval.analysis.crossed`). For one draw, over
    questions: `bonett_price` if every question is right or wrong, `bootstrap_t` if each question has a value, and
    `paired_bootstrap` for a corpus score. None if there is no interval."""
    p_value: float | None
    """Two-sided p-value by the method of `test`: below 0.05 where the interval is without zero."""
    p_adjusted: float | None
    """Holm-adjusted for all tests of the comparison."""
    better: tuple[str, ...]
    """Ids of the questions whose value is better than in the baseline, on average over draws. If questions are right or
    wrong and there is one draw, those that became right."""
    worse: tuple[str, ...]
    draws: int = 1
    """Number of draws of demonstrations that both have. With one, the test is about these prompts: it says nothing
    about another draw."""
    num_clusters: int | None = None
    """The number of clusters of the questions; None if they have none. With clusters, tests and intervals are of whole
    clusters, or of the effective number of questions."""
    others: Mapping[str, float] = field(default_factory=dict)
    """P-values of the classical tests for one draw: `mcnemar` (exact) and `mcnemar_mid_p`; `sign_flip`, which tests
    whether differences are symmetric about zero; `approximate_randomisation`."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """The content of `compare.json`."""

    schema_version: int
    baseline: str
    """The condition that the others are compared with: the folder of a run, or a name for its draws."""
    runs: tuple[str, ...]
    """The other conditions."""
    seed: int
    num_resamples: int
    left_out: tuple[str, ...]
    """Tasks, and metrics such as `qa: token_f1`, that are missing from at least one run."""
    differences: tuple[Difference, ...]
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The folders of each condition's runs."""
    notes: tuple[str, ...] = ()
    """What a reader of the tests should know."""

    @property
    def table(self) -> "pandas.DataFrame":
        """The differences as a data frame, with one row per run, task and metric."""
        return difference_table(self.differences).to_frame()

    def __repr__(self) -> str:
        descriptions = [f"{Path(each.run).name} {_describe(each)}" for each in self.differences]
        return f"<Comparison with {self.baseline}: {list_names(descriptions) or 'no metric in common'}>"

    def _repr_html_(self) -> str:
        """Return the table of differences for display in a notebook."""
        return difference_table(self.differences).to_html()


def _describe(difference: Difference) -> str:
    p_value = "" if difference.p_adjusted is None else f" (adjusted p {format_p_value(difference.p_adjusted)})"
    return f"{difference.task} {difference.metric} {format_difference(difference.difference)}{p_value}"


def difference_table(differences: Sequence[Difference]) -> PlainTable:
    """Return one row per difference, including the number of questions that became better and worse."""
    return PlainTable(
        "differences",
        (
            *("run", "task", "metric", "higher_is_better", "n", "baseline", "score", "difference"),
            *("ci95 low", "ci95 high", "test", "draws", "p", "adjusted p", "better", "worse"),
            *OTHERS,
        ),
        tuple(
            (
                *(Path(each.run).name, each.task, each.metric, each.higher_is_better, each.n),
                *(each.baseline_score, each.score, each.difference, *(each.ci95 or (None, None))),
                *(each.test, each.draws, each.p_value, each.p_adjusted, len(each.better), len(each.worse)),
                *(each.others.get(name) for name in OTHERS),
            )
            for each in differences
        ),
    )


def compare_runs(runs: Sequence[Run], seed: int = 0, num_resamples: int = 10_000) -> Comparison:
    """Compare runs with the first one, or conditions with that of the first run.

    Args:
        runs: Two or more runs on the same data and questions.
        seed: Seed of the resampling.
        num_resamples: Number of resampled corpora per interval and of random exchanges per test.

    Raises:
        DataError: When the runs cannot be compared because their data, questions, references or metrics differ, when
            records are missing, or when conditions have several draws and none in common.
    """
    first = runs[0]
    tasks = tuple(task for task in first.report.results if all(task in run.report.results for run in runs))
    if not tasks:
        raise DataError(f"{first.folder}: has no task in common with the other runs, so nothing can be compared")
    measured = measure_alike(runs, tasks)
    baseline, *others = list_conditions_to_compare(runs)
    paired = [(other, pair_draws(baseline, other)) for other in others]
    differences = [
        difference
        for other, shared in paired
        for difference in _compare(other.name, shared, measured, seed, num_resamples)
    ]
    return Comparison(
        schema_version=SCHEMA_VERSION,
        baseline=baseline.name,
        runs=tuple(other.name for other in others),
        seed=seed,
        num_resamples=num_resamples,
        left_out=_find_left_out(runs, tasks),
        differences=_adjust(differences),
        members={each.name: tuple(str(run.folder) for run in each.runs) for each in (baseline, *others)},
        notes=tuple(_list_notes(paired, differences, num_resamples)),
    )


def _list_notes(
    paired: Sequence[tuple[Condition, SharedDraws]], differences: Sequence[Difference], num_resamples: int
) -> Iterator[str]:
    for other, shared in paired:
        if shared.num_unshared:
            left_out = count_noun(shared.num_unshared, "run")
            yield f"{Path(other.name).name}: {left_out} left out, of draws that only one of the two conditions has"
    one_draw = [shared for _, shared in paired if len(shared.draws) == 1]
    if any(run.report.run.one_draw for shared in one_draw for pairs in shared.draws for pair in pairs for run in pair):
        yield (
            "a test of one draw is about these prompts: another draw of demonstrations can turn it round (give both "
            "sides several draws, such as experiment=draws)"
        )
    num_tests = sum(each.p_value is not None for each in differences)
    if num_tests > 0.05 * (num_resamples + 1) and any(each.test in RESAMPLED for each in differences):
        yield (
            f"num_resamples={num_resamples}: no adjusted p-value of a resampling test can be below "
            f"{num_tests / (num_resamples + 1):.2g}, with {num_tests} tests; use {40 * num_tests} or more"
        )


def _find_left_out(runs: Sequence[Run], tasks: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the tasks and metrics that only some of the runs have."""
    everything = dict.fromkeys(task for run in runs for task in run.report.results)
    missing = [task for task in everything if task not in tasks]
    for task in tasks:
        scored = [run.report.results[task].metrics for run in runs]
        every_metric = dict.fromkeys(name for metrics in scored for name in metrics)
        missing += [f"{task}: {name}" for name in every_metric if not all(name in metrics for metrics in scored)]
    return tuple(missing)


def _compare(name: str, shared: SharedDraws, measured: Measured, seed: int, num_resamples: int) -> Iterator[Difference]:
    """Yield the difference in each metric that all of the runs have."""
    draws = [[(measured[before.folder], measured[after.folder]) for before, after in pairs] for pairs in shared.draws]
    sides = [side for pairs in draws for pair in pairs for side in pair]
    for key in draws[0][0][1]:
        if all(key in side for side in sides):
            pairs = [[(before[key], after[key]) for before, after in own] for own in draws]
            yield _find_difference(name, pairs, seed, num_resamples)


def _find_difference(name: str, draws: Sequence[Sequence[Pair]], seed: int, num_resamples: int) -> Difference:
    """Return the difference in one metric, given its pairs of measurements by draw."""
    pairs = [pair for own in draws for pair in own]
    other = pairs[0][1]
    clusters = find_clusters(pairs)
    result = compare_draws(draws) if len(draws) > 1 else compare_questions(*pairs[0], seed, num_resamples)
    better, worse = _find_changed_questions(pairs)
    scores = [float(np.mean([pair[side].score for pair in pairs])) for side in (0, 1)]
    return Difference(
        run=name,
        task=other.task,
        metric=other.metric,
        higher_is_better=other.higher_is_better,
        n=len(other.example_ids),
        baseline_score=scores[0],
        score=scores[1],
        difference=scores[1] - scores[0],
        ci95=result.ci95,
        test=result.test,
        p_value=result.p_value,
        p_adjusted=None,
        better=better,
        worse=worse,
        draws=len(draws),
        num_clusters=None if clusters is None else len(set(clusters)),
        others=result.others,
    )


def _find_changed_questions(pairs: Sequence[Pair]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the ids of the questions that became better, and of those that became worse."""
    gains: dict[str, float] = {}
    for baseline, other in pairs:
        before, after = baseline.own_values, other.own_values
        for question in after:
            gains[question] = gains.get(question, 0.0) + gain(before[question], after[question])
    changed = {each: size for each, size in gains.items() if abs(size) > ROUNDING}
    return tuple(each for each in changed if changed[each] > 0), tuple(each for each in changed if changed[each] < 0)


def _adjust(differences: Sequence[Difference]) -> tuple[Difference, ...]:
    p_values = [each.p_value for each in differences if each.p_value is not None]
    adjusted = iter(holm(p_values))
    return tuple(each if each.p_value is None else replace(each, p_adjusted=next(adjusted)) for each in differences)
