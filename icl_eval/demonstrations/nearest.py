"""The strategy `nearest`."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from icl_eval.demonstrations.encoder import Encoder
from icl_eval.demonstrations.ranking import Allowed, Demonstration, Ranking, draw_tie_breaks, round_similarities
from icl_eval.targets import Seed
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task


@dataclass(frozen=True)
class NearestDemonstrations:
    """The candidates whose embeddings have the highest cosine similarity to the question's."""

    seed: Seed
    """Seed of the draw that breaks ties."""
    encoder: Encoder

    name = "nearest"
    measures_similarity = True
    shares_a_draw = False
    keeps_duplicates = False

    def ranking(self, task: Task) -> Ranking:
        """Return the ranking by cosine similarity; the pool is embedded when the first question is ranked."""
        embed_pool = cache(lambda: self.encoder.embed(task.pool))  # [pool, size]
        ties = draw_tie_breaks(task.pool, self.seed)

        def rank(question: Example, allowed: Allowed) -> Iterator[Demonstration]:
            cosines = round_similarities(embed_pool() @ self.encoder.embed([question])[0])  # [pool]
            for row in np.lexsort((ties, -cosines)):
                if allowed(task.pool[row]):
                    yield Demonstration(task.pool[row], float(cosines[row]))

        return rank
