"""Ranking: the interface that all strategies share, and how they break ties."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from icl_eval.demonstrations.encoder import Encoder
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

DECIMALS = 6
"""Number of decimals to which similarities are rounded before comparison, so that float noise decides nothing."""


@dataclass(frozen=True)
class Demonstration:
    """An example that is shown with a question."""

    example: Example
    similarity: float | None = None
    """Similarity to the question, a BM25 score or a cosine; None if the strategy measures none."""


Allowed = Callable[[Example], bool]
"""Whether a question may see a candidate."""

Ranking = Callable[[Example, Allowed], Iterator[Demonstration]]
"""Maps a question to the candidates that it may see, by descending rank; lazily, because most are never needed."""


class Choose(Protocol):
    """Chooses candidates by their vectors, one after the other."""

    def __call__(
        self, vectors: npt.NDArray[np.float32], cosines: npt.NDArray[np.float64], ties: npt.NDArray[np.int64], /
    ) -> Iterator[int]:
        """Yield the rows of the candidates in the order of choice.

        Args:
            vectors: The candidates' vectors of length 1, [candidates, size].
            cosines: Their similarities to the question, [candidates].
            ties: Their positions in the order that breaks ties, [candidates].
        """


class DemonstrationSelector(Protocol):
    """Ranks the pool; the first `num_fewshot` candidates become the demonstrations of a question."""

    @property
    def name(self) -> str:
        """The name of the strategy in a configuration."""

    @property
    def measures_similarity(self) -> bool:
        """Whether demonstrations have a similarity to the question."""

    @property
    def shares_a_draw(self) -> bool:
        """Whether demonstrations are drawn at random, once for all questions."""

    @property
    def keeps_duplicates(self) -> bool:
        """Whether examples with the same text and the same answer are candidates of their own."""

    @property
    def encoder(self) -> Encoder | None:
        """The encoder of questions and pool, which loads model weights; None if the strategy embeds nothing."""

    def ranking(self, task: Task) -> Ranking:
        """Return the function that ranks the pool of a task.

        Raises:
            ConfigError: If the strategy is not applicable to the task.
        """


def draw(seed: int, question_id: str, candidate_id: str) -> bytes:
    """Return the sort key of a candidate in a seeded random order.

    Unlike a shuffle, a hash keeps the relative order of two candidates when other candidates are added or removed.
    With an empty question id the order is the same for all questions; all strategies break ties by this order.
    """
    return hashlib.sha256(f"{seed}\0{question_id}\0{candidate_id}".encode()).digest()


def draw_tie_breaks(pool: Sequence[Example], seed: int) -> npt.NDArray[np.int64]:
    """Return the position of each candidate in the random order that breaks ties, [pool]."""
    rows = sorted(range(len(pool)), key=lambda row: draw(seed, "", pool[row].id))
    positions = np.empty(len(pool), np.int64)
    positions[rows] = np.arange(len(pool))
    return positions


def rank_by_choice(task: Task, encoder: Encoder, seed: int, choose: Choose) -> Ranking:
    """Return a ranking by vectors; the pool is embedded when the first question is ranked."""
    embed_pool = cache(lambda: encoder.embed(task.pool))  # [pool, size]
    ties = draw_tie_breaks(task.pool, seed)

    def rank(question: Example, allowed: Allowed) -> Iterator[Demonstration]:
        rows = [row for row, candidate in enumerate(task.pool) if allowed(candidate)]
        vectors = embed_pool()[rows]  # [candidates, size]
        cosines = round_similarities(vectors @ encoder.embed([question])[0])  # [candidates]
        for chosen in choose(vectors, cosines, ties[rows]):
            yield Demonstration(task.pool[rows[chosen]], float(cosines[chosen]))

    return rank


def round_similarities(similarities: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Round similarities for comparison and for the records."""
    exact = np.asarray(similarities, np.float64)  # convert before rounding: float32 cannot represent 0.1 as closely
    return np.add(np.round(exact, DECIMALS), 0.0, dtype=np.float64)  # adding 0.0 turns -0.0 into 0.0
