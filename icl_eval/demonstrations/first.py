"""The strategy `first`."""

from dataclasses import dataclass

import numpy as np

from icl_eval.demonstrations.ranking import Demonstration, Ranking, keep_allowed
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
        order = np.arange(len(task.pool))
        return lambda question, allowed: (Demonstration(task.pool[row]) for row in keep_allowed(order, allowed))
