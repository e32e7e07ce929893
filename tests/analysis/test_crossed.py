import numpy as np
import pytest
import scipy.special
import scipy.stats

from icl_eval.analysis.crossed import Components, crossed_mean
from icl_eval.metrics.intervals import share_interval, student_interval


def test_the_error_is_that_of_the_mean_squares_worked_out_by_hand():
    values = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    draws, questions = values.mean(axis=1), values.mean(axis=0)
    grand = values.mean()
    of_draws = 3 * ((draws - grand) ** 2).sum() / 3
    of_questions = 4 * ((questions - grand) ** 2).sum() / 2
    left = ((values - draws[:, None] - questions + grand) ** 2).sum() / 6
    assert of_draws < left < of_questions  # so that the variance of draws counts as 0
    found = crossed_mean(values)
    assert found.stderr == pytest.approx((of_questions / 12) ** 0.5)
    assert of_questions**2 / (left**2 / 3 + of_questions**2 / 2 + left**2 / 6) < 2
    assert found.degrees == 2  # never fewer than those of the questions or draws alone
    assert found.components.draws == 0.0
    assert found.components.questions == pytest.approx((of_questions - left) / 4)
    assert found.components.residual == pytest.approx(left)


def test_components_give_back_the_error_that_they_come_from():
    values = np.random.default_rng(0).normal(size=(5, 30)) + np.arange(5)[:, None]
    found = crossed_mean(values)
    draws = 30 * values.mean(axis=1).var(ddof=1)
    questions = 5 * values.mean(axis=0).var(ddof=1)
    residuals = values - values.mean(axis=1)[:, None] - values.mean(axis=0) + values.mean()
    left = (residuals**2).sum() / (4 * 29)
    total = draws + questions - left
    assert found.stderr == pytest.approx((total / 150) ** 0.5)
    assert found.degrees == pytest.approx(total**2 / (draws**2 / 4 + questions**2 / 29 + left**2 / 116))
    assert found.components.stderr(5, 30) == pytest.approx(found.stderr)
    assert Components(1.0, 0.0, 0.0).stderr(4, 10) == 0.5


def test_equal_draws_leave_students_interval_of_the_questions_and_equal_questions_that_of_the_draws():
    questions = np.random.default_rng(1).random(20)
    copies = crossed_mean(np.tile(questions, (6, 1)))
    assert copies.interval() == pytest.approx(student_interval(questions))
    draws = np.random.default_rng(2).random(6)
    assert crossed_mean(np.tile(draws[:, None], (1, 20))).interval() == pytest.approx(student_interval(draws))


def test_a_share_at_the_end_of_its_scale_has_the_interval_of_its_questions():
    for share in (0.0, 0.5, 1.0):  # values may be all the same elsewhere, too
        found = crossed_mean(np.full((5, 64), share))
        assert found.interval_within(0, 1) == pytest.approx(share_interval(share, 64))
    assert crossed_mean(np.zeros((5, 8))).p_value() == 1.0


def test_clusters_of_one_question_each_change_nothing_and_those_of_copies_count_once():
    values = np.random.default_rng(3).random((4, 12)) + np.linspace(0, 1, 12)
    alone, grouped = crossed_mean(values), crossed_mean(values, groups=list(range(12)))
    assert (grouped.stderr, grouped.degrees) == pytest.approx((alone.stderr, alone.degrees))
    copied = crossed_mean(np.repeat(values, 3, axis=1), groups=[number // 3 for number in range(36)])
    assert (copied.stderr, copied.degrees) == pytest.approx((alone.stderr, alone.degrees))
    assert copied.components.parts(4, 12) == pytest.approx(alone.components.parts(4, 12))
    assert copied.components.questions > 0


def test_effects_that_add_up_leave_nothing_also_where_clusters_are_uneven():
    values = np.array([[0.0], [1.0], [3.0]]) + np.array([0.0, 1.0, 0.5, 0.25, 2.0, 0.0])
    assert crossed_mean(values, list("aaabbc")).components.residual == pytest.approx(0.0, abs=1e-12)
    uneven = np.random.default_rng(3).random((3, 6))
    assert crossed_mean(uneven, list("aaabbc")).components.residual > 0.001


def right_answers(generator, num_draws, num_questions, mean, of_draws, clusters=None):
    """Return right and wrong answers, each right with a probit chance of draw, question and both."""
    questions = generator.normal(0, 1, (1, num_questions))
    if clusters is not None:
        questions = 0.5 * questions + generator.normal(0, 1, (1, clusters.max() + 1))[:, clusters]
    chances = mean + questions + generator.normal(0, of_draws, (num_draws, 1))
    chances = chances + generator.normal(0, 0.5, (num_draws, num_questions))
    return (generator.random(chances.shape) < scipy.special.ndtr(chances)).astype(float)


def share_of_covered(truth, intervals):
    return np.mean([low <= truth <= high for low, high in intervals])


@pytest.mark.parametrize(
    ("num_draws", "num_questions", "mean", "of_draws", "one_draw_at_most"),
    [(5, 64, 0.2, 0.3, 0.85), (5, 500, 0.2, 0.3, 0.5), (8, 200, 2.5, 0.5, 0.75), (3, 64, 0.0, 0.1, 0.94)],
)
def test_an_accuracy_over_draws_and_questions_is_in_its_interval_95_times_of_100(
    num_draws, num_questions, mean, of_draws, one_draw_at_most
):
    generator = np.random.default_rng(4)
    truth = scipy.special.ndtr(mean / (1 + 1 + of_draws**2 + 0.25) ** 0.5)
    tables = [right_answers(generator, num_draws, num_questions, mean, of_draws) for _ in range(600)]
    assert 0.93 <= share_of_covered(truth, [crossed_mean(table).interval_within(0, 1) for table in tables]) <= 0.985
    one_draw = [share_interval(table[0].mean(), num_questions) for table in tables]
    assert share_of_covered(truth, one_draw) < one_draw_at_most


def test_questions_in_clusters_are_covered_as_often():
    generator = np.random.default_rng(5)
    clusters = np.repeat(np.arange(16), 8)
    tables = [right_answers(generator, 5, 128, 0.0, 0.2, clusters) for _ in range(600)]
    clustered = [crossed_mean(table, clusters.tolist()).interval_within(0, 1) for table in tables]
    assert 0.93 <= share_of_covered(0.5, clustered) <= 0.985
    assert share_of_covered(0.5, [crossed_mean(table).interval_within(0, 1) for table in tables]) < 0.85


def test_a_difference_that_is_zero_over_draws_is_called_one_at_most_6_times_of_100():
    generator = np.random.default_rng(6)

    def difference():
        own_liking = generator.normal(0, 0.075, (5, 1))  # of a system for draws
        return own_liking + generator.choice([-1, 0, 1], (5, 500), p=[0.1, 0.8, 0.1])

    differences = [difference() for _ in range(600)]
    called = np.mean([crossed_mean(table).p_value() < 0.05 for table in differences])
    assert 0.02 <= called <= 0.07
    one_draw = np.mean([scipy.stats.ttest_1samp(table[0], 0).pvalue < 0.05 for table in differences])
    assert one_draw > 0.5
