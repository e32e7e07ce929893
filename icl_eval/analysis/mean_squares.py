"""Mean squares of a balanced crossed design, and the variances that are signed sums of them.

Each set of axes of an array explains a sum of squares beyond its subsets. The expectation of its mean square is the sum
of the variances of all effects whose axes contain its own, each multiplied by the number of values that share one level
of the effect. A variance is therefore a signed sum of mean squares, by inclusion and exclusion over the larger effects
(Searle, Casella and McCulloch, 1992, Variance Components, chapter 4).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from math import prod

import numpy as np

from icl_eval.metrics.intervals import ROUNDING, FloatArray

Axes = tuple[int, ...]


@dataclass(frozen=True)
class Nested:
    """An axis whose levels are drawn anew within each level of another axis, its host."""

    axis: int
    host: int


@dataclass(frozen=True)
class SumOfSquares:
    """The sum of squares that a set of axes explains beyond its subsets."""

    squares: float
    degrees: int
    """Degrees of freedom."""

    @property
    def mean_square(self) -> float:
        """The sum of squares divided by the degrees of freedom."""
        return self.squares / self.degrees


def sums_of_squares(values: FloatArray, nested: Nested | None = None) -> dict[Axes, SumOfSquares]:
    """Return the sum of squares of each effect, by the axes that identify it.

    Args:
        values: One value per combination of levels, `[levels of the first axis, …]`.
        nested: What depends on a nested axis is pooled over its host, which its axes then leave out.
    """
    pooled: defaultdict[Axes, list[SumOfSquares]] = defaultdict(list)
    for axes in _subsets(range(values.ndim)):
        pooled[_own_axes(axes, nested)].append(_sum_of_squares(values, axes))
    return {
        axes: SumOfSquares(sum(each.squares for each in members), sum(each.degrees for each in members))
        for axes, members in pooled.items()
    }


def signs(axes: Axes, num_axes: int, nested: Nested | None) -> Iterator[tuple[Axes, int]]:
    """Yield the effects whose mean squares, with these signs, sum up to a multiple of an effect's variance.

    The effect itself comes first. A nested axis is added only to a set that contains its host.
    """
    held = _held(axes, nested)
    free = [
        axis
        for axis in range(num_axes)
        if axis not in held and not (nested and axis == nested.axis and nested.host not in held)
    ]
    yield axes, 1
    for added in _subsets(free):
        yield _own_axes([*held, *added], nested), (-1) ** len(added)


def coefficients(shape: Sequence[int], effects: Sequence[Axes], nested: Nested | None) -> FloatArray:
    """Return the matrix that turns mean squares into variances, `[num_effects, num_effects]`.

    Args:
        shape: The shape of the values.
        effects: The effects, as `sums_of_squares` returns them.
        nested: The nested axis, if there is one.
    """
    matrix = np.zeros((len(effects), len(effects)))
    for row, axes in enumerate(effects):
        held = _held(axes, nested)
        multiple = prod(length for axis, length in enumerate(shape) if axis not in held)
        for other, sign in signs(axes, len(shape), nested):
            matrix[row, effects.index(other)] = sign / multiple
    return matrix


def mean_squares(effects: Mapping[Axes, SumOfSquares]) -> FloatArray:
    """Return the mean squares of effects, `[num_effects]`."""
    return np.array([effect.mean_square for effect in effects.values()])


def _sum_of_squares(values: FloatArray, axes: Axes) -> SumOfSquares:
    effect = values.mean(axis=tuple(axis for axis in range(values.ndim) if axis not in axes), keepdims=True)
    for axis in axes:
        effect = effect - effect.mean(axis=axis, keepdims=True)
    effect[np.abs(effect) < ROUNDING * np.abs(values).max()] = 0.0  # rounding errors must not be tested as effects
    repetitions = values.size / effect.size
    return SumOfSquares(float(repetitions * (effect**2).sum()), prod(values.shape[axis] - 1 for axis in axes))


def _subsets(axes: Sequence[int]) -> Iterator[Axes]:
    """Yield every non-empty subset of axes."""
    return chain.from_iterable(combinations(axes, size) for size in range(1, len(axes) + 1))


def _held(axes: Axes, nested: Nested | None) -> set[int]:
    """Return the axes of an effect with the host that a nested axis implies."""
    return {*axes, nested.host} if nested and nested.axis in axes else {*axes}


def _own_axes(axes: Sequence[int], nested: Nested | None) -> Axes:
    """Return the axes that identify an effect: all but the host of a nested axis, which is implied."""
    implied = nested.host if nested and nested.axis in axes else None
    return tuple(axis for axis in sorted(axes) if axis != implied)
