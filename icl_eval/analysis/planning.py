"""Planning: how many draws of demonstrations and questions a study needs, from the records of a pilot.

A pilot of a few draws shows the variances of draws, of questions and of both together (`icl_eval.analysis.crossed`),
and what a prompt costs. From these follow the standard error of any number of draws and questions, and the power of the
test that `icl-eval compare` makes over draws: its mean squares are drawn from their distributions (multiples of
chi-squared), the test is made with each, and the normal distribution of the mean gives the chance that it rejects. So
the power is that of the very test, with its degrees of freedom and with variances that are never less than zero.

Without a pilot, the share of questions that flip decides the size of a study with one draw (Connor, 1987,
https://doi.org/10.2307/2531961; Miller, 2024, https://arxiv.org/abs/2411.00640).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from icl_eval.analysis.crossed import Components, combine
from icl_eval.metrics.intervals import FloatArray

ANY_NUMBER = 10**9
"""A number of questions whose sampling error is gone."""
MAX_QUESTIONS = 1_000_000
MAX_DRAWS = 100
_NUM_SIMULATED = 1000


@dataclass(frozen=True)
class Goal:
    """What a study should find."""

    difference: float
    """The true difference, in units of the score."""
    power: float
    """The chance to find it."""
    level: float
    """The size of each test, corrected for the number of tests."""


@dataclass(frozen=True)
class Costs:
    """What one draw costs: `prefix + questions * question`, in tokens or in minutes."""

    prefix: float
    """The demonstrations, which are computed once if all questions share them."""
    question: float

    def total(self, num_draws: int, num_questions: int) -> float:
        """Return the cost of so many draws and questions."""
        return num_draws * (self.prefix + num_questions * self.question)

    def afford(self, budget: float, num_draws: int) -> int:
        """Return how many questions a budget allows."""
        return max(0, math.floor((budget / num_draws - self.prefix) / self.question))


@dataclass(frozen=True)
class Mix:
    """A number of draws and of questions, and what they find."""

    draws: int
    questions: int
    stderr: float
    smallest_difference: float
    """The smallest true difference that is found with the goal's power."""
    power: float
    """The chance to find the goal's difference."""


def describe_mix(components: Components, goal: Goal, num_draws: int, num_questions: int) -> Mix:
    """Return what so many draws (two or more) and questions find."""
    return Mix(
        num_draws,
        num_questions,
        components.stderr(num_draws, num_questions),
        find_smallest_difference(components, goal, num_draws, num_questions),
        compute_power(components, goal.difference, goal.level, num_draws, num_questions),
    )


def compute_power(components: Components, difference: float, level: float, num_draws: int, num_questions: int) -> float:
    """Return the chance that the test over draws and questions rejects, for a true difference.

    Args:
        components: The variances of the differences.
        difference: The true difference.
        level: The size of the test, such as 0.05.
        num_draws: Number of draws, two or more.
        num_questions: Number of questions, two or more.
    """
    return _power_function(components, level, num_draws, num_questions)(difference)


def find_smallest_difference(components: Components, goal: Goal, num_draws: int, num_questions: int) -> float:
    """Return the smallest true difference that is found with the goal's power.

    It is 0 where the test rejects that often without a difference: with few degrees of freedom its size is not exact.
    """
    from scipy.optimize import brentq

    power = _power_function(components, goal.level, num_draws, num_questions)
    stderr = components.stderr(num_draws, num_questions)
    if stderr == 0.0 or power(0.0) >= goal.power:
        return 0.0
    high = 4 * stderr
    while power(high) < goal.power:
        high *= 2
    return float(brentq(lambda difference: power(difference) - goal.power, 0.0, high, xtol=1e-6 * stderr))


def find_cheapest(components: Components, goal: Goal, costs: Costs) -> Mix | None:
    """Return the cheapest numbers of draws and questions with the goal's power; None if none has it."""
    best: tuple[float, int, int] | None = None
    for num_draws in range(2, MAX_DRAWS + 1):
        most = MAX_QUESTIONS if best is None else min(MAX_QUESTIONS, costs.afford(best[0], num_draws) - 1)
        questions = _find_questions(components, goal, num_draws, most)
        if questions is not None:
            best = (costs.total(num_draws, questions), num_draws, questions)
    return describe_mix(components, goal, *best[1:]) if best else None


