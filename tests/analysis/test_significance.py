import statistics
from itertools import product

import numpy as np
import pytest
import sacrebleu
import scipy.stats
from sacrebleu.significance import PairedTest

from icl_eval.analysis.significance import (
    Paired,
    approximate_randomisation,
    bootstrap_difference,
    bootstrap_t,
    count_effective_flips,
    holm,
    mcnemar,
    mcnemar_mid_p,
    share_difference_interval,
    share_difference_p_value,
    sign_flip,
)
from icl_eval.analysis.testing import compare_draws, compare_questions
from icl_eval.metrics import BLEU
from icl_eval.metrics.intervals import sum_by_cluster
from icl_eval.metrics.means import mean_statistics
from icl_eval.metrics.measurements import Measurement

WORDS = [f"word{number}" for number in range(20)]


def corpora(seed, num_examples=80):
    """Return references and two systems' outputs, of which the second has more words wrong."""
    generator = np.random.default_rng(seed)
    references = [list(generator.choice(WORDS, 12)) for _ in range(num_examples)]

    def worsened(share):
        return [
            " ".join(str(generator.choice(WORDS)) if generator.random() < share else word for word in words)
            for words in references
        ]

    return [" ".join(words) for words in references], worsened(0.3), worsened(0.36)


def bleu_pair(references, first, second):
    metric = BLEU()
    one, other = (metric.per_example(outputs, [[text] for text in references]) for outputs in (first, second))
    return Paired(one.rows, other.rows, other.score_sums)


@pytest.fixture(scope="module")
def texts():
    return corpora(2)


def sacrebleu_test(texts, kind, num_samples):
    references, first, second = texts
    systems = [("baseline", first), ("other", second)]
    scorer = sacrebleu.BLEU(references=[references])
    _, found = PairedTest(systems, {"BLEU": scorer}, references=None, test_type=kind, n_samples=num_samples)()
    return found["BLEU"]


def test_approximate_randomisation_agrees_with_sacrebleu(texts):
    baseline, other = sacrebleu_test(texts, "ar", 2000)
    paired = bleu_pair(*texts)
    assert 0.005 < other.p_value < 0.5
    found = approximate_randomisation(paired, seed=0, num_resamples=2000)
    # Two estimates of one share, each of 2,000 draws: four standard errors of their difference apart at most.
    assert abs(found - other.p_value) < 4 * (2 * other.p_value * (1 - other.p_value) / 2000) ** 0.5
    assert paired.difference(paired.baseline.sum(axis=0), paired.other.sum(axis=0)) == pytest.approx(
        other.score - baseline.score
    )


def test_approximate_randomisation_is_close_to_trying_every_exchange():
    values = np.random.default_rng(16).random((2, 10)) + np.array([[0.0], [0.15]])
    one, other = (mean_statistics(list(value), "") for value in values)
    paired = Paired(one.rows, other.rows, other.score_sums)
    exact = sign_flip(values[1] - values[0], seed=0, num_resamples=1024)
    assert 0.1 < exact < 0.5
    assert approximate_randomisation(paired, seed=0, num_resamples=20_000) == pytest.approx(exact, abs=0.012)


def test_the_interval_of_a_difference_is_sacrebleu_on_resampled_corpora(texts):
    references, first, second = texts
    paired = bleu_pair(*texts)
    order = np.lexsort(np.hstack([paired.baseline, paired.other]).T)
    generator = np.random.default_rng(5)
    by_hand = []
    for _ in range(40):
        drawn = order[generator.integers(80, size=80)]
        answers = [[references[i] for i in drawn]]
        scores = [
            sacrebleu.BLEU().corpus_score([outputs[i] for i in drawn], answers).score for outputs in (first, second)
        ]
        by_hand.append(scores[1] - scores[0])
    observed = float(paired.difference(paired.baseline.sum(axis=0), paired.other.sum(axis=0)))
    widening = (80 / 79) ** 0.5 * scipy.stats.t.ppf(0.975, 79) / scipy.stats.norm.ppf(0.975)
    sizes = sorted(widening * abs(each - statistics.mean(by_hand)) for each in by_hand)
    found = bootstrap_difference(paired, seed=5, num_resamples=40)
    reach = sizes[38]  # at most 1 of 40 may be as large
    assert found.ci95 == pytest.approx((observed - reach, observed + reach))
    as_large = sum(size >= abs(observed) for size in sizes)
    assert found.p_value == pytest.approx((as_large + 1) / 41)


