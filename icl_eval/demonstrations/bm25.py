"""The strategy `bm25`."""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from icl_eval.demonstrations.leaks import normalized_text
from icl_eval.demonstrations.ranking import Allowed, Demonstration, Ranking, draw_tie_breaks, round_similarities
from icl_eval.demonstrations.searching import best_first
from icl_eval.targets import Seed
from icl_eval.tasks.examples import Example, compute_once
from icl_eval.tasks.loading import Task


@dataclass(frozen=True)
class Bm25Demonstrations:
    """The candidates with the highest BM25 score for the question.

    The score is Lucene's variant of Okapi BM25 with k1=1.5 and b=0.75 (Robertson and Zaragoza, 2009), as the package
    `bm25s` computes it, over all input fields of question and candidate. All words count, including stop words and
    single characters.
    """

    seed: Seed
    """Seed of the draw that breaks ties."""

    name = "bm25"
    measures_similarity = True
    shares_a_draw = False
    keeps_duplicates = False
    encoder = None

    def ranking(self, task: Task) -> Ranking:
        """Return the ranking by BM25 score; term statistics come from the whole pool."""
        index = compute_once(task.pool, "bm25", None, lambda: _index_words(task.pool))
        ties = draw_tie_breaks(task.pool, self.seed)

        def rank(question: Example, allowed: Allowed) -> Iterator[Demonstration]:
            scores = index.get_scores(_split_words(question))  # [pool]
            for row, score in best_first(scores, lambda rows: round_similarities(scores[rows]), allowed, ties):
                yield Demonstration(task.pool[row], score)

        return rank


def _index_words(pool: Sequence[Example]) -> Any:
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # on import, bm25s 0.3 sets it to DEBUG
    index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    index.index([_split_words(candidate) for candidate in pool], show_progress=False)
    return index


def _split_words(example: Example) -> list[str]:
    return re.findall(r"\w+", normalized_text(example)) or ["?"]  # bm25s 0.3 fails on an empty list of words
