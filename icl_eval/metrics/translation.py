"""Statistics of the translation metrics, extracted and scored by sacrebleu itself (Post, 2018).

Three underscored methods of `sacrebleu.metrics.base.Metric` are used, the way `sacrebleu.significance`
uses them: they are the only door to the statistics behind a corpus score.
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
    """Return the statistics of a corpus, 0 to 100 as sacrebleu counts.

    Args:
        scorer: a `sacrebleu.metrics` object, for the corpus.
        sentence_scorer: one with the same statistics, for the value beside each example.
        predictions: one text an example.
        references: one or more texts an example; their number may differ from example to example.
    """
    composed = [[compose(answer) for answer in answers] for answers in references]
    # sacrebleu wants one list a reference position, with None where an example has no further reference.
    positions = list(zip_longest(*composed))
    rows = scorer._extract_corpus_statistics(list(map(compose, predictions)), positions)

    def score_sums(sums: FloatArray) -> FloatArray:
        # sacrebleu's own formula, row by row: 1,000 rows take some 10 ms, too few for a second copy of it.
        scores: FloatArray = np.apply_along_axis(lambda row: _score_row(scorer, row.tolist()), -1, sums)
        return scores

    return Statistics(
        value=float(scorer._aggregate_and_compute(rows).score),
        rows=np.array(rows, dtype=np.float64),
        score_sums=score_sums,
        per_example=tuple(_score_row(sentence_scorer, row) for row in rows),
        signature=f"{scorer.get_signature()}|unicode:nfc",  # only known now: it holds the number of references
    )


def _score_row(scorer: Any, row: list[float]) -> float:
    return float(scorer._compute_score_from_stats(row).score)