def find_best(components: Components, goal: Goal, costs: Costs, budget: float) -> Mix | None:
    """Return the numbers of draws and questions with the most power within a budget; None if it allows no study."""
    affordable = [(num_draws, costs.afford(budget, num_draws)) for num_draws in range(2, MAX_DRAWS + 1)]
    mixes = [
        (-compute_power(components, goal.difference, goal.level, num_draws, questions), num_draws, questions)
        for num_draws, questions in affordable
        if questions >= 2
    ]
    return describe_mix(components, goal, *min(mixes)[1:]) if mixes else None


def _find_questions(components: Components, goal: Goal, num_draws: int, most: int) -> int | None:
    """Return the smallest number of questions with the goal's power, to within 0.5 %; None if `most` do not have it."""

    def reaches(questions: int) -> bool:
        return compute_power(components, goal.difference, goal.level, num_draws, questions) >= goal.power

    if most < 2 or not reaches(most):
        return None
    low, high = 1, most
    while high - low > max(1, low // 200):
        middle = round((low * high) ** 0.5) if high > 4 * low else (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def _power_function(
    components: Components, level: float, num_draws: int, num_questions: int
) -> Callable[[float], float]:
    """Return the function from a true difference to the power of the test."""
    from scipy.special import ndtr, stdtrit

    draws, questions, residual = components.parts(num_draws, num_questions)
    error = (draws + questions + residual) ** 0.5
    if error == 0.0:
        return lambda difference: float(difference != 0.0)
    rows, columns = num_draws - 1, num_questions - 1
    squared, degrees = combine(
        (draws + residual) * _draw_ratios(rows, 0),
        (questions + residual) * _draw_ratios(columns, 1),
        residual * _draw_ratios(rows * columns, 2),
        num_draws,
        num_questions,
    )
    reach = stdtrit(degrees, 1 - level / 2) * squared**0.5  # [simulated]: what a mean must exceed to be significant

    def power(difference: float) -> float:
        found = ndtr((difference - reach) / error) + ndtr((-difference - reach) / error)
        return float(found.mean())

    return power


@cache
def _draw_ratios(degrees: int, stream: int) -> FloatArray:
    """Return simulated ratios of a mean square with so many degrees of freedom to its expectation.

    They are quantiles of one sample of uniform numbers, so that the power is a smooth function of the design.
    """
    from scipy.special import chdtri, ndtri

    uniform = np.random.default_rng((0, stream)).permutation((np.arange(_NUM_SIMULATED) + 0.5) / _NUM_SIMULATED)
    ratios: FloatArray
    if degrees > 100:  # Wilson and Hilferty's approximation (1931), which is much faster
        ratios = (1 - 2 / (9 * degrees) - ndtri(uniform) * (2 / (9 * degrees)) ** 0.5) ** 3
    else:
        ratios = chdtri(degrees, uniform) / degrees
    return ratios


def count_questions_of_flips(goal: Goal, flips: float) -> int:
    """Return the number of questions with which a test of one draw finds a difference of shares.

    n = (z_a √ψ + z_b √(ψ - d²))² / d², where ψ is the share of questions that only one system has right (Connor, 1987).

    Args:
        goal: The goal; its difference is less than `flips`.
        flips: The share of questions that flip, in either direction.
    """
    from scipy.special import ndtri

    difference = abs(goal.difference)
    reach = ndtri(1 - goal.level / 2) * flips**0.5 + ndtri(goal.power) * (flips - difference**2) ** 0.5
    return math.ceil(float(reach**2 / difference**2))


def compute_power_of_flips(goal: Goal, flips: float, num_questions: int) -> float:
    """Return the chance that the test of one draw (Bonett and Price's) finds a difference of shares.

    Args:
        goal: The goal; its difference is not larger than `flips`.
        flips: The share of questions that flip, in either direction.
        num_questions: The number of questions.
    """
    from scipy.special import ndtri
    from scipy.stats import binom

    squared = float(ndtri(1 - goal.level / 2)) ** 2
    reach = 8 * (num_questions * flips * (1 - flips)) ** 0.5 + 8
    centre = num_questions * flips
    flipped = np.arange(max(0, math.floor(centre - reach)), min(num_questions, math.ceil(centre + reach)) + 1)
    # the test rejects where the questions gained and lost differ in number by more than this
    least = (squared * (flipped + 2) / (1 + squared / (num_questions + 2))) ** 0.5
    gained = (flips + goal.difference) / (2 * flips)
    above = binom.sf(np.floor((flipped + least) / 2), flipped, gained)
    below = binom.cdf(np.ceil((flipped - least) / 2) - 1, flipped, gained)
    return float((binom.pmf(flipped, num_questions, flips) * (above + below)).sum())
