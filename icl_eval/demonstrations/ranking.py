"""Ranking: the interface that all strategies share, and how they break ties."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from icl_eval.demonstrations.encoder import Encoder
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

DECIMALS = 6
"""Number of decimals to which similarities are rounded before comparison, so that float noise decides nothing."""

_FIRST_LOOK = 64


@dataclass(frozen=True)
class Demonstration:
    """An example that is shown with a question."""

    example: Example
    similarity: float | None = None
    """Similarity to the question, a BM25 score or a cosine; None if the strategy measures none."""


Allowed = npt.NDArray[np.bool_]
"""Which candidates of the pool a question may see, [pool]."""

Ranking = Callable[[Example, Allowed], Iterator[Demonstration]]
"""Maps a question to the candidates that it may see, by descending rank; lazily, because most are never needed."""


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


def random_key(seed: int, question_id: str, candidate_id: str) -> bytes:
    """Return the sort key of a candidate in a seeded random order.

    Unlike a shuffle, a hash keeps the relative order of two candidates when other candidates are added or removed.
    With an empty question id the order is the same for all questions; all strategies break ties by this order.
    """
    return hashlib.sha256(f"{seed}\0{question_id}\0{candidate_id}".encode()).digest()


def draw_order(pool: Sequence[Example], seed: int) -> npt.NDArray[np.int64]:
    """Return the rows of a pool in the random order that all questions share, [pool]."""
    return np.array(sorted(range(len(pool)), key=lambda row: random_key(seed, "", pool[row].id)), np.int64)


def draw_tie_breaks(pool: Sequence[Example], seed: int) -> npt.NDArray[np.int64]:
    """Return the position of each candidate in the random order that breaks ties, [pool]."""
    positions = np.empty(len(pool), np.int64)
    positions[draw_order(pool, seed)] = np.arange(len(pool))
    return positions


def keep_allowed(rows: npt.NDArray[np.int64], allowed: Allowed) -> Iterator[int]:
    """Yield those of the given rows that a question may see, in their order, without looking at all of them."""
    start, size = 0, _FIRST_LOOK
    while start < len(rows):
        part = rows[start : start + size]
        yield from part[allowed[part]].tolist()
        start, size = start + size, 4 * size


def round_similarities(similarities: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Round similarities for comparison and for the records."""
    exact = np.asarray(similarities, np.float64)  # convert before rounding: float32 cannot represent 0.1 as closely
    return np.add(np.round(exact, DECIMALS), 0.0, dtype=np.float64)  # adding 0.0 turns -0.0 into 0.0
