"""Ranking: what all strategies share, which is how they are asked and how they break ties."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from icl_eval.demonstrations.encoder import Encoder
from icl_eval.tasks.examples import Example, Task

DECIMALS = 6
"""Similarities are compared rounded to these, so that noise in a float's last bits decides nothing."""


@dataclass(frozen=True)
class Demonstration:
    """An example as it is shown to a question."""

    example: Example
    similarity: float | None = None
    """To the question, where the strategy measures one: a BM25 score or a cosine."""


Allowed = Callable[[Example], bool]
"""Whether a question may see a candidate."""

Ranking = Callable[[Example, Allowed], Iterator[Demonstration]]
"""From a question to the candidates that it may see, the most wanted first; lazily, as most are never looked at."""


class DemonstrationSelector(Protocol):
    """Puts a pool into an order; the first `num_fewshot` become a question's demonstrations."""

    @property
    def name(self) -> str:
        """What the strategy is called in a configuration."""

    @property
    def measures_similarity(self) -> bool:
        """Whether demonstrations come with their similarity to the question."""

    @property
    def encoder(self) -> Encoder | None:
        """What embeds questions and pool, where ranking needs that; it loads a model's weights."""

    def ranking(self, task: Task) -> Ranking:
        """Return the function that ranks a task's pool.

        Raises:
            ConfigError: When the strategy makes no sense for the task.
        """


def draw(seed: int, question_id: str, candidate_id: str) -> bytes:
    """Return a candidate's place in a seeded draw, as bytes to sort by.

    A hash in place of a shuffle keeps the order of two candidates when others join or leave the pool. With an
    empty question id the draw is the same for all questions; all strategies break ties by that one.
    """
    return hashlib.sha256(f"{seed}\0{question_id}\0{candidate_id}".encode()).digest()


def tie_breaks(pool: Sequence[Example], seed: int) -> npt.NDArray[np.int64]:
    """Return each candidate's position in the draw that breaks ties, [pool]."""
    rows = sorted(range(len(pool)), key=lambda row: draw(seed, "", pool[row].id))
    positions = np.empty(len(pool), np.int64)
    positions[rows] = np.arange(len(pool))
    return positions


def rounded(similarities: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return similarities as they are compared and recorded."""
    exact = np.asarray(similarities, np.float64)  # before rounding: float32 has no 0.1
    return np.add(np.round(exact, DECIMALS), 0.0, dtype=np.float64)  # 0.0 turns -0.0 into 0.0
