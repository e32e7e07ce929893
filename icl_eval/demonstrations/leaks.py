"""Leaks: questions that would find themselves, or nearly themselves, among their own demonstrations.

Copies are kept from a question: candidates with the same text after Unicode normalisation, case folding and squeezing
of white space. Ids say nothing across the two splits, which may both be numbered from 0. What is merely very similar
may be meant; it is shown, and reported. A pool's own duplicates, the same text with the same target, count as one.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from icl_eval.demonstrations.ranking import Allowed
from icl_eval.errors import ConfigError
from icl_eval.tasks.examples import Example, Task, normalise

NEAR_DUPLICATE = 0.7
"""From this similarity on two texts are nearly the same."""

_SHINGLE = 5


def normalised_text(example: Example, without: str | None = None) -> str:
    """Return all input fields but one, a line each, with the differences taken out that no reader would see."""
    return "\n".join(normalise(text) for field, text in example.inputs.items() if field != without)


def build_guard(task: Task, match_field: str | None) -> Callable[[Example], Allowed]:
    """Return the function from a question to what it may see of the pool.

    Args:
        task: Whose pool is guarded.
        match_field: Where given, only candidates that share the question's value of this input field are allowed.

    Raises:
        ConfigError: When the field does not exist.
    """
    if match_field is not None:
        _require_field(task, match_field)
    texts = {candidate.id: normalised_text(candidate) for candidate in task.pool}

    def guard(question: Example) -> Allowed:
        own_text = normalised_text(question)
        own_kind = question.inputs[match_field] if match_field else None
        return lambda candidate: (
            texts[candidate.id] != own_text and (match_field is None or candidate.inputs[match_field] == own_kind)
        )

    return guard


def distinct(pool: Iterable[Example], match_field: str | None = None) -> tuple[Example, ...]:
    """Return a pool without its duplicates.

    The one that stays is that of the least id, whatever the order of the pool; it stands where the first one stood.
    """
    return tuple(min(group, key=lambda example: example.id) for group in _grouped(pool, match_field))


def find_duplicates(pool: Iterable[Example], match_field: str | None = None) -> list[tuple[str, str]]:
    """Return the ids of the examples that are left out of a pool as duplicates, each with the one that stays."""
    pairs = []
    for group in _grouped(pool, match_field):
        kept, *left_out = sorted(example.id for example in group)
        pairs += [(example_id, kept) for example_id in left_out]
    return pairs


def _grouped(pool: Iterable[Example], match_field: str | None) -> Iterable[list[Example]]:
    groups: dict[tuple[str | None, ...], list[Example]] = {}
    for example in pool:
        kind = example.inputs[match_field] if match_field else None
        groups.setdefault((kind, normalised_text(example), normalise(example.references[0])), []).append(example)
    return groups.values()


def _require_field(task: Task, match_field: str) -> None:
    known = task.pool[0].inputs
    if match_field not in known:
        raise ConfigError(
            f"task.{task.name}.match_field: {match_field!r} is not a field that templates see "
            f"(known: {', '.join(sorted(known))})"
        )


@dataclass(frozen=True)
class NearDuplicate:
    """A question and one of its demonstrations that read nearly the same."""

    question_id: str
    demonstration_id: str
    similarity: float
    """Jaccard index of the two texts' character 5-grams (Broder, 1997)."""


def find_near_duplicates(
    shown: Iterable[tuple[Example, Sequence[Example]]], match_field: str | None = None
) -> list[NearDuplicate]:
    """Return the demonstrations that read nearly like the question they are shown to, in the order given.

    Args:
        shown: Questions, each with its demonstrations.
        match_field: An input field that question and demonstrations share by intention; it does not count.
    """
    return [
        NearDuplicate(question.id, demonstration.id, round(similarity, 3))
        for question, demonstrations in shown
        for demonstration in demonstrations
        if (similarity := _similarity(question, demonstration, match_field)) >= NEAR_DUPLICATE
    ]


def _similarity(first: Example, second: Example, match_field: str | None) -> float:
    left, right = (_shingles(normalised_text(example, match_field)) for example in (first, second))
    return len(left & right) / len(left | right)


@lru_cache(maxsize=256)  # most demonstrations are shown to many questions
def _shingles(text: str) -> frozenset[str]:
    """Return a text's character 5-grams; a shorter text is one of its own."""
    return frozenset(text[start : start + _SHINGLE] for start in range(max(1, len(text) - _SHINGLE + 1)))
