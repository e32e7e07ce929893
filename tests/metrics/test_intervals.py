import warnings

import numpy as np
import pytest
import sacrebleu
import scipy.stats

from icl_eval.errors import DataError
from icl_eval.metrics import BLEU, CHRF, ExactMatch, TokenF1, score
from icl_eval.metrics.intervals import (
    NORMAL_QUANTILE,
    Interval,
    as_exact,
    bootstrap,
    effective_number,
    log_jackknife,
    mean_stderr,
    resample_sums,
    share_interval,
    spread,
    sum_by_cluster,
)
from icl_eval.metrics.likelihood import perplexities
from icl_eval.metrics.means import mean_statistics
from icl_eval.metrics.scoring import Statistics, score_statistics

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
    expansion = (5 / 4) ** 0.5
    level = 100 * scipy.stats.norm.cdf(-expansion * scipy.stats.t.ppf(0.975, 4))
    found = bootstrap(statistics.rows, statistics.score_sums, seed=7, num_resamples=50)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(by_hand, [level, 100 - level])))
    assert found.stderr == pytest.approx(np.std(by_hand, ddof=1) * expansion)


def test_each_resample_draws_as_many_examples_as_there_are():
    sums = resample_sums(np.ones((30, 2)), seed=0, num_resamples=4)
    assert sums.tolist() == [[30.0, 30.0]] * 4


def test_numbers_of_equal_rows_are_drawn_with_the_distribution_of_rows_drawn_one_by_one(monkeypatch):
    rows = np.repeat([[0.0, 1.0], [1.0, 1.0], [5.0, 1.0]], [1500, 400, 100], axis=0)
    several = resample_sums(rows, seed=0, num_resamples=2000)
    monkeypatch.setattr("icl_eval.metrics.intervals._DRAWN_ONE_BY_ONE", 2000)
    single = resample_sums(rows, seed=0, num_resamples=2000)
    assert not np.array_equal(several, single)
    for sums in (several, single):
        assert (sums[:, 1] == 2000).all()
        assert sums[:, 0].mean() == pytest.approx(rows[:, 0].sum(), abs=4 * rows[:, 0].std())
        assert sums[:, 0].std() == pytest.approx(rows[:, 0].std() * 2000**0.5, rel=0.07)
    assert scipy.stats.ks_2samp(several[:, 0], single[:, 0]).pvalue > 0.001


def test_resamples_do_not_depend_on_the_size_of_blocks(monkeypatch):
    rows = np.arange(30.0).reshape(15, 2)
    whole = resample_sums(rows, seed=3, num_resamples=50)
    monkeypatch.setattr("icl_eval.metrics.intervals._CELLS_AT_ONCE", 31)
    assert (resample_sums(rows, seed=3, num_resamples=50) == whole).all()


