import numpy as np
import pytest
import scipy.stats
from scipy.special import ndtr

from icl_eval.analysis.generalised import draw_expectations, interval_of
from icl_eval.analysis.mean_squares import Nested, coefficients, mean_squares, sums_of_squares
from icl_eval.analysis.variance import QUESTIONS, variance_components

FACTORS = ("template", "demonstrations.seed", "order.seed")
WITHIN = ("order.seed", "demonstrations.seed")
PRESET = (3, 4, 3, 64)
"""Levels of the default `experiment=variance`, with 64 questions."""
SHARED_AXES = {("template",): (0,), ("demonstrations.seed",): (1,), ("order.seed",): (1, 2)}


def planted(generator, effects):
    """Return normal values, each set of axes adding a standard deviation."""
    values = np.zeros(PRESET)
    for axes, deviation in effects.items():
        values = values + generator.normal(
            0, deviation, [length if axis in axes else 1 for axis, length in enumerate(PRESET)]
        )
    return values


def true_variances(covariance):
    """Return the variances of the factors and of one score, from the covariance of answers that share some axes."""
    variances = {factors: covariance(axes) for factors, axes in SHARED_AXES.items()}
    variances["order.seed",] -= variances["demonstrations.seed",]
    of_cells = covariance((0, 1, 2))
    return variances, of_cells + (covariance((0, 1, 2, 3)) - of_cells) / PRESET[-1]


def covered(truth, tables):
    """Return how often the intervals of variances, of shares and of the test set hold what was planted."""
    variances, total = truth
    found = {factors: [] for factors in variances}
    test_set = []
    for table in tables:
        components, at_least = variance_components(table, FACTORS, WITHIN)
        for each in components:
            if each.factors in variances:
                low, high = each.variance_ci95
                least, most = each.share_ci95
                variance = variances[each.factors]
                found[each.factors] += [low <= variance <= high, least <= variance / total <= most]
        of_cells = sum(variances.values())
        test_set.append(at_least <= 1 - of_cells / total + 1e-9)
    return {factors: np.mean(each) for factors, each in found.items()} | {QUESTIONS: np.mean(test_set)}


def normal(effects):
    return lambda axes: sum(deviation**2 for own, deviation in effects.items() if set(own) <= set(axes))


def right(effects):
    """Return the covariance of right answers: of a pair of normals with mean 0 that share axes, in closed form."""
    total = 1 + sum(deviation**2 for deviation in effects.values())
    return lambda axes: 0.25 if len(axes) == 4 else np.arcsin(normal(effects)(axes) / total) / (2 * np.pi)


EFFECTS = {(0,): 0.02, (1,): 0.03, (1, 2): 0.02, (3,): 0.4, (0, 1, 2, 3): 0.3, (1, 3): 0.1}
QUESTIONS_ALONE = {(3,): 0.4, (0, 1, 2, 3): 0.3}
CHANCES = {(0,): 0.2, (1,): 0.3, (1, 2): 0.2, (3,): 1.0, (0, 1, 2, 3): 0.5}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("effects", "is_right"),
    [(EFFECTS, False), (QUESTIONS_ALONE, False), (CHANCES, True), ({(3,): 1.0, (0, 1, 2, 3): 0.5}, True)],
)
def test_intervals_hold_what_was_planted_in_91_to_100_of_100_sweeps(effects, is_right):
    generator = np.random.default_rng(0)
    tables = [planted(generator, effects) for _ in range(400)]
    if is_right:
        tables = [(generator.random(PRESET) < ndtr(table)).astype(float) for table in tables]
    found = covered(true_variances((right if is_right else normal)(effects)), tables)
    assert min(found.values()) >= 0.91, found
    assert all(found[factors] <= 0.995 for factors in SHARED_AXES), found


def test_intervals_hold_planted_shares_in_91_to_99_of_100_draws_of_mean_squares():
    generator = np.random.default_rng(1)
    inside = Nested(2, 1)
    effects = sums_of_squares(planted(generator, EFFECTS), inside)
    order, degrees = list(effects), [effect.degrees for effect in effects.values()]
    matrix = coefficients(PRESET, order, inside)
    matrix[[3 in axes for axes in order]] /= PRESET[-1]
    own = {(0,): 0.02, (1,): 0.03, (2,): 0.02, (3,): 0.05, (0, 2, 3): 0.3 / 8, (1, 3): 0.1 / 8}
    variances = np.array([own.get(axes, 0.0) ** 2 for axes in order])
    expected = np.linalg.solve(matrix, variances)
    held = []
    for _ in range(150):
        drawn = expected * generator.chisquare(degrees) / degrees
        components = np.maximum(draw_expectations(drawn, degrees) @ matrix.T, 0.0)
        low, high = interval_of(components[:, order.index((1,))] / components.sum(axis=1))
        held.append(low <= 0.03**2 / variances.sum() <= high)
    assert 0.91 <= np.mean(held) <= 0.99


def test_where_the_test_set_is_all_there_is_its_share_has_no_upper_end_and_the_others_reach_0():
    components, at_least = variance_components(planted(np.random.default_rng(2), QUESTIONS_ALONE), FACTORS, WITHIN)
    assert 0.3 < at_least < 0.95
    options = [each for each in components if QUESTIONS not in each.factors]
    assert all(each.share_ci95[0] == 0.0 for each in options)
    assert max(each.share_ci95[1] for each in options) > 0.05


def test_the_least_share_of_the_test_set_is_the_end_of_a_one_sided_interval():
    values = planted(np.random.default_rng(3), {(0,): 0.1, (3,): 0.4, (0, 1, 2, 3): 0.3})[:, 0, 0]
    (seed, *_), at_least = variance_components(values, ("seed",))
    of_seeds = 1 - seed.share_ci95[1]  # the least share of everything else, with 97.5 %
    assert 0.0 < 1.5 * of_seeds < at_least < 1 - seed.share


def test_the_interval_of_one_mean_square_is_that_of_a_normal_variance():
    low, high = interval_of(draw_expectations(np.array([4.0]), [9])[:, 0])
    exact = [4.0 * 9 / scipy.stats.chi2.ppf(level, 9) for level in (0.975, 0.025)]
    assert (low, high) == pytest.approx(exact, rel=0.08)


def test_mean_squares_solve_for_variances_as_by_hand():
    values = np.random.default_rng(3).random((4, 3, 10))  # orders within draws, by questions
    effects = sums_of_squares(values, Nested(1, 0))
    squares = {axes: effect.mean_square for axes, effect in effects.items()}
    variances = dict(
        zip(effects, coefficients(values.shape, list(effects), Nested(1, 0)) @ mean_squares(effects), strict=True)
    )
    assert effects[(1,)].degrees == 8
    assert variances[(0,)] == pytest.approx((squares[0,] - squares[1,] - squares[0, 2] + squares[1, 2]) / 30)
    assert variances[(1,)] == pytest.approx((squares[1,] - squares[1, 2]) / 10)
    assert variances[(2,)] == pytest.approx((squares[2,] - squares[0, 2]) / 12)
    assert variances[(1, 2)] == pytest.approx(squares[1, 2])
