"""Statistics of translation metrics, scored by sacrebleu itself (Post, 2018).

This module calls underscored methods of `sacrebleu.metrics.base.Metric`, like `sacrebleu.significance` does, because
sacrebleu has no public access to the statistics behind a corpus score.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from icl_eval.metrics.intervals import FloatArray
from icl_eval.metrics.scoring import Statistics
from icl_eval.metrics.strings import compose


def translation_statistics(
    scorer: Any, sentence_scorer: Any, predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> Statistics:
    """Return the statistics of a corpus, on sacrebleu's scale of 0 to 100.

    Args:
        scorer: A `sacrebleu.metrics` object that scores the corpus.
        sentence_scorer: An object with the same statistics that scores each example.
        predictions: One string per example.
        references: One or more strings per example; their number may differ between examples.
    """
    composed = [[compose(answer) for answer in answers] for answers in references]
    # sacrebleu expects one list per reference position, padded with None for examples with fewer references
    positions = list(zip_longest(*composed))
    rows = scorer._extract_corpus_statistics(list(map(compose, predictions)), positions)
    return summable_statistics(scorer, rows, [_score_row(sentence_scorer, row) for row in rows])


def summable_statistics(scorer: Any, rows: Sequence[Sequence[float]], values: Sequence[float]) -> Statistics:
    """Return the statistics of a corpus from what sacrebleu adds up.

    Args:
        scorer: A `sacrebleu.metrics` object that scores the corpus and knows its number of references.
        rows: The statistics of each example.
        values: The score of each example.
    """

    def score_sums(sums: FloatArray) -> FloatArray:
        # sacrebleu's own formula row by row: 1,000 rows take about 5 ms, not enough to justify a vectorized copy
        scores = [_score_row(scorer, row.tolist()) for row in sums.reshape(-1, sums.shape[-1])]
        return np.array(scores).reshape(sums.shape[:-1])

    return Statistics(
        value=float(scorer._aggregate_and_compute(rows).score),
        rows=np.array(rows, dtype=np.float64),
        score_sums=score_sums,
        per_example=tuple(values),
        signature=f"{scorer.get_signature()}|unicode:nfc",  # known only now: it includes the number of references
    )


def count_references(references: Sequence[Sequence[str]]) -> int:
    """Return the number of references of each example, or sacrebleu's -1 if it varies."""
    numbers = set(map(len, references))
    return numbers.pop() if len(numbers) == 1 else -1


def _score_row(scorer: Any, row: list[float]) -> float:
    return float(scorer._compute_score_from_stats(row).score)
