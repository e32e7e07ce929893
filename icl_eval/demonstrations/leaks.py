"""Leaks: copies and near-duplicates of a question among its own demonstrations.

A question never sees copies of itself: candidates with the same text after Unicode normalization, case folding and
collapsing of whitespace. Ids are not compared, because both splits may be numbered from 0. Near-duplicates can be
intentional, so they are shown and reported. Duplicates within the pool (same text, same target) count as one
candidate.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from icl_eval.demonstrations.labels import kind_of
from icl_eval.demonstrations.ranking import Allowed
from icl_eval.errors import ConfigError
from icl_eval.tasks.examples import Example, Examples, compute_once, normalize
from icl_eval.tasks.loading import Task

NEAR_DUPLICATE = 0.7
"""Minimum similarity of near-duplicates."""

_SHINGLE = 5


def normalized_text(example: Example) -> str:
    """Return the normalized input fields, one per line."""
    return _join_normalized(tuple(example.inputs.values()))


def _join_normalized(texts: Sequence[str]) -> str:
    return "\n".join(map(normalize, texts))


def build_guard(task: Task, match_field: str | None) -> Callable[[Example], Allowed]:
    """Return a function from a question to the candidates that it may see.

    Args:
        task: The task.
        match_field: If given, only candidates with the question's value of this input field are allowed.
    """
    copies, kinds = compute_once(task.pool, "rows", match_field, lambda: _index_rows(task.pool, match_field))

    def guard(question: Example) -> Allowed:
        allowed = np.zeros(len(task.pool), bool)
        allowed[kinds.get(kind_of(question, match_field), [])] = True
        allowed[copies.get(normalized_text(question), [])] = False
        return allowed

    return guard


def _index_rows(
    pool: Sequence[Example], match_field: str | None
) -> tuple[Mapping[str, list[int]], Mapping[str | None, npt.NDArray[np.int64]]]:
    """Return the rows of a pool by their text, and by their kind."""
    copies: defaultdict[str, list[int]] = defaultdict(list)
    kinds: defaultdict[str | None, list[int]] = defaultdict(list)
    for row, candidate in enumerate(pool):
        copies[normalized_text(candidate)].append(row)
        kinds[kind_of(candidate, match_field)].append(row)
    return dict(copies), {kind: np.array(rows, np.int64) for kind, rows in kinds.items()}


def drop_duplicates(pool: Sequence[Example], match_field: str | None = None) -> Examples:
    """Return the pool without duplicates.

    Of several duplicates, the one with the smallest id stays, at the position of the first one.
    """
    return _part_duplicates(pool, match_field)[0]


def find_duplicates(pool: Sequence[Example], match_field: str | None = None) -> Sequence[tuple[str, str]]:
    """Return the ids of the dropped duplicates of a pool, each paired with the id of the example that stays."""
    return _part_duplicates(pool, match_field)[1]


def _part_duplicates(pool: Sequence[Example], match_field: str | None) -> tuple[Examples, Sequence[tuple[str, str]]]:
    def part() -> tuple[Examples, Sequence[tuple[str, str]]]:
        groups = [sorted(group, key=lambda example: example.id) for group in _group_duplicates(pool, match_field)]
        pairs = [(left_out.id, kept.id) for kept, *others in groups for left_out in others]
        return Examples(group[0] for group in groups), pairs

    return compute_once(pool, "duplicates", match_field, part)


def _group_duplicates(pool: Iterable[Example], match_field: str | None) -> Iterable[list[Example]]:
    groups: dict[tuple[str | None, ...], list[Example]] = {}
    for example in pool:
        kind = kind_of(example, match_field)
        groups.setdefault((kind, normalized_text(example), normalize(example.references[0])), []).append(example)
    return groups.values()


def require_match_field(task: Task, match_field: str) -> None:
    """Raise ConfigError if the field in which demonstrations must match the question does not exist."""
    known = task.pool[0].inputs
    if match_field not in known:
        raise ConfigError(
            f"task.{task.name}.match_field: {match_field!r} is not an input field (known: {', '.join(sorted(known))})"
        )


@dataclass(frozen=True)
class NearDuplicate:
    """A question and one of its demonstrations with nearly the same text."""

    question_id: str
    demonstration_id: str
    similarity: float
    """Jaccard index of the character 5-grams of both texts (Broder, 1997)."""


def find_near_duplicates(
    shown: Iterable[tuple[Example, Sequence[Example]]], match_field: str | None = None
) -> list[NearDuplicate]:
    """Return the demonstrations that are near-duplicates of their question, in the given order.

    Args:
        shown: Questions, each with its demonstrations.
        match_field: An input field in which demonstrations intentionally agree with the question; it is ignored.
    """
    return [
        NearDuplicate(question.id, demonstration.id, round(similarity, 3))
        for question, demonstrations in shown
        for demonstration, similarity in _measure_similarities(question, demonstrations, match_field)
        if similarity >= NEAR_DUPLICATE
    ]


def _measure_similarities(
    question: Example, demonstrations: Sequence[Example], match_field: str | None
) -> Iterator[tuple[Example, float]]:
    """Yield each demonstration with its similarity to the question."""
    if not demonstrations:
        return
    asked = _shingles(_list_texts(question, match_field))
    for demonstration in demonstrations:
        shown = _keep_shingles(_list_texts(demonstration, match_field))
        num_shared = len(asked & shown)
        yield demonstration, num_shared / (len(asked) + len(shown) - num_shared)


def _list_texts(example: Example, without: str | None) -> tuple[str, ...]:
    return tuple(text for field, text in example.inputs.items() if field != without)


def _shingles(texts: tuple[str, ...]) -> frozenset[str]:
    """Return the character 5-grams of the normalized texts; of fewer characters, one n-gram of them all."""
    text = _join_normalized(texts)
    return frozenset(text[start : start + _SHINGLE] for start in range(max(1, len(text) - _SHINGLE + 1)))


_keep_shingles = lru_cache(maxsize=256)(_shingles)  # many questions share their demonstrations
