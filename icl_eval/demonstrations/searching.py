"""Searching: the best candidates of a large pool, without comparing or sorting all of them exactly."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from icl_eval.demonstrations.encoder import Encoder
from icl_eval.demonstrations.ranking import Allowed, Demonstration, Ranking, draw_tie_breaks, round_similarities
from icl_eval.demonstrations.vectors import FloatArray
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Exactly = Callable[[Rows], Floats]
"""Maps some rows of a pool to their scores, rounded to six decimals."""

SLACK = 1e-5
"""The most by which an approximate similarity is wrong: float32, and rounding to six decimals."""

_FIRST_LOOK = 64
_ACTIVE = 1024
_EVALUATED_TOGETHER = 128
_EMBEDDED_TOGETHER = 1024
_COMPARED_TOGETHER = 32


def best_first(
    approximate: npt.NDArray[np.floating], exactly: Exactly, allowed: Allowed, ties: Rows
) -> Iterator[tuple[int, float]]:
    """Yield rows and their scores by descending score, equal ones by ascending tie-break.

    Args:
        approximate: The scores of the pool to within `SLACK`, [pool].
        exactly: Returns the scores of some rows.
        allowed: The rows that are ranked, [pool].
        ties: Positions in the order that breaks ties, [pool].
    """
    rows = np.flatnonzero(allowed)
    scores = approximate[rows]
    done, size = 0, _FIRST_LOOK
    while done < len(rows):
        cut = np.partition(scores, -size)[-size] if size < len(rows) else -np.inf
        near = rows[scores >= cut]  # the score of every other row is at most cut + SLACK
        values = exactly(near)
        order = np.lexsort((ties[near], -values))
        certain = int((values > cut + SLACK).sum())
        for place in order[done:certain]:
            yield int(near[place]), float(values[place])
        done, size = max(done, certain), 8 * size


def best_choices(bounds: Floats, gain: Exactly, ties: Rows) -> Iterator[int]:
    """Yield rows in the order of a greedy choice: each time the one with the largest gain, of equal ones by tie-break.

    A gain must not grow as more rows are chosen, so that an old gain bounds a new one, and only the rows with the
    largest bounds are evaluated (the accelerated greedy algorithm: Minoux, 1978, https://doi.org/10.1007/BFb0006528).

    Args:
        bounds: Upper bounds of the first gains, minus infinity for rows that are not chosen from, [pool].
        gain: Returns the gains of some rows, given all that were yielded before.
        ties: Positions in the order that breaks ties, [pool].
    """
    bounds, size = bounds.copy(), _ACTIVE
    active, outside = _split(bounds, size)
    while len(active):
        evaluated, best = np.empty(0, np.int64), -np.inf
        for part in _descend(active, bounds):
            if bounds[part[0]] < best:
                break
            bounds[part] = gain(part)
            evaluated = np.concatenate([evaluated, part])
            best = bounds[evaluated].max()
        if best <= outside:  # a row that is not active may have a larger gain, or the same one
            size *= 4
            active, outside = _split(bounds, size)
            continue
        equal = evaluated[bounds[evaluated] == best]
        row = int(equal[np.argmin(ties[equal])])
        yield row
        bounds[row] = -np.inf
        active = active[active != row]
        if not len(active):
            active, outside = _split(bounds, size)


def _descend(rows: Rows, bounds: Floats) -> Iterator[Rows]:
    """Yield rows by descending bound, a few at a time; the bounds of those that were yielded may change."""
    old, done, size = bounds[rows], 0, 2 * _EVALUATED_TOGETHER
    while done < len(rows):
        cut = np.partition(old, -size)[-size] if size < len(rows) else -np.inf
        largest = np.flatnonzero(old >= cut)
        order = largest[np.argsort(-old[largest], kind="stable")]  # the next one begins with it
        while done < len(order):
            yield rows[order[done : done + _EVALUATED_TOGETHER]]
            done += _EVALUATED_TOGETHER
        size *= 8


def _split(bounds: Floats, size: int) -> tuple[Rows, float]:
    """Return the rows with the largest bounds, and the largest bound of the others."""
    rows = np.flatnonzero(bounds > -np.inf)
    if len(rows) <= size:
        return rows, -np.inf
    order = np.argpartition(-bounds[rows], size)
    return rows[order[:size]], float(bounds[rows[order[size]]])


class PoolSimilarities:
    """Cosine similarities of a task's pool to its questions, approximately for many of both, exactly for a few."""

    def __init__(self, task: Task, encoder: Encoder) -> None:
        """Compute nothing yet: the pool is embedded when the first question is compared."""
        self._task = task
        self._encoder = encoder
        self._places = {question.id: place for place, question in enumerate(task.examples)}
        self._embedded: tuple[range, FloatArray] = (range(0), np.empty((0, 0), np.float32))
        self._compared: tuple[range, FloatArray] = (range(0), np.empty((0, 0), np.float32))

    @cached_property
    def vectors(self) -> FloatArray:
        """The pool as unit vectors, [pool, size]."""
        return self._encoder.embed(self._task.pool)

    def compare(self, question: Example) -> tuple[FloatArray, Exactly]:
        """Return a question's cosines to the pool to within `SLACK`, [pool], and a function from rows to exact ones.

        The questions that follow it in the task are compared with it, since one product of matrices takes much less
        time than many products with a vector.
        """
        place = self._places.get(question.id, -1)
        if place < 0 or self._task.examples[place].inputs != question.inputs:
            vector = self._encoder.embed([question])[0]
            return self.vectors @ vector, lambda rows: self.measure(rows, vector)
        span, embedded = self._embed_around(place)
        vector = embedded[place - span.start]
        block, cosines = self._compare_around(place)
        return cosines[place - block.start], lambda rows: self.measure(rows, vector)

    def measure(self, rows: Rows, vector: FloatArray) -> Floats:
        """Return the rounded cosines of some candidates to a unit vector, [rows]."""
        return round_similarities(self.vectors[rows].astype(np.float64) @ vector.astype(np.float64))

    def between(self, rows: Rows, others: Sequence[int]) -> Floats:
        """Return the cosines of some candidates to others, [rows, others]."""
        return self.vectors[rows].astype(np.float64) @ self.vectors[others].astype(np.float64).T

    def _embed_around(self, place: int) -> tuple[range, FloatArray]:
        if place not in self._embedded[0]:
            span = _span(place, _EMBEDDED_TOGETHER, len(self._task.examples))
            self._embedded = span, self._encoder.embed(self._task.examples[span.start : span.stop])
        return self._embedded

    def _compare_around(self, place: int) -> tuple[range, FloatArray]:
        if place not in self._compared[0]:
            span, embedded = self._embed_around(place)
            block = _span(place, _COMPARED_TOGETHER, len(self._task.examples))
            self._compared = block, embedded[block.start - span.start : block.stop - span.start] @ self.vectors.T
        return self._compared


def _span(place: int, size: int, end: int) -> range:
    start = place - place % size
    return range(start, min(start + size, end))


class Choose(Protocol):
    """Chooses candidates by their vectors, one after the other."""

    def __call__(
        self, similarities: PoolSimilarities, approximate: FloatArray, exactly: Exactly, allowed: Allowed, ties: Rows, /
    ) -> Iterator[int]:
        """Yield the rows of the candidates in the order of choice.

        Args:
            similarities: The vectors of the pool.
            approximate: Its cosines to the question to within `SLACK`, [pool].
            exactly: The cosines of some rows.
            allowed: The rows to choose from, [pool].
            ties: Positions in the order that breaks ties, [pool].
        """


def rank_by_choice(task: Task, encoder: Encoder, seed: int, choose: Choose) -> Ranking:
    """Return the ranking of a strategy that chooses candidates by their vectors, one after the other."""
    similarities = PoolSimilarities(task, encoder)
    ties = draw_tie_breaks(task.pool, seed)

    def rank(question: Example, allowed: Allowed) -> Iterator[Demonstration]:
        approximate, exactly = similarities.compare(question)
        for row in choose(similarities, approximate, exactly, allowed, ties):
            yield Demonstration(task.pool[row], float(exactly(np.array([row]))[0]))

    return rank
