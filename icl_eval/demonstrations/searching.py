"""Searching: the best candidates of a large pool, without comparing or sorting all of them exactly."""

from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import islice

import numpy as np
import numpy.typing as npt

from icl_eval.demonstrations.encoder import Encoder
from icl_eval.demonstrations.ranking import Allowed, Demonstration, Ranking, draw_tie_breaks, round_similarities
from icl_eval.demonstrations.vectors import Float32Array
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Exactly = Callable[[Indices], Floats]
"""Maps some rows of a pool to their scores, rounded to six decimals."""
Choose = Callable[[Floats, Floats], Iterator[int]]
"""Maps the cosines of candidates to the question, [candidates], and their unit vectors, [candidates, size], to their
places in the order of choice. The first of equally good ones is the one to choose."""

SLACK = 1e-5
"""The most by which an approximate similarity is wrong: float32, and rounding to six decimals."""

_FIRST_LOOK = 64
_EMBEDDED_TOGETHER = 1024
_COMPARED_TOGETHER = 32


def best_first(
    approximate: npt.NDArray[np.floating], exactly: Exactly, allowed: Allowed, ties: Indices
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
        done, size = max(done, certain), 4 * size


class PoolSimilarities:
    """Cosine similarities of a task's pool to its questions, approximately for many of both, exactly for a few."""

    def __init__(self, task: Task, encoder: Encoder) -> None:
        """Compute nothing yet: the pool is embedded when the first question is compared."""
        self._task = task
        self._encoder = encoder
        self._places = {question.id: place for place, question in enumerate(task.examples)}
        self._embedded: tuple[range, Float32Array] = (range(0), np.empty((0, 0), np.float32))
        self._compared: tuple[range, Float32Array] = (range(0), np.empty((0, 0), np.float32))

    @cached_property
    def vectors(self) -> Float32Array:
        """The pool as unit vectors, [pool, size]."""
        return self._encoder.embed(self._task.pool)

    def compare(self, question: Example) -> tuple[Float32Array, Exactly]:
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

    def measure(self, rows: Indices, vector: Float32Array) -> Floats:
        """Return the rounded cosines of some candidates to a unit vector, [rows]."""
        return round_similarities(self.vectors[rows].astype(np.float64) @ vector.astype(np.float64))

    def _embed_around(self, place: int) -> tuple[range, Float32Array]:
        if place not in self._embedded[0]:
            span = _span(place, _EMBEDDED_TOGETHER, len(self._task.examples))
            self._embedded = span, self._encoder.embed(self._task.examples[span.start : span.stop])
        return self._embedded

    def _compare_around(self, place: int) -> tuple[range, Float32Array]:
        if place not in self._compared[0]:
            span, embedded = self._embed_around(place)
            block = _span(place, _COMPARED_TOGETHER, len(self._task.examples))
            self._compared = block, embedded[block.start - span.start : block.stop - span.start] @ self.vectors.T
        return self._compared


def _span(place: int, size: int, end: int) -> range:
    start = place - place % size
    return range(start, min(start + size, end))


def rerank(task: Task, encoder: Encoder, seed: int, candidates: int, choose: Choose) -> Ranking:
    """Return the ranking of a strategy that chooses from the nearest candidates, one after the other.

    Args:
        task: The task.
        encoder: The encoder of its questions and its pool.
        seed: Seed of the draw that breaks ties.
        candidates: The number of nearest candidates that are chosen from. The others follow by similarity.
        choose: Yields the order of choice.
    """
    similarities = PoolSimilarities(task, encoder)
    ties = draw_tie_breaks(task.pool, seed)

    def rank(question: Example, allowed: Allowed) -> Iterator[Demonstration]:
        by_similarity = best_first(*similarities.compare(question), allowed, ties)
        listed = sorted(islice(by_similarity, min(candidates, len(task.pool))), key=lambda each: ties[each[0]])
        rows, cosines = np.array([row for row, _ in listed], np.int64), np.array([cosine for _, cosine in listed])
        for place in choose(cosines, similarities.vectors[rows].astype(np.float64)):
            yield Demonstration(task.pool[rows[place]], float(cosines[place]))
        for row, cosine in by_similarity:
            yield Demonstration(task.pool[row], cosine)

    return rank
