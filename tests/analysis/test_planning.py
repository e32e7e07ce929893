import time

import numpy as np
import pytest
import scipy.stats

from icl_eval.analysis.crossed import Components, crossed_mean
from icl_eval.analysis.pilots import find_draws_interval
from icl_eval.analysis.planning import (
    ANY_NUMBER,
    Costs,
    Goal,
    compute_power,
    compute_power_of_flips,
    count_questions_of_flips,
    describe_mix,
    find_best,
    find_cheapest,
    find_smallest_difference,
)
from icl_eval.analysis.significance import mcnemar, share_difference_p_value

GOAL = Goal(0.08, 0.8, 0.05)
PILOT = Components(draws=0.003, questions=0.1, residual=0.12)


def simulate_power(components, difference, num_draws, num_questions, level=0.05, repetitions=600):
    """Return how often the test of `icl-eval compare` rejects, with normal effects of these variances."""
    generator = np.random.default_rng(0)
    sizes = {
        (num_draws, 1): components.draws,
        (1, num_questions): components.questions,
        (num_draws, num_questions): components.residual,
    }
    found = 0
    for _ in range(repetitions):
        values = difference + sum(generator.normal(0, variance**0.5, size) for size, variance in sizes.items())
        found += crossed_mean(values).p_value() < level
    return found / repetitions


@pytest.mark.parametrize(
    ("components", "difference", "num_draws", "num_questions"),
    [
        (Components(0.0, 0.15, 0.1), 0.1, 5, 64),
        (Components(0.0, 0.0, 0.2), 0.05, 4, 300),
        (Components(0.004, 0.15, 0.1), 0.2, 3, 64),
        (Components(0.001, 0.1, 0.1), 0.15, 2, 200),
        (Components(0.005, 0.1, 0.1), 0.08, 5, 500),
        (Components(0.003, 0.1, 0.15), 0.06, 20, 100),
        (Components(0.004, 0.0, 0.1), 0.08, 8, 64),
    ],
)
def test_the_planned_power_is_the_simulated_one(components, difference, num_draws, num_questions):
    planned = compute_power(components, difference, 0.05, num_draws, num_questions)
    assert planned == pytest.approx(simulate_power(components, difference, num_draws, num_questions), abs=0.05)


def test_a_plan_that_is_asked_for_a_power_gives_it():
    for level in (0.05, 0.01):
        goal = Goal(0.08, 0.8, level)
        mix = find_cheapest(PILOT, goal, Costs(prefix=200, question=40))
        assert mix.power == pytest.approx(0.8, abs=0.01)
        found = simulate_power(PILOT, goal.difference, mix.draws, mix.questions, level)
        assert found == pytest.approx(0.8, abs=0.05)


def test_answers_that_are_right_or_wrong_are_planned_as_well():
    generator = np.random.default_rng(1)

    def answer(num_draws, num_questions, difference):
        liking = generator.normal(0, 0.05, (num_draws, 1))
        hard = generator.uniform(0.1, 0.8, (1, num_questions))
        before, after = (
            generator.random((num_draws, num_questions)) < hard + shift for shift in (0.0, difference + liking)
        )
        return after.astype(float) - before

    parts = [crossed_mean(answer(8, 300, 0.06)).components for _ in range(40)]
    names = ("draws", "questions", "residual")
    components = Components(*(float(np.mean([getattr(part, name) for part in parts])) for name in names))
    planned = compute_power(components, 0.06, 0.05, 6, 200)
    found = np.mean([crossed_mean(answer(6, 200, 0.06)).p_value() < 0.05 for _ in range(600)])
    assert planned == pytest.approx(found, abs=0.05)


def test_the_smallest_difference_has_the_power_that_is_asked_for():
    smallest = find_smallest_difference(PILOT, GOAL, 5, 100)
    assert compute_power(PILOT, smallest, 0.05, 5, 100) == pytest.approx(0.8, abs=1e-3)
    assert compute_power(PILOT, -smallest, 0.05, 5, 100) == pytest.approx(0.8, abs=1e-3)  # the test is two-sided
    assert find_smallest_difference(Components(0.0, 0.0, 0.0), GOAL, 5, 100) == 0.0


def test_one_question_more_adds_about_as_much_power_whatever_the_number():
    steps = np.diff([compute_power(PILOT, 0.08, 0.05, 5, questions) for questions in range(95, 108)])
    assert steps == pytest.approx(steps.mean(), rel=0.1)