def test_a_bootstrap_p_value_agrees_with_sacrebleu(texts):
    _, other = sacrebleu_test(texts, "bs", 2000)
    found = bootstrap_difference(bleu_pair(*texts), seed=0, num_resamples=2000)
    assert found.p_value == pytest.approx(other.p_value, abs=0.03)


def test_the_order_of_the_questions_changes_neither_interval_nor_p_value(texts):
    paired = bleu_pair(*texts)
    turned = Paired(paired.baseline[::-1], paired.other[::-1], paired.score_sums)
    for compute in (bootstrap_difference, approximate_randomisation):
        assert compute(turned, seed=1, num_resamples=200) == compute(paired, seed=1, num_resamples=200)


def test_the_paired_bootstrap_of_five_units_calls_a_difference_hardly_more_often_than_that_of_many():
    generator = np.random.default_rng(8)
    called = 0
    for seed in range(300):
        one, other = (mean_statistics(list(values), "") for values in generator.random((2, 5)))  # alike
        called += bootstrap_difference(Paired(one.rows, other.rows, other.score_sums), seed, 200).p_value < 0.05
    assert called <= 32  # of 300 at 0.065: with probability 0.997; without the widening 50 and more


def pairs_of(metric, generator, num_questions, clusters):
    """Return two measurements of random statistics of a kind."""
    ids = tuple(f"q{number:02}" for number in range(num_questions))
    sides = []
    for _ in range(2):
        values = generator.integers(0, 3, num_questions) / 2
        if metric == "exact_match":
            statistics = mean_statistics(np.floor(values).tolist(), metric, kind="share")
        elif metric == "bleu":
            references, said, _ = corpora(int(generator.integers(1000)), num_questions)
            statistics = BLEU().per_example(said, [[text] for text in references])
        else:
            statistics = mean_statistics(
                values.tolist(), metric, kind="bounded mean" if metric == "token_f1" else "mean"
            )
        sides.append(Measurement("qa", metric, True, ids, statistics, clusters))
    return tuple(sides)


@pytest.mark.parametrize("metric", ["exact_match", "token_f1", "reference_rank", "bleu"])
@pytest.mark.parametrize("num_questions", [2, 5, 9])
@pytest.mark.parametrize("in_clusters", [False, True])
def test_exchanging_two_systems_turns_the_interval_round_and_keeps_every_p_value(metric, num_questions, in_clusters):
    generator = np.random.default_rng(num_questions)
    clusters = tuple("abbcccdda"[:num_questions]) if in_clusters else None
    for seed in range(6):
        one, other = pairs_of(metric, generator, num_questions, clusters)
        for compute in (
            lambda before, after: compare_questions(before, after, seed, 100),  # noqa: B023
            lambda before, after: compare_draws([[(before, after)], [(before, before)], [(after, after)]]),
        ):
            found, turned = compute(one, other), compute(other, one)
            assert (turned.test, turned.p_value, turned.others) == (found.test, found.p_value, found.others)
            assert (turned.ci95 is None) == (found.ci95 is None)
            assert found.ci95 is None or turned.ci95 == (-found.ci95[1], -found.ci95[0])


def test_few_sign_flips_are_all_tried():
    differences = np.array([0.5, -0.25, 0.75, 0.0, 1.0, 0.25])
    sums = [abs(np.dot(signs, differences)) for signs in product([1, -1], repeat=6)]
    expected = np.mean([total >= abs(differences.sum()) for total in sums])
    assert sign_flip(differences, seed=0, num_resamples=1000) == pytest.approx(expected)


def test_a_single_difference_is_as_large_with_either_sign():
    assert sign_flip(np.array([0.0, -1.0, 0.0]), seed=0, num_resamples=1000) == 1.0


def test_many_sign_flips_are_drawn_and_agree_with_the_normal_limit():
    differences = np.random.default_rng(0).normal(0.02, 0.1, 200)
    z = differences.sum() / (differences**2).sum() ** 0.5
    expected = 2 * scipy.stats.norm.sf(abs(z))
    assert sign_flip(differences, seed=0, num_resamples=10_000) == pytest.approx(expected, abs=0.01)
    whole = np.random.default_rng(1).integers(-2, 4, 40).astype(float)  # many sums are as large as the observed one
    assert sign_flip(0.1 * whole, seed=0, num_resamples=2000) == sign_flip(whole, seed=0, num_resamples=2000)


