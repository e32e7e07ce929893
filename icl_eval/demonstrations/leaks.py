"""Leaks: questions that could find themselves, or nearly themselves, among their own demonstrations.

Copies are kept from a question: candidates with its id, or with the same text after Unicode normalisation, case
folding and squeezing of white space. What is merely very similar may be meant, and is reported.
"""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from icl_eval.demonstrations.ranking import Allowed
from icl_eval.errors import ConfigError
from icl_eval.tasks import Example, Task

if TYPE_CHECKING:
    from scipy.sparse import csr_array

NEAR_DUPLICATE = 0.7
"""From this similarity on two texts are nearly the same."""

_SHINGLE = 5
_ROWS_AT_ONCE = 256


def normalised_text(example: Example, without: str | None = None) -> str:
    """Return all input fields but one, a line each, with the differences taken out that no reader would see."""
    return "\n".join(normalise(text) for field, text in example.inputs.items() if field != without)


def normalise(text: str) -> str:
    """Return a text after Unicode normalisation (NFKC), case folding and squeezing of white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


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
            candidate.id != question.id
            and texts[candidate.id] != own_text
            and (match_field is None or candidate.inputs[match_field] == own_kind)
        )

    return guard


def _require_field(task: Task, match_field: str) -> None:
    known = task.pool[0].inputs
    if match_field not in known:
        raise ConfigError(
            f"task.{task.name}.match_field: {match_field!r} is not a field that templates see "
            f"(known: {', '.join(sorted(known))})"
        )


@dataclass(frozen=True)
class NearDuplicate:
    """A question and a candidate that read nearly the same."""

    question_id: str
    candidate_id: str
    similarity: float
    """Jaccard index of the two texts' character 5-grams."""


def find_near_duplicates(
    questions: Sequence[Example], pool: Sequence[Example], match_field: str | None = None
) -> list[NearDuplicate]:
    """Return pairs that are nearly the same but no copies, in the order of questions and pool.

    Where demonstrations are matched by a field, candidates that a question could never be shown do not count, nor does
    what the field itself says, which is the same by intention.

    All pairs are compared, through one sparse product of shingles (Broder, 1997): two thousand questions with two
    thousand candidates take about a second.
    """
    asked, offered = (
        tuple(normalised_text(example, match_field) for example in examples) for examples in (questions, pool)
    )
    return [
        NearDuplicate(questions[row].id, pool[column].id, round(similarity, 3))
        for row, column, similarity in _similar_pairs(asked, offered)
        if questions[row].id != pool[column].id
        and asked[row] != offered[column]
        and (match_field is None or questions[row].inputs[match_field] == pool[column].inputs[match_field])
    ]


@lru_cache(maxsize=16)  # the cells of a sweep have the same texts
def _similar_pairs(asked: tuple[str, ...], offered: tuple[str, ...]) -> tuple[tuple[int, int, float], ...]:
    """Return row of the asked, row of the offered and Jaccard index of each pair above the threshold."""
    columns: dict[str, int] = {}
    left, right = _number_shingles(asked, columns), _number_shingles(offered, columns)
    transposed = _sparse(right, len(columns)).T.tocsr()  # [shingles, offered]
    right_sizes = np.array([len(row) for row in right])
    found: list[tuple[int, int, float]] = []
    for start in range(0, len(left), _ROWS_AT_ONCE):
        chunk = left[start : start + _ROWS_AT_ONCE]
        shared = (_sparse(chunk, len(columns)) @ transposed).tocoo()  # [chunk, offered]
        left_sizes = np.array([len(row) for row in chunk])
        jaccard = shared.data / (left_sizes[shared.row] + right_sizes[shared.col] - shared.data)
        near = jaccard >= NEAR_DUPLICATE
        found += zip(
            (shared.row[near] + start).tolist(), shared.col[near].tolist(), jaccard[near].tolist(), strict=True
        )
    return tuple(sorted(found))


def _number_shingles(texts: Sequence[str], columns: dict[str, int]) -> list[list[int]]:
    """Return the columns of each text's shingles, new ones for those unseen; a short text is one shingle."""
    cut = ({text[i : i + _SHINGLE] for i in range(max(1, len(text) - _SHINGLE + 1))} for text in texts)
    return [[columns.setdefault(shingle, len(columns)) for shingle in shingles] for shingles in cut]


def _sparse(rows: Sequence[Sequence[int]], width: int) -> "csr_array[Any]":
    """Return rows of ones, [rows, width]."""
    from scipy.sparse import csr_array

    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    indices = np.array([column for row in rows for column in row], np.int64)
    return csr_array((np.ones(len(indices), np.int32), indices, indptr), shape=(len(rows), width))
