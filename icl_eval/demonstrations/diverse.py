"""The strategy `diverse`."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from icl_eval.demonstrations.encoder import Encoder
from icl_eval.demonstrations.ranking import Ranking, rank_by_choice, round_similarities
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
        self, vectors: npt.NDArray[np.float32], cosines: npt.NDArray[np.float64], ties: npt.NDArray[np.int64]
    ) -> Iterator[int]:
        """Yield the rows of the candidates in the order of choice."""
        redundancy = np.zeros(len(cosines))  # the first choice has nothing to be redundant with
        left = np.ones(len(cosines), bool)
        for step in range(len(cosines)):
            marginal = round_similarities(self.relevance * cosines - (1 - self.relevance) * redundancy)
            chosen = int(np.lexsort((ties, -marginal, ~left))[0])
            yield chosen
            left[chosen] = False
            similar = round_similarities(vectors @ vectors[chosen])
            redundancy = np.maximum(redundancy, similar) if step else similar
