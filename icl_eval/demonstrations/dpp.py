"""The strategy `dpp`."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from icl_eval.demonstrations.encoder import Encoder
from icl_eval.demonstrations.ranking import Ranking, rank_by_choice, round_similarities
from icl_eval.errors import ConfigError
from icl_eval.targets import Seed
from icl_eval.tasks.loading import Task

_NOTHING_NEW = 1e-6
"""A candidate whose share of its own that the chosen ones do not span is smaller is judged by its similarity alone."""


@dataclass(frozen=True)
class DppDemonstrations:
    """Candidates that are similar to the question and together span much: a determinantal point process.

    A set S has the probability det(L_S) with L_ij = q_i s_ij q_j, where s_ij = (1 + cos(i, j)) / 2 and
    q_i = exp(s(i, question) / (2 · scale)) (Ye et al., 2023, Compositional Exemplars for In-context Learning,
    arXiv:2302.05698). The most probable set is approximated greedily: the next candidate is the one that raises the
    determinant most (Chen, Zhang and Zhou, 2018, arXiv:1709.05135). So demonstration sets are nested.
    """

    seed: Seed
    """Seed of the draw that breaks ties."""
    encoder: Encoder
    scale: float = 0.1
    """Lambda in the formula, above 0: the smaller, the more similarity to the question counts."""

    name = "dpp"
    shares_a_draw = False
    measures_similarity = True
    keeps_duplicates = False

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ConfigError(f"scale={self.scale}: must be above 0")

    def ranking(self, task: Task) -> Ranking:
        """Return the greedy ranking."""
        return rank_by_choice(task, self.encoder, self.seed, self._choose)

    def _choose(
        self, vectors: npt.NDArray[np.float32], cosines: npt.NDArray[np.float64], ties: npt.NDArray[np.int64]
    ) -> Iterator[int]:
        """Yield the rows of the candidates in the order of choice.

        log det(L_S) is the sum of (1 + cos) / (2 · scale) over S plus log det of the similarities alone, to which a
        candidate adds the logarithm of what is left of it beside the chosen ones, by their Cholesky factor.
        """
        wanted = (1 + cosines) / 2 / self.scale
        left_over = np.ones(len(cosines))
        factor = np.zeros((len(cosines), 0))  # rows of the Cholesky factor, [candidates, chosen]
        left = np.ones(len(cosines), bool)
        for _ in range(len(cosines)):
            gains = round_similarities(wanted + np.log(np.maximum(left_over, _NOTHING_NEW)))
            chosen = int(np.lexsort((ties, -gains, ~left))[0])
            yield chosen
            left[chosen] = False
            if left_over[chosen] > _NOTHING_NEW:
                similar = (1 + (vectors @ vectors[chosen]).astype(np.float64)) / 2
                column = (similar - factor @ factor[chosen]) / np.sqrt(left_over[chosen])
                factor = np.column_stack([factor, column])
                left_over = left_over - column**2
