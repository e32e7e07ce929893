import numpy as np
import pytest
import sacrebleu
import scipy.stats

from icl_eval.metrics import BLEU, ExactMatch, TokenF1, score
from icl_eval.metrics.intervals import Interval, bootstrap, resample_sums, share_interval, spread

PREDICTIONS = [
    "the cat sat on the mat in the hall",
    "a dog barked at the old postman today",
    "he reads a book about the sea",
    "it rained in the north all week",
    "we were late for the last train home",
]
REFERENCES = [
    ["the cat sat on the mat in the kitchen"],
    ["the dog barked at the old postman"],
    ["she reads a long book about the sea"],
    ["it snowed in the south all week"],
    ["we were late for the last train"],
]


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def column_of(values):
    return np.column_stack([values, np.ones(len(values))])


def test_the_bootstrap_is_sacrebleu_on_each_resampled_corpus():
    statistics = BLEU().per_example(PREDICTIONS, REFERENCES)
    order = np.lexsort(statistics.rows.T)
    generator = np.random.default_rng(7)
    by_hand = []
    for _ in range(50):
        drawn = order[generator.integers(5, size=5)]
        hypotheses = [PREDICTIONS[i] for i in drawn]
        by_hand.append(sacrebleu.corpus_bleu(hypotheses, [[REFERENCES[i][0] for i in drawn]]).score)
    low, high = np.percentile(by_hand, [2.5, 97.5])
    expected = Interval(stderr=np.std(by_hand, ddof=1), low=low, high=high)
    assert bootstrap(statistics.rows, statistics.score_sums, seed=7, num_resamples=50) == expected


def test_each_resample_draws_as_many_examples_as_there_are():
    sums = resample_sums(np.ones((30, 2)), seed=0, num_resamples=4)
    assert sums.tolist() == [[30.0, 30.0]] * 4


def test_the_same_seed_gives_the_same_interval_in_any_order_of_examples():
    rows = column_of([0, 1, 0, 0, 1, 1, 1, 0, 1, 1])
    expected = bootstrap(rows, mean, seed=3)
    assert bootstrap(rows, mean, seed=3) == expected
    assert bootstrap(rows[::-1], mean, seed=3) == expected
    assert bootstrap(rows, mean, seed=4) != expected


def test_the_numbers_are_plain_floats():
    interval = bootstrap(column_of([0, 1, 1]), mean, seed=0)
    assert {type(number) for number in (interval.stderr, interval.low, interval.high)} == {float}


def test_the_standard_error_of_a_share_is_the_textbook_one():
    interval = bootstrap(column_of([1] * 120 + [0] * 80), mean, seed=0, num_resamples=4000)
    assert interval.stderr == pytest.approx((0.6 * 0.4 / 200) ** 0.5, rel=0.03)
    assert interval.low == pytest.approx(0.6 - 1.96 * 0.0346, abs=0.01)
    assert interval.high == pytest.approx(0.6 + 1.96 * 0.0346, abs=0.01)


def test_about_95_of_100_intervals_cover_the_true_value():
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        interval = bootstrap(column_of(generator.random(100) < 0.6), mean, seed, num_resamples=200)
        covered += interval.low <= 0.6 <= interval.high
    assert 180 <= covered <= 198


@pytest.mark.parametrize("true_share", [0.02, 0.1, 0.5, 0.95])
def test_intervals_of_shares_keep_their_level_also_near_the_ends_of_the_scale(true_share):
    hits = np.arange(65)
    ends = np.array([share_interval(hit / 64, 64) for hit in hits])
    covers = (ends[:, 0] <= true_share) & (true_share <= ends[:, 1])
    assert 0.92 <= scipy.stats.binom.pmf(hits, 64, true_share)[covers].sum() <= 0.98  # exact, not simulated


def test_the_interval_of_a_share_is_wilsons():
    for hits in (0, 3, 20):
        expected = scipy.stats.binomtest(hits, 20).proportion_ci(method="wilson")
        assert share_interval(hits / 20, 20) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_score_that_is_a_share_has_the_interval_of_one():
    found = score(ExactMatch(), ["a", "b", "c", "d"], [["a"], ["x"], ["x"], ["x"]], seed=0)
    assert found.ci95 == share_interval(0.25, 4)
    graded = score(TokenF1(), ["a", "b"], [["a"], ["b"]], seed=0)
    assert graded.ci95 == (1.0, 1.0)


def test_equal_examples_leave_no_spread():
    assert bootstrap(column_of([1, 1, 1]), mean, seed=0) == Interval(stderr=0.0, low=1.0, high=1.0)
    assert bootstrap(column_of([0.1] * 7), mean, seed=0).stderr == 0.0  # sums of 0.1 in another order round otherwise


def test_a_perfect_bleu_has_no_spread():
    found = score(BLEU(), PREDICTIONS, [[text] for text in PREDICTIONS], seed=0)
    assert (found.value, found.stderr) == (pytest.approx(100), 0.0)


def test_only_rounding_is_no_spread():
    perfect = 100.00000000000004  # as sacrebleu has it, which is not what numpy finds for the mean of a thousand
    assert spread(np.full(1000, perfect)) == 0.0
    assert spread(np.array([1.0, 1.0 + 1e-6])) == pytest.approx(1e-6 / 2**0.5, rel=1e-6)
    assert spread(np.zeros(3)) == 0.0
