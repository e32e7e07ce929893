"""Measurements: applying metrics to the records of a task, during a run and when its records are read again."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from icl_eval.metrics.intervals import FloatArray, pseudo_values
from icl_eval.metrics.likelihood import likelihood_statistics
from icl_eval.metrics.samples import sample_statistics
from icl_eval.metrics.scoring import Metric, NamedStatistics, Statistics, compute_statistics
from icl_eval.runs.records import Record


@dataclass(frozen=True)
class Measurement:
    """The result of one metric for one task of one run."""

    task: str
    metric: str
    higher_is_better: bool
    example_ids: tuple[str, ...]
    """Ids of the examples, in the order of the records; the rows and values of the statistics have the same order."""
    statistics: Statistics

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


def measure_records(task: str, records: Sequence[Record], metrics: Sequence[Metric]) -> list[Measurement]:
    """Measure the records of a task: metrics of their predictions and samples, and scores of their likelihoods.

    Raises:
        DataError: If there is nothing to score, or an example has no references.
    """
    predictions = [record.prediction for record in records]
    references = [record.targets for record in records]
    ids = tuple(record.example_id for record in records)
    named: list[NamedStatistics] = []
    for each in metrics:
        named.append((each.name, each.higher_is_better, compute_statistics(each, predictions, references)))
        named += sample_statistics(each, records)
    return [
        Measurement(task, name, higher_is_better, ids, statistics)
        for name, higher_is_better, statistics in (*named, *likelihood_statistics(records))
    ]
