"""Time systems so that their times can be compared.

All systems run one after the other, in several rounds. Each round starts with the next system, so that a slow phase of
the machine affects all of them. The median of the rounds counts.

    round 1   icl_eval   generate   lm-eval
    round 2   generate   lm-eval    icl_eval
    round 3   lm-eval    icl_eval   generate
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from benchmarks.answers import Answer
from benchmarks.machine import CpuClock, foreign_share
from benchmarks.systems import System
from benchmarks.workloads import Workload

_WARM_UP_QUESTIONS = 2
_WARM_UP_TOKENS = 3


@dataclass
class Result:
    """The times and answers of one system for one workload."""

    system: str
    num_questions: int
    """Number of questions that the system got, from the start of the workload."""
    seconds: list[float] = field(default_factory=list)
    """Time per round for all questions of the workload, scaled by count if the system got only some of them."""
    foreign: list[float | None] = field(default_factory=list)
    """Share of the machine that other processes used, per round."""
    answers: list[Answer] = field(default_factory=list)

    @property
    def median_seconds(self) -> float:
        """The median time over all rounds."""
        return median(self.seconds)

    def agreement(self, reference: "Result") -> float:
        """Return the share of questions, among those that both systems answered, with the same answer."""
        pairs = list(zip(self.answers, reference.answers, strict=False))
        return sum(ours.text == theirs.text for ours, theirs in pairs) / len(pairs)


def run_rounds(
    systems: Sequence[System], workload: Workload, num_rounds: int, sample: int | None, tell: Callable[[str], None]
) -> list[Result]:
    """Time the systems on a workload.

    Args:
        systems: The systems to time; the first one always gets all questions.
        workload: The questions.
        num_rounds: The number of runs of each system.
        sample: The number of questions for the other systems; None for all.
        tell: Receives a line about each timing.
    """
    given = [workload, *(_first(workload, sample) for _ in systems[1:])]
    given = [_first(part, system.most_questions) for part, system in zip(given, systems, strict=True)]
    for system, part in zip(systems, given, strict=True):
        warm_up = _first(part, _WARM_UP_QUESTIONS)
        system.answer(replace(warm_up, max_new_tokens=min(_WARM_UP_TOKENS, workload.max_new_tokens)))
    results = [Result(system.name, len(part.prompts)) for system, part in zip(systems, given, strict=True)]
    for number in _rotations(len(systems), num_rounds):
        _run_once(systems[number], given[number], results[number], len(workload.prompts))
        tell(f"{workload.name}: {results[number].system} {results[number].seconds[-1]:.2f} s")
    return results


def _first(workload: Workload, count: int | None) -> Workload:
    return replace(workload, prompts=workload.prompts[:count])


def _rotations(num_systems: int, num_rounds: int) -> Iterator[int]:
    for number in range(num_rounds):
        yield from ((number + place) % num_systems for place in range(num_systems))


def _run_once(system: System, workload: Workload, result: Result, num_questions: int) -> None:
    cpu_start, start = CpuClock(), time.perf_counter()
    result.answers = system.answer(workload)
    seconds = time.perf_counter() - start
    result.foreign.append(foreign_share(cpu_start, CpuClock(), seconds))
    result.seconds.append(seconds * num_questions / result.num_questions)
