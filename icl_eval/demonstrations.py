"""Demonstrations: which examples of the pool a question gets to see, and in which order.

Every strategy is a pure function of question, pool, number and seed, never of a running random generator:
batch size, order of evaluation, `limit` and resuming cannot change a prompt. Sets are nested: the first four
of eight demonstrations are the four that `num_fewshot=4` gives.
"""

import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from icl_eval.errors import ConfigError
from icl_eval.tasks import Example, Task


class DemonstrationSelector(Protocol):
    """Puts a pool into an order; the first `num_fewshot` that a question may see become its demonstrations."""

    def ranking(self, pool: Sequence[Example]) -> Callable[[Example], Sequence[Example]]:
        """Return the function from a question to the pool, the most wanted demonstration first."""


@dataclass(frozen=True)
class FirstDemonstrations:
    """The pool in the order of its file."""

    def ranking(self, pool: Sequence[Example]) -> Callable[[Example], Sequence[Example]]:
        """Return the pool as it is for every question."""
        return lambda example: pool


@dataclass(frozen=True)
class RandomDemonstrations:
    """A seeded shuffle of the pool: one for the whole run, or one for each question."""

    seed: int
    per_question: bool = False
    """Draw anew for each question. Without it all questions of a task share their demonstrations."""

    def ranking(self, pool: Sequence[Example]) -> Callable[[Example], Sequence[Example]]:
        """Return the pool ordered by a hash of seed, question and candidate.

        A hash in place of a shuffle keeps the order of two candidates when others join or leave the pool.
        """
        if self.per_question:
            return lambda example: self._shuffled(pool, example.id)
        shuffled = self._shuffled(pool, "")
        return lambda example: shuffled

    def _shuffled(self, pool: Sequence[Example], question_id: str) -> Sequence[Example]:
        def position(candidate: Example) -> bytes:
            return hashlib.sha256(f"{self.seed}\0{question_id}\0{candidate.id}".encode()).digest()

        return sorted(pool, key=position)


@dataclass(frozen=True)
class FixedDemonstrations:
    """The demonstrations that the user names, in the order given."""

    ids: list[str]

    def ranking(self, pool: Sequence[Example]) -> Callable[[Example], Sequence[Example]]:
        """Return the candidates with the given ids for every question."""
        by_id = {candidate.id: candidate for candidate in pool}
        chosen = [by_id[demonstration_id] for demonstration_id in self.ids]
        return lambda example: chosen


def build_selection(
    task: Task, selector: DemonstrationSelector, num_fewshot: int, match_field: str | None = None
) -> Callable[[Example], tuple[Example, ...]]:
    """Return the function from a question to its demonstrations.

    A question never sees itself or a copy of itself: candidates with its id, or with the same inputs after
    Unicode normalisation, case folding and squeezing of white space, are passed over.

    Args:
        task: Whose pool is drawn from.
        selector: The strategy.
        num_fewshot: How many demonstrations a question gets.
        match_field: Where given, only candidates that share the question's value of this input field.

    Raises:
        ConfigError: When an id or field does not exist or, when the function is called, when there are not
            enough demonstrations.
    """
    if isinstance(selector, FixedDemonstrations):
        _require_ids(task, selector.ids)
    if match_field is not None:
        _require_field(task, match_field)
    rank = selector.ranking(task.pool)

    def select(example: Example) -> tuple[Example, ...]:
        own_text = _normalise(example)
        allowed = (
            candidate
            for candidate in rank(example)
            if candidate.id != example.id
            and (match_field is None or candidate.inputs[match_field] == example.inputs[match_field])
            and _normalise(candidate) != own_text
        )
        selected = tuple(islice(allowed, num_fewshot))
        if len(selected) < num_fewshot:
            raise ConfigError(
                f"num_fewshot={num_fewshot}: task '{task.name}' has only {len(selected)} demonstrations "
                f"for question {example.id!r} (a pool of {len(task.pool)})"
            )
        return selected

    return select


def _require_ids(task: Task, ids: Sequence[str]) -> None:
    known = {candidate.id for candidate in task.pool}
    for demonstration_id in ids:
        if demonstration_id not in known:
            raise ConfigError(
                f"demonstrations.ids: {demonstration_id!r} is not in the pool of task '{task.name}' "
                f"(it holds {len(known)}, such as {task.pool[0].id!r})"
            )
    if len(set(ids)) < len(ids):
        raise ConfigError("demonstrations.ids: an id is given twice")


def _require_field(task: Task, match_field: str) -> None:
    known = task.pool[0].inputs
    if match_field not in known:
        raise ConfigError(
            f"task.{task.name}.match_field: {match_field!r} is not a field that templates see "
            f"(known: {', '.join(sorted(known))})"
        )


def _normalise(example: Example) -> tuple[str, ...]:
    return tuple(" ".join(unicodedata.normalize("NFKC", text).casefold().split()) for text in example.inputs.values())