@pytest.mark.parametrize(
    ("gained", "lost", "expected"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (6, 1, 0.125), (10, 2, 0.03857421875), (3, 3, 1.0)],
)
def test_mcnemar_is_the_exact_binomial_one(gained, lost, expected):
    assert mcnemar(gained, lost) == pytest.approx(expected)
    assert mcnemar(lost, gained) == pytest.approx(expected)


def test_holm_is_the_textbook_one_and_never_out_of_order():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_tests_of_systems_that_are_alike_call_a_difference_in_about_five_of_a_hundred_times():
    generator = np.random.default_rng(4)
    called = dict.fromkeys(("mcnemar", "sign_flip", "approximate_randomisation"), 0)
    for seed in range(200):
        right = generator.random((2, 60)) < generator.random(60)  # alike, question by question
        graded = np.where(right, generator.random((2, 60)), 0.0)
        rows = [mean_statistics(values, "") for values in graded]
        paired = Paired(rows[0].rows, rows[1].rows, rows[1].score_sums)
        p_values = {
            "mcnemar": mcnemar(int((right[1] > right[0]).sum()), int((right[1] < right[0]).sum())),
            "sign_flip": sign_flip(graded[1] - graded[0], seed, 200),
            "approximate_randomisation": approximate_randomisation(paired, seed, 200),
        }
        for name, p_value in p_values.items():
            called[name] += p_value <= 0.05
    # 200 tosses at 0.05: 2 to 20 with probability 0.999. An exact test of counts stays below its level.
    assert 2 <= called["sign_flip"] <= 20
    assert 2 <= called["approximate_randomisation"] <= 20
    assert called["mcnemar"] <= 20


@pytest.mark.parametrize(("gains", "losses"), [(0.02, 0.02), (0.2, 0.05), (0.3, 0.3)])
def test_intervals_of_differences_of_shares_keep_their_level(gains, losses):
    drawn = np.random.default_rng(7).multinomial(64, [gains, losses, 1 - gains - losses], size=1000)
    ends = np.array([share_difference_interval(gained, lost, 64) for gained, lost, _ in drawn])
    covered = ((ends[:, 0] <= gains - losses) & (gains - losses <= ends[:, 1])).mean()
    assert covered >= 0.935
    assert covered <= 0.97 or gains == 0.02  # with one or two questions that flip it errs on the safe side


def test_the_interval_of_a_difference_without_a_flip_has_a_width():
    low, high = share_difference_interval(0, 0, 64)
    assert (low, high) == pytest.approx((-0.0420, 0.0420), abs=0.0001)


def test_about_95_of_100_intervals_cover_the_true_difference():
    generator = np.random.default_rng(6)
    covered = 0
    for seed in range(300):
        hard = generator.random(80)
        values = [(generator.random(80) < hard**power).astype(float) for power in (1, 2)]
        one, other = (mean_statistics(list(value), "") for value in values)
        low, high = bootstrap_difference(Paired(one.rows, other.rows, other.score_sums), seed, 300).ci95
        covered += low <= 1 / 3 - 1 / 2 <= high
    assert 273 <= covered <= 297


@pytest.mark.parametrize(("gained", "lost", "expected"), [(0, 0, 1.0), (5, 0, 0.03125), (6, 1, 0.0703125), (3, 3, 1.0)])
def test_mid_p_counts_what_was_observed_half(gained, lost, expected):
    assert mcnemar_mid_p(gained, lost) == pytest.approx(expected)
    assert mcnemar_mid_p(lost, gained) == pytest.approx(expected)


def test_a_p_value_is_below_5_percent_where_its_interval_is_without_zero():
    generator = np.random.default_rng(8)
    decided = set()
    for seed in range(150):
        gained, lost = generator.integers(0, 14, 2)
        low, high = share_difference_interval(gained, lost, 60)
        assert (share_difference_p_value(gained, lost, 60) < 0.05) == (low > 0 or high < 0)
        found = bootstrap_t(generator.normal(0.3, 1, 30) ** 3, seed, 199)
        assert (found.p_value < 0.05) == (found.ci95[0] > 0 or found.ci95[1] < 0)
        values = generator.random((2, 40)) + np.array([[0.0], [0.1]])
        one, other = (mean_statistics(list(value), "") for value in values)
        found = bootstrap_difference(Paired(one.rows, other.rows, other.score_sums), seed, 100)
        assert (found.p_value < 0.05) == (found.ci95[0] > 0 or found.ci95[1] < 0)
        decided.add(found.p_value < 0.05)
    assert decided == {True, False}


