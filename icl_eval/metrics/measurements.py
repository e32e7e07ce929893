"""Measurements: applying metrics to the records of a task, during a run and when its records are read again."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from icl_eval.errors import DataError
from icl_eval.metrics.intervals import FloatArray, pseudo_values
from icl_eval.metrics.likelihood import likelihood_statistics
from icl_eval.metrics.means import stored_statistics
from icl_eval.metrics.samples import sample_statistics
from icl_eval.metrics.scoring import (
    Metric,
    NamedStatistics,
    Statistics,
    compute_statistics,
    score_statistics,
    value_alone,
)
from icl_eval.runs.records import Record, clusters_of
from icl_eval.runs.reports import MetricResult


@dataclass(frozen=True)
class Measurement:
    """The result of one metric for one task of one run."""

    task: str
    metric: str
    higher_is_better: bool
    example_ids: tuple[str, ...]
    """Ids of the examples, in the order of the records; the rows and values of the statistics have the same order."""
    statistics: Statistics
    clusters: tuple[str, ...] | None = None
    """The cluster of each example; None if examples are independent."""

    @property
    def score(self) -> float:
        """The score of the whole corpus."""
        return self.statistics.value

    @cached_property
    def values(self) -> FloatArray | None:
        """One value per question, `[num_examples]`, whose mean is the score; None if the metric has no such values.

        If the score is a mean, these are the values of the questions. For other metrics with additive statistics they
        are jackknife pseudo-values; see `icl_eval.metrics.intervals.pseudo_values`.
        """
        if self.statistics.is_mean:
            return np.array(self.statistics.per_example, dtype=np.float64)
        if self.statistics.score_sums is None or len(self.example_ids) < 2:
            return None
        return pseudo_values(self.statistics.rows, self.statistics.score_sums)

    @property
    def own_values(self) -> dict[str, float | None]:
        """The metric of each question alone, such as sentence BLEU, with a sign that makes higher better, or None."""
        sign = 1.0 if self.higher_is_better else -1.0
        values = zip(self.example_ids, self.statistics.per_example, strict=True)
        return {example_id: None if value is None else sign * value for example_id, value in values}


class RecordMetrics(Protocol):
    """Computes several scores from whole records, where a metric compares predictions with references."""

    def measure(self, records: Sequence[Record]) -> Iterable[NamedStatistics]:
        """Yield the scores of records."""


def measure_records(
    task: str, records: Sequence[Record], metrics: Sequence[Metric], more: RecordMetrics | None = None
) -> list[Measurement]:
    """Measure the records of a task: metrics of their predictions and samples, and scores of their likelihoods.

    Args:
        task: The name of the task.
        records: Its records.
        metrics: The metrics of predictions.
        more: Metrics of whole records.

    Raises:
        DataError: If there is nothing to score, or an example has no references.
    """
    predictions = [record.prediction for record in records]
    references = [record.targets for record in records]
    ids, clusters = tuple(record.example_id for record in records), clusters_of(records)
    named: list[NamedStatistics] = []
    for each in metrics:
        named.append((each.name, each.higher_is_better, compute_statistics(each, predictions, references)))
        named += sample_statistics(each, records)
    return [
        Measurement(task, name, higher_is_better, ids, statistics, clusters)
        for name, higher_is_better, statistics in (
            *named,
            *(more.measure(records) if more else ()),
            *likelihood_statistics(records),
        )
    ]


def measure_result(task: str, records: Sequence[Record], name: str, result: MetricResult) -> Measurement:
    """Return the measurement of a metric whose code is not run again, from the records and its result in the report.

    If the report says that the records store the metric's values, they are the measurement. Otherwise only the score is
    known.

    Raises:
        DataError: If a record lacks a value that it should store.
    """
    ids = tuple(record.example_id for record in records)
    if result.stored:
        statistics = stored_statistics([_read_value(task, record, name) for record in records], result.signature)
    else:
        statistics = value_alone(result.score, len(ids), result.signature)
    return Measurement(task, name, result.higher_is_better, ids, statistics, clusters_of(records))


def _read_value(task: str, record: Record, name: str) -> float:
    value = record.metrics.get(name)
    if value is None:
        raise DataError(
            f"task '{task}', question {record.example_id!r}: the record has no value of {name}, but the report says "
            "that records store its values"
        )
    return value


@dataclass(frozen=True)
class ScoredRecords:
    """The records of a task with their scores, and the results of the task's metrics."""

    records: tuple[Record, ...]
    results: Mapping[str, MetricResult]
    unparsed: Mapping[str, int]
    """By metric, the number of predictions in which it found nothing to compare."""


def score_measurements(records: Sequence[Record], measurements: Sequence[Measurement], seed: int) -> ScoredRecords:
    """Turn measurements into scores with intervals, and write the value of each example into its record.

    Args:
        records: The measured records, in the order of the measurements' examples.
        measurements: The measurements of the records.
        seed: The seed of the bootstrap.
    """
    results, unparsed = {}, {}
    for each in measurements:
        score = score_statistics(each.metric, each.higher_is_better, each.statistics, seed, clusters=each.clusters)
        results[each.metric] = MetricResult(
            score.value,
            score.stderr,
            score.ci95,
            score.signature,
            score.higher_is_better,
            stored=each.statistics.is_stored,
            method=score.method,
            smoothed=score.is_smoothed,
        )
        if score.unparsed is not None:
            unparsed[each.metric] = score.unparsed
    scored = tuple(
        replace(record, metrics={each.metric: each.statistics.per_example[row] for each in measurements})
        for row, record in enumerate(records)
    )
    return ScoredRecords(scored, results, unparsed)
