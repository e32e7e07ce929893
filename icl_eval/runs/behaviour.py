"""Measure how often outputs agree with their demonstrations, compared with the right answers.

A model that repeats the answer of the last demonstration, or the most frequent answer, agrees with it more often than
the right answers do: recency bias and majority label bias (Zhao et al., 2021, Calibrate Before Use, arXiv:2102.09690).

Agreement with any demonstration is not yet copying: a model that always gives the most frequent answer of the pool
finds it in most prompts. Copying is what exceeds the agreement with another draw from the pool.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from icl_eval.runs.records import Record
from icl_eval.tasks.examples import normalize


@dataclass(frozen=True)
class Agreement:
    """How often a target that prompts show is the prediction, and how often it is a right answer."""

    n: int
    """The number of questions whose prompt shows such a target."""
    output: float
    """The share of these questions whose prediction is the target."""
    truth: float
    """The share of these questions for which the target is a right answer."""
    another_draw: float | None = None
    """The expected share of these questions whose prediction would be the target in a prompt with another random draw
    from the pool: the mean of 1 - C(N - c, k) / C(N, k) for k of N candidates, of which c have the prediction as their
    target. Null if it is not known, as for the most frequent target."""


@dataclass(frozen=True)
class Share:
    """A share of something counted."""

    n: int
    share: float


@dataclass(frozen=True)
class ControlOutcome:
    """What is left of the demonstrations under a control, and whether outputs follow what they show instead."""

    dose: Share | None
    """The share of shown targets that are a right answer to the input that they are shown with, over all prompts (Wei
    et al., 2023, arXiv:2303.03846, vary one minus this share); null if no prompt shows a target."""
    follows: Share | None
    """The share of outputs that are the answer which the shown mapping implies, among the questions for which it
    implies one (flipped_labels, abstract_labels); null if the control shows no such mapping or nothing is decoded."""


CountCandidates = Callable[[str, str], tuple[int, int]]
"""Maps the id of a question and a target to the number of candidates in its pool with that target, and of all."""


@dataclass(frozen=True)
class Behaviour:
    """Agreement with targets as the prompts show them. Differences in case and white space are ignored."""

    copied: Agreement | None
    """Agreement with the target of any demonstration; null if no prompt shows a target."""
    majority: Agreement | None
    """Agreement with the prompt's most frequent target; null if no prompt has a single most frequent one."""
    last: Agreement | None
    """Agreement with the target of the last demonstration; null if no prompt shows a target."""


class _Tally:
    """Agreement of the records that were added so far."""

    def __init__(self, count: CountCandidates | None) -> None:
        self._count = count
        self._n = self._outputs = self._truths = 0
        self._another = 0.0

    def add(self, record: Record, targets: Sequence[str], output: str, answers: Set[str]) -> None:
        """Add a record; without targets, it says nothing."""
        if targets:
            self._n += 1
            self._outputs += output in targets
            self._truths += not answers.isdisjoint(targets)
            if self._count is not None:
                self._another += _share_of_draws(record, len(targets), self._count)

    @property
    def agreement(self) -> Agreement | None:
        """The agreement; None if no record says anything."""
        if not self._n:
            return None
        another = None if self._count is None else self._another / self._n
        return Agreement(self._n, self._outputs / self._n, self._truths / self._n, another)


def measure_behaviour(records: Iterable[Record], count: CountCandidates | None = None) -> Behaviour | None:
    """Return how often a task's outputs agree with their demonstrations; None if no prompt shows a target.

    Args:
        records: The records of the task.
        count: Counts the candidates that another draw could show; None if they are not known.
    """
    copied, majority, last = _Tally(count), _Tally(None), _Tally(count)
    for record in records:
        shown = _normalize_all(tuple(one.target for one in record.demonstrations if one.target is not None))
        output, answers = normalize(record.prediction), set(map(normalize, record.targets))
        for tally, targets in ((copied, shown), (majority, _find_majority(shown)), (last, shown[-1:])):
            tally.add(record, targets, output, answers)
    return Behaviour(copied.agreement, majority.agreement, last.agreement) if copied.agreement else None


@lru_cache(maxsize=1024)  # many prompts show the same demonstrations
def _normalize_all(targets: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(normalize, targets))


def _share_of_draws(record: Record, num_shown: int, count: CountCandidates) -> float:
    """Return the share of the draws of so many candidates in which one has the prediction as its target."""
    same, candidates = count(record.example_id, record.prediction)
    drawn = range(min(num_shown, candidates))
    return 1 - prod(max(0, candidates - same - place) / (candidates - place) for place in drawn)


def _find_majority(targets: Sequence[str]) -> Sequence[str]:
    """Return a sequence with the most frequent target, or an empty one if there is a tie."""
    ranked = Counter(targets).most_common(2)
    if not ranked or ranked[0][1] == 1 or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return ()
    return (ranked[0][0],)
