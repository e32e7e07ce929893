"""The strategy `diverse`."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from icl_eval.demonstrations.encoder import Encoder
from icl_eval.demonstrations.ranking import Ranking, round_similarities
from icl_eval.demonstrations.searching import Floats, rerank
from icl_eval.errors import ConfigError
from icl_eval.targets import Seed
from icl_eval.tasks.loading import Task


@dataclass(frozen=True)
class DiverseDemonstrations:
    """Candidates that are similar to the question and dissimilar to each other.

    The nearest candidates are reordered by maximal marginal relevance (Carbonell and Goldstein, 1998,
    https://doi.org/10.1145/290941.291025). The next one is the argmax over c of
    relevance · cos(c, question) − (1 − relevance) · max over chosen s of cos(c, s).
    The choice is greedy, so demonstration sets are nested.
    """

    seed: Seed
    """Seed of the draw that breaks ties."""
    encoder: Encoder
    relevance: float = 0.5
    """Lambda in the formula, 0 to 1: 1 ranks like `nearest`, 0 considers only diversity."""
    candidates: int = 1000
    """The number of nearest candidates that are chosen from; the paper's theta. The others follow by similarity."""

    name = "diverse"
    measures_similarity = True
    shares_a_draw = False
    keeps_duplicates = False

    def __post_init__(self) -> None:
        if not 0 <= self.relevance <= 1:
            raise ConfigError(f"relevance={self.relevance}: must be between 0 and 1")
        if self.candidates < 1:
            raise ConfigError(f"candidates={self.candidates}: must be 1 or more")

    def ranking(self, task: Task) -> Ranking:
        """Return the greedy ranking."""
        return rerank(task, self.encoder, self.seed, self.candidates, self._choose)

    def _choose(self, cosines: Floats, vectors: Floats) -> Iterator[int]:
        """Yield the places of the candidates in the order of choice."""
        redundancy = np.zeros(len(cosines))
        left = np.ones(len(cosines), bool)
        for chosen in range(len(cosines)):
            gains = round_similarities(self.relevance * cosines - (1 - self.relevance) * redundancy)
            best = int(np.argmax(np.where(left, gains, -np.inf)))
            yield best
            left[best] = False
            similar = round_similarities(vectors @ vectors[best])
            redundancy = np.maximum(redundancy, similar) if chosen else similar
