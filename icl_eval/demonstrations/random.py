"""The strategy `random`."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from icl_eval.demonstrations.ranking import Allowed, Demonstration, Ranking, draw_order, keep_allowed, random_key
from icl_eval.targets import Seed
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

_FIRST_LOOK = 64


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
        if not self.per_question:
            order = draw_order(task.pool, self.seed)
            return lambda question, allowed: (Demonstration(task.pool[row]) for row in keep_allowed(order, allowed))
        hashes = np.array([_hash(self.seed, "", candidate.id) for candidate in task.pool], np.uint64)

        def rank(question: Example, allowed: Allowed) -> Iterator[Demonstration]:
            keys = _scramble(hashes ^ _hash(self.seed, question.id, ""))
            return (Demonstration(task.pool[row]) for row in _ascend(keys, allowed))

        return rank


def _hash(seed: int, question_id: str, candidate_id: str) -> np.uint64:
    return np.uint64(int.from_bytes(random_key(seed, question_id, candidate_id)[:8]))


def _scramble(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return keys of which every bit depends on all bits of a given one: the end of MurmurHash3, in place."""
    for shift, factor in ((33, 0xFF51AFD7ED558CCD), (33, 0xC4CEB9FE1A85EC53)):
        keys ^= keys >> np.uint64(shift)
        keys *= np.uint64(factor)
    return keys


def _ascend(keys: npt.NDArray[np.uint64], allowed: Allowed) -> Iterator[int]:
    """Yield the rows that a question may see by ascending key; the keys are spread evenly, so few are sorted."""
    done, share = 0, _FIRST_LOOK / len(keys)
    while done < len(keys):
        rows = np.flatnonzero(keys <= np.uint64(share * 2.0**64)) if share < 1 else np.arange(len(keys))
        rows = rows[np.argsort(keys[rows], kind="stable")]
        yield from keep_allowed(rows[done:], allowed)
        done, share = len(rows), 8 * share
