"""Turn the values of metrics in samples files into measurements.

A score of the harness has an interval only if it is known to be the mean of its values. A results file says so, and its
score must be that mean. Without one, only the metrics that the harness itself always averages are used.

Its BLEU, chrF and TER are scores of a whole corpus. This package computes them again, with intervals, from the same
predictions and references.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from icl_eval.errors import DataError
from icl_eval.harnesses.lm_eval.documents import example_id, metric_name, metric_signature, task_name
from icl_eval.harnesses.lm_eval.groups import score_group
from icl_eval.harnesses.lm_eval.logged_runs import LoggedDocument, LoggedRun, read_results
from icl_eval.metrics.means import stored_statistics
from icl_eval.metrics.measurements import Measurement
from icl_eval.metrics.scoring import Statistics
from icl_eval.runs.records import Record
from icl_eval.runs.reports import GroupResult, TaskResult

logger = logging.getLogger(__name__)

_UNKNOWN = "unknown"

_CORPUS_METRICS: Mapping[str, Mapping[str, Any]] = {
    "bleu": {"name": "bleu", "tokenize": "13a"},
    "chrf": {"name": "chrf"},
    "ter": {"name": "ter", "normalized": False},
}
"""The metrics of this package that equal those of the harness: sacrebleu with its defaults, whatever the language."""

_MEANS = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match")
"""Metrics of the harness that are means, of which more is better, whatever the task."""


@dataclass(frozen=True)
class LoggedResults:
    """What a results file says; nothing if there is none."""

    path: Path | None
    content: Mapping[str, Any]

    @classmethod
    def of(cls, run: LoggedRun) -> "LoggedResults":
        """Read the results of a run; raises DataError if the file is not one."""
        return cls(run.results, read_results(run.results) if run.results else {})

    def find(self, *keys: str) -> Any:
        """Return a nested value; None if it is missing."""
        value: Any = self.content
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def find_number(self, *keys: str, most: float) -> float | None:
        """Return a nested number, which may be written as a string; None if it is missing.

        Raises:
            DataError: If it is no number from 0 to `most`.
        """
        value = self.find(*keys)
        try:
            number = None if value is None else math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if number is not None and not 0 <= number <= most:
            raise DataError(f"{self.path}: {'.'.join(keys)} is {value!r}, but must be a number from 0 to {most:,.0f}")
        return number

    def signature(self, task: str, metric: str, filter_name: str) -> str:
        """Return the signature of a metric of a task."""
        version, library = self.find("versions", task), self.find("lm_eval_version")
        known = [_UNKNOWN if value is None else value for value in (version, library)]
        return metric_signature(metric, filter_name, task_name(task), *known)

    def aggregation(self, task: str, metric: str) -> Any:
        """Return how the task says that a metric is aggregated; None if it does not."""
        listed = self.find("configs", task, "metric_list")
        known = listed if isinstance(listed, list) else ()
        own = [each for each in known if isinstance(each, Mapping) and each.get("metric") == metric]
        return own[0].get("aggregation") if own else None


def measure_documents(task: str, documents: Sequence[LoggedDocument], results: LoggedResults) -> list[Measurement]:
    """Return the measurements of a task's metrics. A metric that cannot be used is left out with a warning.

    Raises:
        DataError: If the values do not belong to the results, or no metric can be used.
    """
    _require_same_size(task, documents, results)
    names = dict.fromkeys(key for document in documents for key in document.values)
    measured = [_measure(task, metric, filter_name, documents, results) for metric, filter_name in names]
    if found := [each for each in measured if each]:
        return found
    raise DataError(f"task '{task}': none of its metrics can be used ({', '.join(metric for metric, _ in names)})")


def find_corpus_metrics(documents: Sequence[LoggedDocument], records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Return the options of the metrics of this package that can compute a corpus score of the harness again.

    The harness must have compared each record's prediction with its only reference.
    """
    pairs = [[*record.targets, record.prediction] for record in records]
    compared = {
        metric: [document.values.get((metric, filter_name)) for document in documents]
        for metric, filter_name in documents[0].values
        if metric in _CORPUS_METRICS
    }
    return {metric: {**_CORPUS_METRICS[metric]} for metric, values in compared.items() if values == pairs}


