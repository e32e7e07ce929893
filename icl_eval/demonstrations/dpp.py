"""The strategy `dpp`."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from icl_eval.demonstrations.encoder import Encoder
from icl_eval.demonstrations.ranking import Ranking, round_similarities
from icl_eval.demonstrations.searching import Floats, rerank
from icl_eval.errors import ConfigError
from icl_eval.targets import Seed
from icl_eval.tasks.loading import Task

_NOTHING_NEW = 1e-6
"""A candidate whose share of its own that the chosen ones do not span is smaller is judged by its similarity alone."""


@dataclass(frozen=True)
class DppDemonstrations:
    """Candidates that are similar to the question and together span much: a determinantal point process.

    It chooses from the nearest candidates, as in the paper (Ye et al., 2023, Compositional Exemplars for In-context
    Learning, arXiv:2302.05698). A set S of them has the probability det(L_S) with L_ij = q_i s_ij q_j, where
    s_ij = (1 + cos(i, j)) / 2 and q_i = exp(s(i, question) / (2 · scale)). The most probable set is approximated
    greedily: the next candidate is the one that raises the determinant most (Chen, Zhang and Zhou, 2018,
    arXiv:1709.05135). So demonstration sets are nested.
    """

    seed: Seed
    """Seed of the draw that breaks ties."""
    encoder: Encoder
    scale: float = 0.1
    """Lambda in the formula, above 0: the smaller, the more similarity to the question counts."""
    candidates: int = 1000
    """The number of nearest candidates that are chosen from. The others follow by similarity."""

    name = "dpp"
    shares_a_draw = False
    measures_similarity = True
    keeps_duplicates = False

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ConfigError(f"scale={self.scale}: must be above 0")
        if self.candidates < 1:
            raise ConfigError(f"candidates={self.candidates}: must be 1 or more")

    def ranking(self, task: Task) -> Ranking:
        """Return the greedy ranking."""
        return rerank(task, self.encoder, self.seed, self.candidates, self._choose)

    def _choose(self, cosines: Floats, vectors: Floats) -> Iterator[int]:
        """Yield the places of the candidates in the order of choice.

        log det(L_S) is the sum of (1 + cos) / (2 · scale) over S plus log det of the similarities alone. These are the
        inner products of (1, vector) / √2, and their determinant is the squared volume that these span. So a candidate
        adds the logarithm of the squared length that is left of it beside the span of the chosen ones.
        """
        spanning = np.insert(vectors, 0, 1.0, axis=1) / np.sqrt(2)  # [candidates, size + 1]
        basis = np.empty((0, spanning.shape[1]))  # orthonormal, of the span of the chosen ones
        left_over = np.ones(len(cosines))
        left = np.ones(len(cosines), bool)
        for _ in range(len(cosines)):
            gains = round_similarities((1 + cosines) / 2 / self.scale + np.log(np.maximum(left_over, _NOTHING_NEW)))
            best = int(np.argmax(np.where(left, gains, -np.inf)))
            yield best
            left[best] = False
            if left_over[best] > _NOTHING_NEW:
                direction = spanning[best] - basis.T @ (basis @ spanning[best])
                basis = np.vstack([basis, direction / np.linalg.norm(direction)])
                left_over -= (spanning @ basis[-1]) ** 2
