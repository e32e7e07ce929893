"""Measurements: what metrics find in a task's records, question by question, in a run and whenever it is read again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from icl_eval.metrics.intervals import FloatArray, pseudo_values
from icl_eval.metrics.likelihood import likelihood_statistics
from icl_eval.metrics.scoring import Metric, Statistics, compute_statistics
from icl_eval.runs.records import Record


@dataclass(frozen=True)
class Measurement:
    """One metric of one task of one run."""

    task: str
    metric: str
    higher_is_better: bool
    example_ids: tuple[str, ...]
    """In the order of the records, as are the rows and values of the statistics."""
    statistics: Statistics

    @property
    def score(self) -> float:
        """The score of the whole corpus."""
        return self.statistics.value

    @property
    def values(self) -> FloatArray | None:
        """A value a question whose mean is the score, `[num_examples]`; None where there are none.

        The questions' own values of a metric that is their mean, the jackknife's pseudo-values of any other whose
        statistics add up; see `icl_eval.metrics.intervals.pseudo_values`.
        """
        if self.statistics.is_mean:
            return np.array(self.statistics.per_example, dtype=np.float64)
        if self.statistics.score_sums is None or len(self.example_ids) < 2:
            return None
        return pseudo_values(self.statistics.rows, self.statistics.score_sums)

    @property
    def own_values(self) -> dict[str, float | None]:
        """The value of each question on its own, such as sentence BLEU, larger is better; None where it has none."""
        sign = 1.0 if self.higher_is_better else -1.0
        values = zip(self.example_ids, self.statistics.per_example, strict=True)
        return {example_id: None if value is None else sign * value for example_id, value in values}


def measure_records(task: str, records: Sequence[Record], metrics: Sequence[Metric]) -> list[Measurement]:
    """Measure a task's records, by metrics of their predictions and by the likelihoods that they hold.

    Raises:
        DataError: When there is nothing to score, or an example lacks its references.
    """
    predictions = [record.prediction for record in records]
    references = [record.targets for record in records]
    ids = tuple(record.example_id for record in records)
    measured = [
        Measurement(task, each.name, each.higher_is_better, ids, compute_statistics(each, predictions, references))
        for each in metrics
    ]
    return measured + [
        Measurement(task, name, rises, ids, found) for name, rises, found in likelihood_statistics(records)
    ]
