"""The demonstrations that lm-evaluation-harness draws itself.

It draws them from one running generator in the order of its documents, so that they depend on the documents before a
question, and the sets for different numbers of shots are not nested. Our own strategies have neither property.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from icl_eval.demonstrations import Demonstration
from icl_eval.demonstrations.ranking import Allowed, Ranking
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task


@dataclass(frozen=True)
class HarnessDemonstrations:
    """The demonstrations of each question as the harness drew them, in its order."""

    drawn: Mapping[str, tuple[str, ...]]
    """Ids of the pool by the id of a question."""

    name = "lm_eval"
    measures_similarity = False
    shares_a_draw = False
    keeps_duplicates = True
    encoder = None

    def ranking(self, task: Task) -> Ranking:
        """Return what was drawn, copies of the question included, which the harness does not leave out either."""
        by_id = {candidate.id: candidate for candidate in task.pool}

        def rank(question: Example, allowed: Allowed) -> Iterator[Demonstration]:
            return (Demonstration(by_id[each]) for each in self.drawn[question.id])

        return rank
