"""The strategy `random`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from icl_eval.demonstrations.ranking import Demonstration, Ranking, draw
from icl_eval.targets import Seed
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task


@dataclass(frozen=True)
class RandomDemonstrations:
    """A seeded shuffle of the pool, shared by all questions or separate for each."""

    seed: Seed
    per_question: bool = False
    """Whether to shuffle separately for each question. If not, all questions of a task share their demonstrations."""

    name = "random"
    measures_similarity = False
    keeps_duplicates = False
    encoder = None

    @property
    def shares_a_draw(self) -> bool:
        """Whether all questions share one random draw."""
        return not self.per_question

    def ranking(self, task: Task) -> Ranking:
        """Return the pool in the random order given by seed, question and candidate."""
        if self.per_question:
            return lambda question, allowed: map(Demonstration, self._shuffle(filter(allowed, task.pool), question.id))
        shuffled = self._shuffle(task.pool, "")
        return lambda question, allowed: map(Demonstration, filter(allowed, shuffled))

    def _shuffle(self, candidates: Iterable[Example], question_id: str) -> Sequence[Example]:
        return sorted(candidates, key=lambda candidate: draw(self.seed, question_id, candidate.id))
