"""The strategy `first`."""

from dataclasses import dataclass

from icl_eval.demonstrations.ranking import Demonstration, Ranking
from icl_eval.tasks.loading import Task


@dataclass(frozen=True)
class FirstDemonstrations:
    """The pool in the order of its file."""

    name = "first"
    measures_similarity = False
    shares_a_draw = False
    keeps_duplicates = False
    encoder = None

    def ranking(self, task: Task) -> Ranking:
        """Return the pool in its own order for every question."""
        return lambda question, allowed: map(Demonstration, filter(allowed, task.pool))