def find_groups(logged: LoggedResults, results: Mapping[str, TaskResult]) -> dict[str, GroupResult]:
    """Return the groups of which all tasks are imported, with the scores and standard errors of the harness.

    Raises:
        DataError: If the results file does not list groups, or a group is in itself.
    """
    groups = {}
    listed = logged.find("groups") or {}
    if not isinstance(listed, Mapping) or not all(isinstance(found, Mapping) for found in listed.values()):
        raise DataError(f"{logged.path}: groups is not an object of objects")
    for name, found in listed.items():
        tasks = [task_name(task) for task in _list_leaves(logged, name, ())]
        if all(task in results for task in tasks):
            group = score_group(name, found, {task: results[task] for task in tasks})
            groups.update({name: group} if group else {})
    return groups


def _list_leaves(logged: LoggedResults, name: str, above: tuple[str, ...]) -> list[str]:
    """Return the tasks of a group and of the groups in it, given the names of the groups that it is in."""
    if name in above:
        raise DataError(f"{logged.path}: group {name!r} is in itself (group_subtasks)")
    members = logged.find("group_subtasks", name)
    if not isinstance(members, list) or not members:
        return [name]
    return [leaf for member in members for leaf in _list_leaves(logged, str(member), (*above, name))]


def _require_same_size(task: str, documents: Sequence[LoggedDocument], results: LoggedResults) -> None:
    expected = results.find("n-samples", task, "effective")
    if expected is not None and expected != len(documents):
        raise DataError(
            f"{results.path}: says that task '{task}' has {expected} documents, but its samples file has "
            f"{len(documents)}"
        )


def _measure(
    task: str, metric: str, filter_name: str, documents: Sequence[LoggedDocument], results: LoggedResults
) -> Measurement | None:
    name = metric_name(metric, filter_name)
    numbers = [_as_number(document.values.get((metric, filter_name))) for document in documents]
    try:
        statistics = _find_statistics(task, metric, filter_name, numbers, results)
        higher_is_better = _find_direction(task, metric, results)
    except _UnusableError as reason:
        logger.warning("%s: %s is left out; %s", task, name, reason)
        return None
    ids = tuple(example_id(document.doc_id) for document in documents)
    return Measurement(task_name(task), name, higher_is_better, ids, statistics)


class _UnusableError(Exception):
    """A metric cannot be used; the message says why."""


def _find_statistics(
    task: str, metric: str, filter_name: str, numbers: Sequence[float | None], results: LoggedResults
) -> Statistics:
    name, signature = metric_name(metric, filter_name), results.signature(task, metric, filter_name)
    values = [number for number in numbers if number is not None]
    is_whole = len(values) == len(numbers)
    if results.path is None:
        if metric not in _MEANS or not is_whole:
            raise _UnusableError("only the results file of the run says what its score is")
        return stored_statistics(values, signature)
    score = _as_number(results.find("results", task, name))
    if score is None:
        raise _UnusableError(f"{results.path.name} has no score of it")
    aggregation = results.aggregation(task, metric)
    if is_whole and aggregation in (None, "mean"):
        statistics = stored_statistics(values, signature)
        if math.isclose(statistics.value, score, rel_tol=1e-9, abs_tol=1e-9):
            return statistics
    if is_whole and aggregation == "mean":
        raise DataError(
            f"{results.path}: says that {name} of task '{task}' is {score:.6g}, but the mean of the values in its "
            f"samples file is {statistics.value:.6g}; the files do not belong together"
        )
    return Statistics(score, np.empty((len(numbers), 0)), None, tuple(numbers), signature)


def _find_direction(task: str, metric: str, results: LoggedResults) -> bool:
    stated = results.find("higher_is_better", task, metric)
    if not isinstance(stated, bool) and metric not in _MEANS:
        raise _UnusableError("nothing says whether higher is better")
    return stated if isinstance(stated, bool) else True


def _as_number(value: Any) -> float | None:
    return float(value) if isinstance(value, Real) and math.isfinite(value) else None