def lopsided(generator, num_questions):
    """Return differences whose mean is zero: many small losses, few large gains."""
    return generator.choice([-0.05, 1.0, 0.0], num_questions, p=[0.4, 0.02, 0.58])


def test_the_bootstrap_t_is_about_the_mean_where_sign_flips_are_about_symmetry():
    generator = np.random.default_rng(9)
    by_mean, by_symmetry = [], []
    for seed in range(300):
        differences = lopsided(generator, 200)
        by_mean.append(bootstrap_t(differences, seed, 199).p_value < 0.05)
        by_symmetry.append(sign_flip(differences, seed, 199) < 0.05)
    assert np.mean(by_mean) <= 0.06
    assert np.mean(by_symmetry) >= 0.07


@pytest.mark.parametrize("num_questions", [32, 128])
def test_means_of_symmetric_and_of_skewed_differences_are_called_nonzero_about_5_times_of_100(num_questions):
    generator = np.random.default_rng(10)
    kinds = [
        lambda: generator.normal(0, 1, num_questions) * (generator.random(num_questions) < 0.4),
        lambda: generator.exponential(1, num_questions) - 1,
    ]
    for draw in kinds:
        called = np.mean([bootstrap_t(draw(), seed, 199).p_value < 0.05 for seed in range(400)])
        assert 0.005 <= called <= 0.085


def test_a_share_that_does_not_differ_is_called_different_at_most_6_times_of_100():
    drawn = np.random.default_rng(11).multinomial(64, [0.1, 0.1, 0.8], size=1000)
    p_values = [
        (share_difference_p_value(gained, lost, 64), mcnemar_mid_p(gained, lost), mcnemar(gained, lost))
        for gained, lost, _ in drawn.tolist()
    ]
    ours, mid, exact = (np.array(p_values) < 0.05).mean(axis=0)
    assert exact < ours <= 0.06
    assert exact < mid <= 0.06


def draw_flips(generator, effect):
    """Differences of right answers in 15 clusters of 8: a cluster goes up, goes down, or stays."""
    moods = generator.choice([-1.0, 0.0, 1.0], size=15, p=[0.25 - effect / 2, 0.5, 0.25 + effect / 2])
    clusters = np.repeat(np.arange(15), 8)
    return moods[clusters] * (generator.random(120) < 0.5), [str(each) for each in clusters]


def test_differences_of_clusters_are_tested_and_covered_as_questions_are_not():
    generator = np.random.default_rng(0)
    rejected, alone, covered, narrow = 0, 0, 0, 0
    for seed in range(300):
        differences, clusters = draw_flips(generator, effect=0.0)
        rejected += sign_flip(sum_by_cluster(differences, clusters), seed, 500) <= 0.05
        alone += mcnemar(int((differences > 0).sum()), int((differences < 0).sum())) <= 0.05
        low, high = share_difference_interval(*count_effective_flips(differences, clusters))
        covered += low <= 0.0 <= high
        low, high = share_difference_interval(int((differences > 0).sum()), int((differences < 0).sum()), 120)
        narrow += low <= 0.0 <= high
    assert rejected <= 0.08 * 300 < 0.2 * 300 < alone
    assert narrow < 0.8 * 300 < 0.92 * 300 <= covered


def test_intervals_of_differences_cover_an_effect_in_clusters():
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(500):
        low, high = share_difference_interval(*count_effective_flips(*draw_flips(generator, effect=0.3)))
        covered += low <= 0.15 <= high  # half the questions of a cluster follow its mood
    assert 0.92 <= covered / 500 <= 0.985


def test_clusters_of_one_question_have_the_interval_of_questions_but_for_student():
    differences = np.array([1.0] * 9 + [-1.0] * 3 + [0.0] * 48)
    number = 60 * (scipy.stats.norm.ppf(0.975) / scipy.stats.t.ppf(0.975, 59)) ** 2
    expected = share_difference_interval(9 / 60 * number, 3 / 60 * number, number)
    found = share_difference_interval(*count_effective_flips(differences, [str(n) for n in range(60)]))
    assert found == pytest.approx(expected)
    taken_back = np.array([1.0, -1.0] * 6)  # within each cluster, so that no question is worth more than one
    number = 12 * (scipy.stats.norm.ppf(0.975) / scipy.stats.t.ppf(0.975, 5)) ** 2
    assert count_effective_flips(taken_back, list("aabbccddeeff"))[2] == pytest.approx(number)
    unchanged = share_difference_interval(*count_effective_flips(np.zeros(12), list("aaabbbcccddd")))
    assert unchanged == share_difference_interval(0, 0, 4)


