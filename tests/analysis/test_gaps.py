import numpy as np
import pytest
from scipy.special import ndtr

from icl_eval.analysis.gaps import noise_gap, sum_deviations
from icl_eval.metrics.intervals import mean_stderr


def right_answers(generator, num_cells, num_questions, num_alike=1):
    """Return answers of cells with the same true score, of which so many in a row give the same ones."""
    chances = ndtr(generator.normal(0, 1, num_questions) + generator.normal(0, 0.5, (num_cells, num_questions)))
    answers = (generator.random((num_cells // num_alike, num_questions)) < chances[::num_alike]).astype(float)
    return np.repeat(answers, num_alike, axis=0)


@pytest.mark.parametrize(("num_cells", "num_questions", "gap"), [(36, 64, 0.221), (12, 64, 0.171), (36, 300, 0.103)])
def test_the_best_of_equal_cells_beats_the_worst_by_as_much_as_was_simulated(num_cells, num_questions, gap):
    generator = np.random.default_rng(0)
    tables = [right_answers(generator, num_cells, num_questions) for _ in range(6)]
    assert np.mean([noise_gap(table).mean for table in tables]) == pytest.approx(gap, rel=0.04)
    assert noise_gap(tables[0]) == noise_gap(tables[0])


@pytest.mark.parametrize("num_alike", [1, 12])
def test_noise_alone_exceeds_its_95th_percentile_5_times_of_100(num_alike):
    generator = np.random.default_rng(1)
    tables = [right_answers(generator, 36, 64, num_alike) for _ in range(60)]
    exceeded = np.mean([np.ptp(table.mean(axis=1)) > noise_gap(table).p95 for table in tables])
    assert 0.0 < exceeded <= 0.12


def test_two_cells_lie_apart_as_their_difference_varies_and_equal_ones_do_not():
    values = np.random.default_rng(2).random((2, 6))
    stderr = mean_stderr(values[0] - values[1])
    gap = noise_gap(values)
    assert gap.mean == pytest.approx((2 / np.pi) ** 0.5 * stderr, rel=0.05)
    assert gap.p95 == pytest.approx(1.96 * stderr, rel=0.05)
    assert noise_gap(np.tile(values[0], (3, 1))).p95 == 0.0


def test_clusters_are_summed_so_that_the_error_of_a_mean_is_that_of_clusters():
    generator = np.random.default_rng(3)
    clusters = generator.choice(["a", "b", "c", "d", "e"], 40).tolist()
    values = generator.random((2, 40))
    summed = sum_deviations(values, clusters)
    assert summed.shape == (2, 5)
    assert (summed**2).sum(axis=1) / 20 == pytest.approx([mean_stderr(row, clusters) ** 2 for row in values])
    copied = np.repeat(values, 3, axis=1)
    assert noise_gap(copied, [str(number // 3) for number in range(120)]).mean == pytest.approx(
        noise_gap(values).mean, rel=0.15
    )
    assert noise_gap(copied).mean < 0.7 * noise_gap(values).mean
