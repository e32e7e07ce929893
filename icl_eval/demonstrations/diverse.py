"""The strategy `diverse`."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from icl_eval.demonstrations.encoder import Encoder
from icl_eval.demonstrations.ranking import Allowed, Ranking, round_similarities
from icl_eval.demonstrations.searching import (
    SLACK,
    Exactly,
    Floats,
    PoolSimilarities,
    Rows,
    best_choices,
    best_first,
    rank_by_choice,
)
from icl_eval.demonstrations.vectors import FloatArray
from icl_eval.errors import ConfigError
from icl_eval.targets import Seed
from icl_eval.tasks.loading import Task


@dataclass(frozen=True)
class DiverseDemonstrations:
    """Candidates that are similar to the question and dissimilar to each other.

    The ranking is maximal marginal relevance (Carbonell and Goldstein, 1998, https://doi.org/10.1145/290941.291025).
    The next candidate is the argmax over c of
    relevance · cos(c, question) − (1 − relevance) · max over chosen s of cos(c, s).
    The choice is greedy, so demonstration sets are nested.
    """

    seed: Seed
    """Seed of the draw that breaks ties."""
    encoder: Encoder
    relevance: float = 0.5
    """Lambda in the formula, 0 to 1: 1 ranks like `nearest`, 0 considers only diversity."""

    name = "diverse"
    measures_similarity = True
    shares_a_draw = False
    keeps_duplicates = False

    def __post_init__(self) -> None:
        if not 0 <= self.relevance <= 1:
            raise ConfigError(f"relevance={self.relevance}: must be between 0 and 1")

    def ranking(self, task: Task) -> Ranking:
        """Return the greedy ranking."""
        return rank_by_choice(task, self.encoder, self.seed, self._choose)

    def _choose(
        self, similarities: PoolSimilarities, approximate: FloatArray, exactly: Exactly, allowed: Allowed, ties: Rows
    ) -> Iterator[int]:
        """Yield the rows of the candidates in the order of choice."""
        start = next(best_first(self.relevance * approximate, self._weigh(exactly), allowed, ties), None)
        if start is None:
            return
        chosen = [start[0]]
        yield chosen[0]

        def gain(rows: Rows) -> Floats:
            redundancy = round_similarities(similarities.between(rows, chosen)).max(1)
            return round_similarities(self.relevance * exactly(rows) - (1 - self.relevance) * redundancy)

        least = similarities.vectors @ similarities.vectors[chosen[0]]  # further choices only add to the redundancy
        bounds = self.relevance * approximate - (1 - self.relevance) * least + SLACK
        others = allowed.copy()
        others[chosen] = False
        for row in best_choices(np.where(others, bounds, -np.inf), gain, ties):
            yield row
            chosen.append(row)

    def _weigh(self, exactly: Exactly) -> Exactly:
        return lambda rows: round_similarities(self.relevance * exactly(rows))