def test_resamples_of_whole_numbers_are_exact():
    counts = np.random.default_rng(0).integers(2**24 // 300, size=(300, 3)).astype(float)
    for rows in (counts, 10 * counts, counts + 2.0**-20):
        drawn = np.random.default_rng(5)
        sums = [rows[np.lexsort(rows.T)][drawn.integers(300, size=300)].sum(axis=0) for _ in range(20)]
        assert resample_sums(rows, seed=5, num_resamples=20).tolist() == np.array(sums).tolist()


def test_single_precision_is_for_sums_that_it_holds():
    rows = np.array([[1.0, 300.0], [-3.0, 7.0]])
    assert as_exact(rows, 2**24).dtype == np.float32
    assert as_exact(rows, 2**24).tolist() == rows.tolist()
    for others, highest in ((rows, 2**24 + 1), (rows + 0.5, 10), (rows, np.nan)):
        assert as_exact(others, highest) is others


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
    all_right = score(TokenF1(), ["a", "b"], [["a"], ["b"]], seed=0)
    assert (all_right.stderr, all_right.ci95, all_right.method) == (None, share_interval(1.0, 2), "wilson")


def test_equal_examples_leave_no_spread():
    assert bootstrap(column_of([1, 1, 1]), mean, seed=0) == Interval(stderr=0.0, low=1.0, high=1.0)
    assert bootstrap(column_of([0.1] * 7), mean, seed=0).stderr == 0.0  # sums of 0.1 in another order round otherwise


def test_a_perfect_bleu_shows_no_spread_so_that_it_has_no_interval():
    found = score(BLEU(), PREDICTIONS, [[text] for text in PREDICTIONS], seed=0)
    assert (found.value, found.stderr, found.ci95) == (pytest.approx(100), None, None)


def test_an_interval_of_bleu_holds_a_score_that_rounding_puts_above_100():
    references = [["he sat on the", "sat on the mat"], ["a dog barked at him"]]  # the first answer is longer than both
    found = score(BLEU(), ["he sat on the mat", "a dog barked at"], references, seed=0)
    assert found.value > 100
    assert found.ci95[0] < 100 < found.ci95[1] == found.value


def test_only_rounding_is_no_spread():
    perfect = 100.00000000000004  # as sacrebleu has it, which is not what numpy finds for the mean of a thousand
    assert spread(np.full(1000, perfect)) == 0.0
    assert spread(np.array([1.0, 1.0 + 1e-6])) == pytest.approx(1e-6 / 2**0.5, rel=1e-6)
    assert spread(np.zeros(3)) == 0.0


def covers(intervals, truth):
    """The share of intervals that contain a true value."""
    return np.mean([low <= truth <= high for low, high in intervals])


def graded_interval(values, clusters=None):
    found = score_statistics("f1", True, mean_statistics(values, "", kind="bounded mean"), seed=0, clusters=clusters)
    return found.ci95


@pytest.mark.parametrize("num_examples", [16, 32, 64])
@pytest.mark.parametrize(("end", "share"), [(0.0, 0.9), (0.0, 0.8), (1.0, 0.85)])
def test_graded_values_near_an_end_have_intervals_that_keep_their_level(num_examples, end, share):
    """Most values are 0, or 1, and the others are spread between; percentiles of the bootstrap cover 73 to 92 %."""
    generator = np.random.default_rng(3)
    truth = share * end + (1 - share) * 0.5
    intervals = []
    for _ in range(1000):
        graded = generator.beta(2, 2, num_examples)
        intervals.append(graded_interval(np.where(generator.random(num_examples) < share, end, graded)))
    assert 0.92 <= covers(intervals, truth) <= 0.975


def test_the_effective_number_of_graded_values_is_that_of_the_formula():
    values = np.array([0.0, 0.0, 0.5, 1.0, 0.25])  # mean 0.35, sum of squared deviations 0.7
    ratio = (NORMAL_QUANTILE / scipy.stats.t.ppf(0.975, 4)) ** 2
    assert effective_number(values) == pytest.approx(25 * 0.35 * 0.65 / 0.7 * ratio)
    assert mean_stderr(values) == pytest.approx(scipy.stats.sem(values))
    assert effective_number(np.array([1.0, 0.0, 0.0])) == 3.0


def test_the_error_of_clusters_is_that_of_their_totals():
    values, clusters = np.array([1.0, 1.0, 0.0, 0.0, 1.0]), list("aabbc")  # mean 0.6, totals 0.8, -1.2 and 0.4
    assert mean_stderr(values, clusters) == pytest.approx((3 / 2 * (0.64 + 1.44 + 0.16)) ** 0.5 / 5)
    design = 3 / 2 * 2.24 / (5 / 4 * 1.2)
    ratio = (NORMAL_QUANTILE / scipy.stats.t.ppf(0.975, 2)) ** 2
    assert effective_number(values, clusters) == pytest.approx(5 / design * ratio)
    assert sum_by_cluster(values, clusters).tolist() == [2.0, 0.0, 1.0]
    shuffled = [3, 0, 4, 2, 1]
    assert mean_stderr(values[shuffled], [clusters[i] for i in shuffled]) == mean_stderr(values, clusters)
    tenths = np.array([0.1, 0.2, 0.3, 0.0])  # 0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1
    assert sum_by_cluster(tenths, list("aaab")).tolist() == sum_by_cluster(tenths[[2, 1, 0, 3]], list("aaab")).tolist()


def test_clusters_of_equal_shares_do_not_make_an_interval_of_no_width():
    values = np.array([1.0, 0.0] * 4)  # each cluster has one right answer of two
    ratio = (NORMAL_QUANTILE / scipy.stats.t.ppf(0.975, 3)) ** 2
    assert effective_number(values, list("aabbccdd")) == pytest.approx(8 * ratio)


def test_a_cluster_of_equal_answers_counts_as_one():
    found = score(ExactMatch(), ["x"] * 12, [["y"]] * 12, seed=0, clusters=list("aaabbbcccddd"))
    assert (found.stderr, found.ci95) == (None, share_interval(0.0, 4))
    found = score(ExactMatch(), ["x"] * 12, [["y"]] * 12, seed=0, clusters=["a"] * 12)
    assert (found.stderr, found.ci95, found.method) == (None, None, None)


@pytest.mark.parametrize("metric", [ExactMatch(), TokenF1(), BLEU(), CHRF()], ids=lambda metric: metric.name)
def test_clusters_of_one_example_each_change_nothing(metric):
    alone = score(metric, PREDICTIONS, REFERENCES, seed=0)
    assert alone == score(metric, PREDICTIONS, REFERENCES, seed=0, clusters=list("vwxyz"))
    assert alone.ci95 != score(metric, PREDICTIONS, REFERENCES, seed=0, clusters=list("vvxyy")).ci95
    with pytest.raises(DataError, match=f"^{metric.name}: 4 clusters for 5 examples$"):
        score(metric, PREDICTIONS, REFERENCES, seed=0, clusters=list("vwxy"))


def draw_clusters(generator, num_clusters, truth, correlation):
    """Right and wrong answers in clusters of 4 to 12, with an intraclass correlation."""
    share = generator.beta(truth * (1 / correlation - 1), (1 - truth) * (1 / correlation - 1), num_clusters)
    sizes = generator.integers(4, 13, num_clusters)
    clusters = np.repeat(np.arange(num_clusters), sizes)
    return (generator.random(len(clusters)) < share[clusters]).astype(float), [str(each) for each in clusters]


@pytest.mark.parametrize(("num_clusters", "truth", "correlation"), [(12, 0.6, 0.24), (24, 0.2, 0.15), (24, 0.9, 0.2)])
def test_intervals_of_clusters_cover_where_those_of_questions_do_not(num_clusters, truth, correlation):
    generator = np.random.default_rng(1)
    by_cluster, by_question = [], []
    for _ in range(800):
        values, clusters = draw_clusters(generator, num_clusters, truth, correlation)
        by_cluster.append(graded_interval(values, clusters))
        by_question.append(graded_interval(values))
    assert 0.92 <= covers(by_cluster, truth) <= 0.98
    assert covers(by_question, truth) < 0.86


def test_the_bootstrap_of_few_clusters_keeps_its_level():
    generator = np.random.default_rng(2)
    intervals = []
    for seed in range(400):  # ten clusters of eight values of no bounded range, with a correlation of 1/2
        clusters = np.repeat(np.arange(10), 8)
        values = generator.normal(size=10)[clusters] + generator.normal(size=80)
        names = [str(each) for each in clusters]
        found = score_statistics("m", True, mean_statistics(values, ""), seed, num_resamples=400, clusters=names)
        assert found.stderr == mean_stderr(values, names)
        intervals.append(found.ci95)
    assert 0.92 <= covers(intervals, 0.0) <= 0.98  # percentiles of questions cover about 55 %


def test_the_interval_of_bleu_is_the_jackknifes_on_the_log_scale():
    def bleu(kept):
        return sacrebleu.corpus_bleu([PREDICTIONS[i] for i in kept], [[REFERENCES[i][0] for i in kept]]).score

    everything = range(5)
    whole = bleu(everything)
    parts = np.array([bleu([i for i in everything if i != left_out]) for left_out in everything])
    reach = scipy.stats.t.ppf(0.975, 4) * (4 / 5 * ((np.log(parts) - np.log(parts).mean()) ** 2).sum()) ** 0.5
    found = score(BLEU(), PREDICTIONS, REFERENCES, seed=0)
    assert found.ci95 == pytest.approx((whole * np.exp(-reach), min(100, whole * np.exp(reach))))
    assert found.stderr == pytest.approx((4 / 5 * ((parts - parts.mean()) ** 2).sum()) ** 0.5)
    assert found.method == "jackknife"


def draw_sentences(generator, count):
    """Statistics of sentences as sacrebleu has them: two lengths, the matches of each order, and the totals."""
    rows = []
    for length, quality in zip(generator.integers(6, 25, count), generator.beta(2, 3, count), strict=True):
        hits = generator.random(length) < quality
        windows = [np.lib.stride_tricks.sliding_window_view(hits, order).all(axis=1) for order in range(1, 5)]
        rows.append([length, length, *(each.sum() for each in windows), *map(len, windows)])
    return np.array(rows, np.float64)


def bleu_of(sums):
    with np.errstate(divide="ignore"):
        return 100 * np.exp(np.log(sums[..., 2:6] / sums[..., 6:10]).mean(axis=-1))


@pytest.mark.parametrize("num_examples", [20, 60])
def test_intervals_of_bleu_cover_with_few_sentences_too(num_examples):
    generator = np.random.default_rng(4)
    population = draw_sentences(generator, 4000)
    truth = bleu_of(population.sum(axis=0))
    assert 10 < truth < 20
    intervals = []
    for _ in range(500):
        found = log_jackknife(population[generator.integers(4000, size=num_examples)], bleu_of, highest=100.0)
        if found is not None:  # at most one of a hundred corpora of 20 has no 4-gram, or only one sentence with any
            intervals.append((found.low, found.high))
    assert len(intervals) >= 495
    assert 0.92 <= covers(intervals, truth) <= 0.98


def test_a_bleu_without_a_matching_4_gram_is_smoothing_and_has_no_interval():
    predictions = ["the cat sat down", "we are late today again", "he reads a book"]
    references = [["the cat sat on it"], ["we are never late"], ["she reads a novel now"]]
    found = score(BLEU(), predictions, references, seed=0)
    assert found.value > 0
    assert (found.is_smoothed, found.stderr, found.ci95, found.method) == (True, None, None, None)
    assert not score(BLEU(max_ngram_order=2), predictions, references, seed=0).is_smoothed
    short = ["a b"], [["a b"]]
    assert score(BLEU(), *short, seed=0).is_smoothed
    assert not score(BLEU(effective_order=True), *short, seed=0).is_smoothed


def test_a_perplexity_that_exceeds_the_range_of_numbers_in_some_resamples_has_no_interval_and_no_warning():
    rows = np.array([[-1900.0, 2.0], [-1.0, 1.0], [-900.0, 2.0]])  # the first question alone exceeds it
    statistics = Statistics(float(perplexities(rows.sum(axis=0))), rows, perplexities, (None,) * 3, "signature")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = score_statistics("perplexity", False, statistics, seed=0)
    assert (np.isfinite(found.value), found.stderr, found.ci95) == (True, None, None)
