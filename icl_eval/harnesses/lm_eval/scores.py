"""Scores of lm-evaluation-harness, computed from records by its own filters, metrics and aggregations.

A task has several filters, and each metric is computed after each of them; the names are the harness's, such as
`exact_match,strict-match`. Values are its own to the last digit. A score that is a mean, a perplexity or a corpus score
of sacrebleu also has an interval here.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from icl_eval.errors import DataError
from icl_eval.formatting import describe_error
from icl_eval.harnesses.lm_eval.documents import explaining, metric_name, metric_signature
from icl_eval.harnesses.lm_eval.registry import library_version
from icl_eval.harnesses.lm_eval.tasks import HarnessTask
from icl_eval.metrics.likelihood import perplexities
from icl_eval.metrics.means import stored_statistics
from icl_eval.metrics.scoring import Metric, NamedStatistics, Statistics, value_alone
from icl_eval.runs.records import Record

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HarnessScores:
    """Computes all scores of a task from its records."""

    harness_task: HarnessTask

    def measure(self, records: Sequence[Record]) -> Iterator[NamedStatistics]:
        """Yield the scores of records by metric and filter.

        A score that cannot be aggregated or is not a finite number is left out with a warning.

        Raises:
            DataError: If the task's own code fails.
        """
        source, name = self.harness_task.source, self.harness_task.task.name
        with explaining(name, "its own scoring failed"):
            values = self._collect_values(records)
        directions = source.higher_is_better()
        for (metric, filter_name), items in values.items():
            signature = metric_signature(metric, filter_name, name, source.VERSION, library_version())
            try:
                statistics = _aggregate(source.aggregation().get(metric), items, signature)
            except Exception as error:  # Python of the task; its other scores are not lost
                logger.warning(f"{name}: {metric},{filter_name} is left out: {describe_error(error)}")
                continue
            if not math.isfinite(statistics.value):
                logger.warning(f"{name}: {metric},{filter_name} is left out: its value is {statistics.value}")
                continue
            yield metric_name(metric, filter_name), bool(directions.get(metric, True)), statistics

    def _collect_values(self, records: Sequence[Record]) -> Mapping[tuple[str, str], list[Any]]:
        """Return one value per record for each metric and filter, as the harness computes it."""
        source = self.harness_task.source
        docs = [deepcopy(self.harness_task.docs[record.example_id]) for record in records]  # a task may change them
        requests = []
        for number, (record, doc) in enumerate(zip(records, docs, strict=True)):
            place = (self.harness_task.task.name, number, 1)
            asked = source.construct_requests(doc, "", metadata=place)
            requests.append(asked if isinstance(asked, list) else [asked])
            for request, responses in zip(requests[-1], self._list_responses(record), strict=True):
                request.resps = responses
        together = [request for asked in requests for request in asked]
        values = defaultdict(list)
        for filters in source._filters:
            filters.apply(together)
            for doc, asked in zip(docs, requests, strict=True):
                filtered = [request.filtered_resps[filters.name] for request in asked]
                for metric, value in source.process_results(doc, filtered).items():
                    values[metric, filters.name].append(value)
        return values

    def _list_responses(self, record: Record) -> list[list[Any]]:
        """Return what the model answered to each request of a document: one answer, or one for each sample."""
        if self.harness_task.kind == "generate_until":
            return [[sample.completion for sample in record.completions]]
        if record.likelihood is None:
            raise DataError(f"{record.example_id}: the record has no likelihoods")
        answers = record.likelihood.choices or record.likelihood.references
        return [[(answer.logprob, answer.is_greedy)] for answer in answers]


def _aggregate(aggregate: Callable[[list[Any]], float] | None, items: list[Any], signature: str) -> Statistics:
    """Return the harness's score of a corpus, with additive statistics where it is known how it adds up."""
    from lm_eval.api import metrics

    aggregate = aggregate or metrics.mean
    try:
        value = float(aggregate(items))
    except OverflowError:
        value = math.inf
    numbers = [float(item) for item in items if isinstance(item, int | float | np.number)]
    if aggregate is metrics.mean and len(numbers) == len(items):
        statistics = stored_statistics(numbers, signature)
    elif aggregate is metrics.perplexity and len(numbers) == len(items):
        rows = np.column_stack([numbers, np.ones(len(numbers))])
        statistics = Statistics(value, rows, perplexities, (None,) * len(numbers), signature)
    elif (equal := _find_equal(aggregate)) is not None:
        statistics = replace(_score_corpus(equal, items), signature=signature)
    else:
        return value_alone(value, len(items), signature)
    if not math.isclose(statistics.value, value, rel_tol=1e-9, abs_tol=1e-9):
        return value_alone(value, len(items), signature)
    return replace(statistics, value=value)


def _find_equal(aggregate: Callable[[list[Any]], float]) -> Metric | None:
    """Return the metric of this package that equals an aggregation of the harness; None if there is none."""
    from lm_eval.api import metrics

    from icl_eval.metrics import BLEU, CHRF, TER  # imports `evaluate`

    if aggregate is metrics.bleu:
        return BLEU()
    if aggregate is metrics.chrf:
        return CHRF()
    return TER() if aggregate is metrics.ter else None


def _score_corpus(metric: Metric, items: Sequence[tuple[Any, str]]) -> Statistics:
    """Return the statistics of pairs of references (one or several) and a prediction."""
    references = [[reference] if isinstance(reference, str) else list(reference) for reference, _ in items]
    return metric.per_example([prediction for _, prediction in items], references)
