"""Quasi-F test of a variance component whose expected mean square contains several other components.

Under the null hypothesis that the component is zero, the expected mean square of its effect is a signed sum of the
mean squares of larger effects. The terms are therefore distributed over the numerator and the denominator of the
ratio so that none of them is subtracted, and each side gets Satterthwaite's degrees of freedom (1946,
https://doi.org/10.2307/3002019; quasi F ratios in Winer, 1971, chapter 5). With a single larger effect this is the
exact F test. In simulations the 5 % test has a level of 2 to 8 %, and of up to 10 % if every factor has only two
levels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

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


def subsets(axes: Sequence[int]) -> Iterator[Axes]:
    """Yield every non-empty subset of axes."""
    return chain.from_iterable(combinations(axes, size) for size in range(1, len(axes) + 1))


def own_axes(axes: Sequence[int], nested: Nested | None) -> Axes:
    """Return the axes that identify an effect: all but the host of a nested axis, which is implied."""
    implied = nested.host if nested and nested.axis in axes else None
    return tuple(axis for axis in sorted(axes) if axis != implied)


def quasi_f(effects: Mapping[Axes, SumOfSquares], axes: Axes, num_axes: int, nested: Nested | None) -> float:
    """Return the p-value of an effect: the probability of so large a mean square if its component were zero.

    Args:
        effects: All effects of the design, by their own axes.
        axes: The effect's own axes.
        num_axes: Number of axes, including the questions.
        nested: The nested axis and its host; None if no axis is nested.
    """
    from scipy.special import fdtrc

    above: list[SumOfSquares] = [effects[axes]]
    below: list[SumOfSquares] = []
    for added, larger in _list_larger_effects(axes, num_axes, nested):
        (below if added % 2 else above).append(effects[larger])
    if effects[axes].mean_square == 0.0:
        return 1.0
    noise = sum(effect.mean_square for effect in below)
    if noise == 0.0:  # the effect is the same for every question
        return 0.0
    ratio = sum(effect.mean_square for effect in above) / noise
    return float(fdtrc(_degrees(above), _degrees(below), ratio))


def _list_larger_effects(axes: Axes, num_axes: int, nested: Nested | None) -> Iterator[tuple[int, Axes]]:
    """Yield the larger effects whose signed mean squares give this effect's expected mean square under the null.

    Each comes with the number of axes it adds, which determines its sign by inclusion and exclusion. A nested axis is
    added only to a set that contains its host.
    """
    held = {*axes, nested.host} if nested and nested.axis in axes else {*axes}
    free = [
        axis
        for axis in range(num_axes)
        if axis not in held and not (nested and axis == nested.axis and nested.host not in held)
    ]
    for added in subsets(free):
        yield len(added), own_axes([*held, *added], nested)


def _degrees(effects: Sequence[SumOfSquares]) -> float:
    """Return the degrees of freedom of a sum of mean squares."""
    total = sum(effect.mean_square for effect in effects)
    return total**2 / sum(effect.mean_square**2 / effect.degrees for effect in effects)
