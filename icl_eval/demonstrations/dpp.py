"""The strategy `dpp`."""

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
    rank_by_choice,
)
from icl_eval.demonstrations.vectors import FloatArray
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
        self, similarities: PoolSimilarities, approximate: FloatArray, exactly: Exactly, allowed: Allowed, ties: Rows
    ) -> Iterator[int]:
        """Yield the rows of the candidates in the order of choice.

        log det(L_S) is the sum of (1 + cos) / (2 · scale) over S plus log det of the similarities alone, to which a
        candidate adds the logarithm of what is left of it beside the chosen ones, by their Cholesky factor.
        """
        from scipy.linalg import solve_triangular  # takes a tenth of a second to import, which other strategies save

        spanning: list[int] = []  # the chosen ones, but for those that others span already
        factor = np.zeros((0, 0))  # their Cholesky factor, [spanning, spanning]

        def project(rows: Rows) -> Floats:
            """Return what candidates would add to the factor, [spanning, rows]."""
            similar = (1 + similarities.between(rows, spanning).T) / 2
            return np.asarray(solve_triangular(factor, similar, lower=True) if spanning else similar)

        def gain(rows: Rows) -> Floats:
            left_over = 1 - (project(rows) ** 2).sum(0)
            return round_similarities(
                (1 + exactly(rows)) / 2 / self.scale + np.log(np.maximum(left_over, _NOTHING_NEW))
            )

        bounds = (1 + approximate.astype(np.float64) + SLACK) / 2 / self.scale + SLACK
        for row in best_choices(np.where(allowed, bounds, -np.inf), gain, ties):
            yield row
            column = project(np.array([row]))[:, 0]
            left_over = 1 - column @ column
            if left_over > _NOTHING_NEW:
                spanning.append(row)
                factor = np.block([[factor, np.zeros((len(column), 1))], [column, np.sqrt(left_over)]])
