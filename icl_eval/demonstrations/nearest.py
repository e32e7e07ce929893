"""The strategy `nearest`."""

from collections.abc import Iterator
from dataclasses import dataclass

from icl_eval.demonstrations.encoder import Encoder
from icl_eval.demonstrations.ranking import Allowed, Demonstration, Ranking, draw_tie_breaks
from icl_eval.demonstrations.searching import PoolSimilarities, best_first
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
        similarities = PoolSimilarities(task, self.encoder)
        ties = draw_tie_breaks(task.pool, self.seed)

        def rank(question: Example, allowed: Allowed) -> Iterator[Demonstration]:
            for row, cosine in best_first(*similarities.compare(question), allowed, ties):
                yield Demonstration(task.pool[row], cosine)

        return rank