def test_a_p_value_over_clusters_is_of_the_method_of_its_interval():
    generator = np.random.default_rng(12)
    for effect in (0.0, 0.3):
        for _ in range(60):
            flips = count_effective_flips(*draw_flips(generator, effect))
            low, high = share_difference_interval(*flips)
            assert (share_difference_p_value(*flips) < 0.05) == (low > 0 or high < 0)


def test_where_no_question_changed_the_interval_is_that_of_units_of_which_none_flips():
    ids, clusters = tuple("abcdef"), tuple("ppqqrr")
    values = mean_statistics([0.5, 0.25, 0.75, 1.0, 0.0, 0.5], "signature", kind="bounded mean")
    other = Measurement("qa", "token_f1", True, ids, values)  # as a run of an earlier version, without clusters
    baseline = Measurement("qa", "token_f1", True, ids, values, clusters)
    for pair, num_units in (((other, other), 6), ((baseline, other), 3), ((other, baseline), 3)):
        expected = share_difference_interval(0, 0, num_units)
        assert compare_questions(*pair, 0, 200).ci95 == expected
        found = compare_draws([[pair], [pair]])
        assert (found.test, found.ci95, found.p_value) == ("crossed", expected, 1.0)


@pytest.mark.parametrize(("before", "after", "gained"), [(0.0, 1.0, 2), (1.0, 0.0, -2), (0.25, 0.75, 1)])
def test_two_questions_that_change_alike_are_no_proof(before, after, gained):
    sides = (mean_statistics([value] * 2, "signature", kind="bounded mean") for value in (before, after))
    pair = tuple(Measurement("qa", "token_f1", True, ("a", "b"), side) for side in sides)
    flips = (max(0, gained), max(0, -gained), 2)
    expected = share_difference_interval(*flips), share_difference_p_value(*flips)
    found = compare_questions(*pair, 0, 200)
    assert (found.test, found.ci95, found.p_value) == ("bootstrap_t", *expected)
    found = compare_draws([[pair], [pair], [pair]])
    assert (found.test, found.ci95, found.p_value) == ("crossed", *expected)
    assert found.p_value > 0.05


def test_a_score_without_ends_that_changes_alike_everywhere_is_not_tested():
    sides = [mean_statistics([value] * 3, "signature") for value in (2.0, 1.0)]
    one, other = (Measurement("qa", "reference_rank", False, ("a", "b", "c"), side) for side in sides)
    for found in (compare_questions(one, other, 0, 200), compare_draws([[(one, other)]] * 2)):
        assert (found.test, found.ci95, found.p_value) == (None, None, None)
    for found in (compare_questions(one, one, 0, 200), compare_draws([[(one, one)]] * 2)):
        assert (found.ci95, found.p_value) == ((0.0, 0.0), 1.0)


def test_two_clusters_that_change_alike_are_no_proof():
    sides = [
        mean_statistics(values, "signature", kind="bounded mean") for values in ([0.0] * 4, [0.5, 0.25, 0.25, 0.5])
    ]
    pair = (Measurement("qa", "token_f1", True, tuple("abcd"), side, tuple("xxyy")) for side in sides)
    found = compare_questions(*pair, 0, 200)
    assert found.ci95 == pytest.approx(share_difference_interval(0.75, 0, 2))
    assert found.p_value == share_difference_p_value(0.75, 0, 2) > 0.05


def test_bleus_of_equal_outputs_have_an_interval_that_is_not_without_width():
    references, said, _ = corpora(3, 10)
    measured = Measurement("qa", "bleu", True, tuple("abcdefghij"), BLEU().per_example(said, [[x] for x in references]))
    found = compare_questions(measured, measured, 0, 200)
    assert found.ci95 == pytest.approx(tuple(100 * end for end in share_difference_interval(0, 0, 10)))
    assert (found.test, found.p_value) == ("paired_bootstrap", 1.0)
