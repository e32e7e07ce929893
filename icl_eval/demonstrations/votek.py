"""The strategy `votek`."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice

import numpy as np

from icl_eval.demonstrations.encoder import Encoder
from icl_eval.demonstrations.ranking import Allowed, Demonstration, Ranking, draw_tie_breaks, round_similarities
from icl_eval.demonstrations.searching import Indices, PoolSimilarities, best_first
from icl_eval.errors import ConfigError
from icl_eval.targets import Seed
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

_DISCOUNT = 10.0
"""Rho in the formula."""

_COMPARED_TOGETHER = 32


@dataclass(frozen=True)
class VotekDemonstrations:
    """Examples that represent the pool, the same for all questions.

    Every example votes for its nearest neighbours by cosine. The next one chosen has the most votes, where a vote
    counts 10^-m if m of the voter's neighbours are chosen already, so that no region of the pool is represented twice
    before others are (vote-k, Su et al., 2022, Selective Annotation Makes Language Models Better Few-Shot Learners,
    arXiv:2209.01975). There it chooses the examples that are worth an annotation.
    """

    seed: Seed
    """Seed of the draw that breaks ties."""
    encoder: Encoder
    neighbors: int = 10
    """The number of examples that each one votes for; in the paper 150, for pools of 3,000."""

    name = "votek"
    shares_a_draw = False
    measures_similarity = False
    keeps_duplicates = False

    def __post_init__(self) -> None:
        if self.neighbors < 1:
            raise ConfigError(f"neighbors={self.neighbors}: must be 1 or more")

    def ranking(self, task: Task) -> Ranking:
        """Return the ranking of the whole pool; the pool is embedded when the first question is ranked."""
        ties = draw_tie_breaks(task.pool, self.seed)
        open_order = cache(
            lambda: _count_votes(_find_neighbors(PoolSimilarities(task, self.encoder), ties, self.neighbors), ties)
        )
        chosen: list[int] = []  # what the questions so far needed of the order, which is the same for all

        def rank(question: Example, allowed: Allowed) -> Iterator[Demonstration]:
            for place in range(len(task.pool)):
                if place == len(chosen):
                    chosen.append(next(open_order()))
                if allowed[chosen[place]]:
                    yield Demonstration(task.pool[chosen[place]])

        return rank


def _find_neighbors(similarities: PoolSimilarities, ties: Indices, count: int) -> Indices:
    """Return the nearest neighbours of each example, without itself, `[pool, neighbors]`."""
    vectors = similarities.vectors
    found = []
    for start in range(0, len(vectors), _COMPARED_TOGETHER):  # all similarities at once may not fit into memory
        block = vectors[start : start + _COMPARED_TOGETHER] @ vectors.T
        for row, approximate in enumerate(block, start):
            others = np.ones(len(vectors), bool)
            others[row] = False
            nearest = best_first(approximate, partial(similarities.measure, vector=vectors[row]), others, ties)
            found.append([neighbor for neighbor, _ in islice(nearest, count)])
    return np.array(found, dtype=np.int64).reshape(len(vectors), -1)


def _count_votes(neighbors: Indices, ties: Indices) -> Iterator[int]:
    """Yield the rows of the pool in the order of choice."""
    size = len(neighbors)
    represented = np.zeros(size)  # how many neighbours of each example are chosen
    left = np.ones(size, bool)
    for _ in range(size):
        weights = np.where(left, _DISCOUNT**-represented, 0.0)  # those chosen do not vote
        votes = round_similarities(np.bincount(neighbors.ravel(), np.repeat(weights, neighbors.shape[1]), size))
        most = np.flatnonzero(left & (votes == votes[left].max()))
        chosen = int(most[np.argmin(ties[most])])
        yield chosen
        left[chosen] = False
        represented += (neighbors == chosen).any(axis=1)