def test_the_error_is_worked_out_by_hand_and_more_questions_leave_that_of_the_draws():
    mix = describe_mix(PILOT, GOAL, 5, 100)
    assert mix.stderr == pytest.approx((0.003 / 5 + 0.1 / 100 + 0.12 / 500) ** 0.5)
    limit = describe_mix(PILOT, GOAL, 5, ANY_NUMBER)
    assert limit.stderr == pytest.approx((0.003 / 5) ** 0.5, rel=1e-4)
    assert limit.power > mix.power
    assert find_cheapest(Components(1.0, 0.1, 0.1), GOAL, Costs(1, 1)) is None  # draws alone are too many


def test_the_cheapest_mix_is_that_of_a_search_over_all_and_the_best_uses_its_budget():
    costs = Costs(prefix=500, question=40)
    cheapest = find_cheapest(PILOT, GOAL, costs)
    price = costs.total(cheapest.draws, cheapest.questions)
    for num_draws in range(2, 40):
        for questions in range(16, 400, 16):
            if compute_power(PILOT, GOAL.difference, 0.05, num_draws, questions) >= 0.8:
                assert costs.total(num_draws, questions) >= 0.98 * price
    best = find_best(PILOT, GOAL, costs, price)
    assert costs.total(best.draws, best.questions) <= price
    assert best.power >= cheapest.power - 0.01
    assert find_best(PILOT, GOAL, costs, 1100) is None
    assert costs.afford(price, 5) == int((price / 5 - 500) / 40)


def test_connors_number_of_questions_is_the_published_one_and_has_about_the_power():
    goal = Goal(0.05, 0.8, 0.05)
    assert count_questions_of_flips(goal, 0.2) == 626
    drawn = np.random.default_rng(2).multinomial(626, [0.125, 0.075, 0.8], size=1500)[:, :2].tolist()
    simulated = np.mean([share_difference_p_value(*flipped, 626) < 0.05 for flipped in drawn])
    planned = compute_power_of_flips(goal, 0.2, 626)
    assert planned == pytest.approx(0.8, abs=0.01)
    assert planned == pytest.approx(simulated, abs=0.04)
    assert np.mean([mcnemar(*flipped) < 0.05 for flipped in drawn]) < planned


@pytest.mark.parametrize(("difference", "flips", "num_questions"), [(0.1, 0.3, 40), (0.25, 0.26, 12), (0.2, 1.0, 9)])
def test_the_power_of_one_draw_is_the_sum_over_all_numbers_of_questions_gained_and_lost(
    difference, flips, num_questions
):
    shares = ((flips + difference) / 2, (flips - difference) / 2, 1 - flips)
    expected = sum(
        scipy.stats.multinomial.pmf((gained, lost, num_questions - gained - lost), num_questions, shares)
        for gained in range(num_questions + 1)
        for lost in range(num_questions + 1 - gained)
        if share_difference_p_value(gained, lost, num_questions) < 0.05
    )
    assert compute_power_of_flips(Goal(difference, 0.8, 0.05), flips, num_questions) == pytest.approx(expected)


def test_a_study_of_half_a_million_questions_is_planned_at_once():
    goal = Goal(0.002, 0.8, 0.05)
    start = time.perf_counter()
    number = count_questions_of_flips(goal, 0.3)
    assert compute_power_of_flips(goal, 0.3, number) == pytest.approx(0.8, abs=0.001)
    assert number > 500_000
    assert time.perf_counter() - start < 5


def test_a_power_that_the_test_has_without_a_difference_is_no_traceback():
    few = Components(draws=0.1, questions=0.1, residual=0.12)
    assert find_smallest_difference(few, Goal(0.1, 0.06, 0.05), 2, 100) == 0.0
    assert find_smallest_difference(few, Goal(0.1, 0.2, 0.05), 2, 100) > 0.0


def test_the_interval_of_the_variance_of_draws_covers_it():
    generator = np.random.default_rng(3)
    covered = []
    for _ in range(200):
        values = (
            generator.normal(0, 0.05, (6, 1)) + generator.normal(0, 0.3, (1, 80)) + generator.normal(0, 0.3, (6, 80))
        )
        found = crossed_mean(values).components
        low, high = find_draws_interval(found, 6, 80)
        covered.append(low <= 0.0025 <= high)
    assert 0.9 <= np.mean(covered) <= 0.995
