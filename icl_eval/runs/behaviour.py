"""Behaviour: what outputs have in common with the demonstrations before them, and how often the truth has it too.

A model that repeats the last demonstration's answer, or the most frequent one, does so whatever the question is: its
outputs agree with them more often than the right answers do (Zhao et al., 2021, Calibrate Before Use,
arXiv:2102.09690, which names the majority label and the recency bias).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from icl_eval.runs.records import Record
from icl_eval.tasks.examples import normalize


@dataclass(frozen=True)
class Agreement:
    """How often something shown is what is said, and how often it is right."""

    n: int
    """Questions whose prompt shows such a target."""
    output: float
    """Share of them whose prediction it is."""
    truth: float
    """Share of them of which it is a right answer."""


@dataclass(frozen=True)
class Behaviour:
    """Agreement with targets as they were shown; two texts agree when they differ in case and white space only."""

    copied: Agreement | None
    """With any demonstration's target; null where no prompt shows one."""
    majority: Agreement | None
    """With the target that more demonstrations of the prompt have than any other; null where no prompt has one."""
    last: Agreement | None
    """With the target of the prompt's last demonstration; null where no prompt shows one."""


def measure_behaviour(records: Iterable[Record]) -> Behaviour | None:
    """Return how a task's outputs agree with their demonstrations; None where no prompt shows a target."""
    known = list(records)
    shown = [[normalize(one.target) for one in record.demonstrations if one.target is not None] for record in known]
    if not any(shown):
        return None

    def agreement(choose: Callable[[Sequence[str]], Sequence[str]]) -> Agreement | None:
        chosen = [(record, choose(targets)) for record, targets in zip(known, shown, strict=True)]
        counted = [(record, targets) for record, targets in chosen if targets]
        if not counted:
            return None
        outputs = sum(normalize(record.prediction) in targets for record, targets in counted)
        truths = sum(not set(map(normalize, record.targets)).isdisjoint(targets) for record, targets in counted)
        return Agreement(len(counted), outputs / len(counted), truths / len(counted))

    return Behaviour(agreement(lambda targets: targets), agreement(_majority), agreement(lambda targets: targets[-1:]))


def _majority(targets: Sequence[str]) -> Sequence[str]:
    """Return the most frequent target alone, or nothing where it is not more frequent than every other."""
    ranked = Counter(targets).most_common(2)
    if not ranked or ranked[0][1] == 1 or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return ()
    return (ranked[0][0],)
