"""Compare finished runs with a baseline, question by question, from their records alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from icl_eval.analysis.measurements import gain, measure
from icl_eval.analysis.significance import (
    Paired,
    approximate_randomisation,
    bootstrap_difference,
    clustered_share_difference_interval,
    holm,
    mcnemar,
    share_difference_interval,
    sign_flip,
)
from icl_eval.analysis.tables import PlainTable
from icl_eval.errors import DataError
from icl_eval.formatting import format_difference, format_p_value, list_names
from icl_eval.metrics.intervals import sum_by_cluster
from icl_eval.metrics.measurements import Measurement
from icl_eval.runs.folders import Run
from icl_eval.runs.records import Record
from icl_eval.runs.reports import MetricResult

if TYPE_CHECKING:
    import pandas

SCHEMA_VERSION = 1
_MAX_SHOWN = 60


@dataclass(frozen=True)
class Difference:
    """How one run differs from the baseline in one metric of one task."""

    run: str
    task: str
    metric: str
    higher_is_better: bool
    n: int
    baseline_score: float
    score: float
    difference: float
    """`score` minus `baseline_score`."""
    ci95: tuple[float, float] | None
    """Interval over questions, or over their clusters: Bonett and Price's if every question is right or wrong, with the
    effective number of questions in clusters; otherwise percentiles of the paired bootstrap. None for a metric whose
    statistics cannot be summed over questions, and for scores that are smoothing alone."""
    test: str | None
    """`mcnemar` (exact) if every question is right or wrong, `sign_flip` if each question has a value, and
    `approximate_randomisation` for a corpus score. With clusters whole clusters are flipped or exchanged, also where
    every question is right or wrong (`sign_flip`). None if there is no interval."""
    p_value: float | None
    """Two-sided."""
    p_adjusted: float | None
    """Holm-adjusted for all tests of the comparison."""
    better: tuple[str, ...]
    """Ids of the questions whose value is better than in the baseline. If questions are right or wrong, those that
    became right."""
    worse: tuple[str, ...]
    num_clusters: int | None = None
    """The number of clusters of the questions; None if they have none."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """The content of `compare.json`."""

    schema_version: int
    baseline: str
    runs: tuple[str, ...]
    seed: int
    num_resamples: int
    left_out: tuple[str, ...]
    """Tasks, and metrics such as `qa: token_f1`, that are missing from at least one run."""
    differences: tuple[Difference, ...]

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
            *("ci95 low", "ci95 high", "test", "p", "adjusted p", "better", "worse"),
        ),
        tuple(
            (
                *(Path(each.run).name, each.task, each.metric, each.higher_is_better, each.n),
                *(each.baseline_score, each.score, each.difference, *(each.ci95 or (None, None))),
                *(each.test, each.p_value, each.p_adjusted, len(each.better), len(each.worse)),
            )
            for each in differences
        ),
    )


def compare_runs(runs: Sequence[Run], seed: int = 0, num_resamples: int = 10_000) -> Comparison:
    """Compare runs with the first one.

    Args:
        runs: Two or more runs on the same data and questions.
        seed: Seed of the resampling.
        num_resamples: Number of resampled corpora per interval and of random exchanges per test.

    Raises:
        DataError: When the runs cannot be compared because their data, questions, references or metrics differ, or
            when records are missing.
    """
    baseline, *others = runs
    tasks = tuple(task for task in baseline.report.results if all(task in run.report.results for run in others))
    if not tasks:
        raise DataError(f"{baseline.folder}: has no task in common with the other runs, so nothing can be compared")
    for other in others:
        for task in tasks:
            _require_same_questions(baseline, other, task)
    known = {(measured.task, measured.metric): measured for measured in measure(baseline, tasks)}
    differences = [
        _compare(str(other.folder), known[measured.task, measured.metric], measured, seed, num_resamples)
        for other in others
        for measured in measure(other, tasks)
        if (measured.task, measured.metric) in known
    ]
    return Comparison(
        schema_version=SCHEMA_VERSION,
        baseline=str(baseline.folder),
        runs=tuple(str(other.folder) for other in others),
        seed=seed,
        num_resamples=num_resamples,
        left_out=_find_left_out(runs, tasks),
        differences=_adjust(differences),
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


def _require_same_questions(baseline: Run, other: Run, task: str) -> None:
    before, after = ({record.example_id: record for record in run.records(task)} for run in (baseline, other))
    if differing := sorted(before.keys() ^ after.keys()):
        raise DataError(
            f"{other.folder}: the questions of task '{task}' differ from those in {baseline.folder}: "
            f"{len(after)} and {len(before)} questions, and {differing[0]!r} is in only one of the runs"
        )
    data = [run.report.provenance.datasets.get(task) for run in (baseline, other)]
    is_foreign = data.count(None) == 1
    for example_id, record in before.items():
        clusters = (after[example_id].cluster, record.cluster)
        if None not in clusters and clusters[0] != clusters[1]:
            raise DataError(
                f"{other.folder}: question {example_id!r} of task '{task}' is in cluster {clusters[0]!r}, but in "
                f"{baseline.folder} in {clusters[1]!r}; score one of them again with the other's fields.cluster"
            )
        if not _is_same_question(record, after[example_id], is_foreign):
            raise DataError(
                f"{other.folder}: question {example_id!r} of task '{task}' differs from the one in {baseline.folder}: "
                f"{_first_difference(record, after[example_id])}"
            )
    if None not in data and data[0] != data[1]:
        raise DataError(f"{other.folder}: the pool or the examples of task '{task}' differ from {baseline.folder}")
    metrics = [run.report.results[task].metrics for run in (baseline, other)]
    for name in metrics[0].keys() & metrics[1].keys():
        if _options(metrics[0][name]) != _options(metrics[1][name]):
            raise DataError(
                f"{other.folder}: the options of {name} of task '{task}' differ from those in {baseline.folder}: "
                f"{metrics[1][name].signature} and {metrics[0][name].signature}"
            )


def _is_same_question(before: Record, after: Record, is_foreign: bool) -> bool:
    """Return whether two records answer the same question.

    If one of them is of another program, which logs other fields, the questions are the same if their references are,
    and all fields that both have.
    """
    if not is_foreign:
        return before.asked == after.asked
    shared = before.doc.keys() & after.doc.keys()
    return before.targets == after.targets and all(before.doc[name] == after.doc[name] for name in shared)


def _options(result: MetricResult) -> list[str]:
    """Return the options of a metric without its version, since `measure` scores all runs again."""
    return [option for option in result.signature.split("|") if not option.startswith("version:")]


def _first_difference(before: Record, after: Record) -> str:
    """Describe the first part of a question on which two records disagree, with both values."""
    parts = [{"references": list(record.targets), **record.doc} for record in (after, before)]
    name = next(name for name in {**parts[0], **parts[1]} if parts[0].get(name) != parts[1].get(name))
    values = [repr(part[name]) if name in part else "none" for part in parts]
    return f"{name}: {' and '.join(text if len(text) <= _MAX_SHOWN else f'{text[:_MAX_SHOWN]}…' for text in values)}"


def _compare(name: str, baseline: Measurement, other: Measurement, seed: int, num_resamples: int) -> Difference:
    clusters = baseline.clusters or other.clusters  # a run of an earlier version does not know them
    result = _test(baseline, other, clusters, seed, num_resamples)
    better, worse = _find_changed_questions(baseline, other)
    return Difference(
        run=name,
        task=other.task,
        metric=other.metric,
        higher_is_better=other.higher_is_better,
        n=len(other.example_ids),
        baseline_score=baseline.score,
        score=other.score,
        difference=other.score - baseline.score,
        ci95=result.ci95,
        test=result.test,
        p_value=result.p_value,
        p_adjusted=None,
        better=better,
        worse=worse,
        num_clusters=None if clusters is None else len(set(clusters)),
    )


@dataclass(frozen=True)
class _TestResult:
    """The result of a significance test of one difference."""

    test: str | None
    p_value: float | None
    ci95: tuple[float, float] | None


def _test(
    baseline: Measurement, other: Measurement, clusters: Sequence[str] | None, seed: int, num_resamples: int
) -> _TestResult:
    before, after = baseline.statistics, other.statistics
    num_examples = len(other.example_ids)
    num_units = num_examples if clusters is None else len(set(clusters))
    if before.is_share and after.is_share and num_units == num_examples:
        pairs = list(zip(before.per_example, after.per_example, strict=True))
        gained, lost = pairs.count((0.0, 1.0)), pairs.count((1.0, 0.0))
        return _TestResult("mcnemar", mcnemar(gained, lost), share_difference_interval(gained, lost, num_examples))
    if after.score_sums is None or num_units < 2 or before.is_smoothed or after.is_smoothed:
        return _TestResult(None, None, None)
    if before.is_share and after.is_share:
        differences = np.array(after.per_example, np.float64) - np.array(before.per_example, np.float64)
        p_value = sign_flip(sum_by_cluster(differences, clusters), seed, num_resamples)
        return _TestResult("sign_flip", p_value, clustered_share_difference_interval(differences, clusters))
    rows = [sum_by_cluster(each.rows, clusters) for each in (before, after)]
    paired = Paired(rows[0], rows[1], after.score_sums)
    interval = bootstrap_difference(paired, seed, num_resamples)
    ends = (interval.low, interval.high)
    if after.is_mean:
        differences = np.array(after.per_example, np.float64) - np.array(before.per_example, np.float64)
        p_value = sign_flip(sum_by_cluster(differences, clusters), seed, num_resamples)
        return _TestResult("sign_flip", p_value, ends)
    return _TestResult("approximate_randomisation", approximate_randomisation(paired, seed, num_resamples), ends)


def _find_changed_questions(baseline: Measurement, other: Measurement) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the ids of the questions that became better, and of those that became worse."""
    before, after = baseline.own_values, other.own_values
    gains = {question: gain(before[question], after[question]) for question in after}
    return tuple(each for each in gains if gains[each] > 0), tuple(each for each in gains if gains[each] < 0)


def _adjust(differences: Sequence[Difference]) -> tuple[Difference, ...]:
    p_values = [each.p_value for each in differences if each.p_value is not None]
    adjusted = iter(holm(p_values))
    return tuple(each if each.p_value is None else replace(each, p_adjusted=next(adjusted)) for each in differences)
