from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from icl_eval.analysis.crossed import crossed_mean
from icl_eval.analysis.designs import SweepCell
from icl_eval.analysis.draws import draws_table, scores_over_draws
from icl_eval.analysis.shot_curve import shot_curves
from icl_eval.metrics.intervals import mean_stderr
from icl_eval.metrics.means import mean_statistics
from icl_eval.metrics.measurements import Measurement

VALUES = (np.random.default_rng(0).random((4, 24)) < [[0.4], [0.5], [0.6], [0.8]]).astype(float)


def cell(values, metric="exact_match", has_demonstrations=True, is_share=True, **options):
    """Return a cell whose questions have these values; `__` in an option's name stands for a dot."""
    named = {key.replace("__", "."): str(value) for key, value in options.items()}
    ids = tuple(f"q{number:03}" for number in range(len(values)))
    statistics = mean_statistics(list(values), "signature", kind="share" if is_share else "mean")
    return SweepCell(named, Measurement("qa", metric, True, ids, statistics), has_demonstrations)


def test_a_seed_sweep_has_a_mean_with_both_errors_and_the_interval_of_a_new_draw():
    ([found], notes) = scores_over_draws([cell(own, seed=number) for number, own in enumerate(VALUES)])
    scores = VALUES.mean(axis=1)
    assert notes == []
    assert (found.draw, found.n, found.mean) == ("seed", 24, pytest.approx(VALUES.mean()))
    assert found.scores == pytest.approx(dict(zip("0123", scores, strict=True)))
    assert found.ci95 == pytest.approx(crossed_mean(VALUES).interval_within(0, 1))
    reach = scipy.stats.t.ppf(0.975, 3) * scores.std(ddof=1) * (1 + 1 / 4) ** 0.5
    assert found.new_draw == pytest.approx((scores.mean() - reach, min(1.0, scores.mean() + reach)))
    [row, lower] = draws_table([found, replace(found, higher_is_better=False)]).records()
    assert (row["worst draw"], row["best draw"], row["draws"]) == (scores.min(), scores.max(), 4)
    assert (lower["worst draw"], lower["best draw"]) == (scores.max(), scores.min())


def test_a_new_draw_is_in_its_interval_95_times_of_100():
    generator = np.random.default_rng(1)
    covered = []
    for _ in range(400):
        scores = generator.normal(0.5, 0.07, 6)
        drawn = (generator.random((6, 60)) < scores[:, None]).astype(float)
        ([found], _) = scores_over_draws([cell(own, seed=number) for number, own in enumerate(drawn[:5])])
        covered.append(found.new_draw is not None and found.new_draw[0] <= drawn[5].mean() <= found.new_draw[1])
    assert 0.92 <= np.mean(covered) <= 0.98


def test_intervals_of_means_of_samples_end_where_their_values_do():
    values = [[1.0] * 23 + [0.75], [1.0] * 23 + [0.25], [0.75] * 23 + [1.0]]
    cells = []
    for number, own in enumerate(values):
        plain = cell(own, "exact_match_mean_of_samples", seed=number, num_fewshot=2)
        statistics = mean_statistics(own, "signature", kind="bounded mean")
        cells.append(replace(plain, measurement=replace(plain.measurement, statistics=statistics)))
    ([found], _) = scores_over_draws(cells)
    assert found.ci95 == pytest.approx(crossed_mean(np.array(values)).interval_within(0, 1))
    assert found.new_draw[1] == 1.0
    more = [replace(each, options={**each.options, "num_fewshot": "4"}) for each in cells]
    ([curve], _) = shot_curves([*cells, *more])
    assert [point.ci95[1] for point in curve.points] == [1.0, 1.0]


def test_a_number_that_the_task_chooses_has_no_place_on_a_shot_curve():
    cells = [cell(own, num_fewshot=shots) for own, shots in zip(VALUES, ("null", 1, 4), strict=False)]
    ([curve], notes) = shot_curves(cells)
    assert [point.num_fewshot for point in curve.points] == [1, 4]
    assert notes == ["shot curve, qa: cells with num_fewshot=null left out, which is no number"]


@pytest.mark.parametrize("seed", ["demonstrations.seed", "seed"])
def test_orders_of_a_draw_are_no_draws_of_their_own(seed):
    cells = [cell(VALUES[number], **{seed: number // 2}, order__seed=number % 2, num_fewshot=4) for number in range(4)]
    ([found], _) = scores_over_draws(cells)
    assert (found.draw, found.conditions) == (seed, {"num_fewshot": "4"})
    assert list(found.scores.values()) == pytest.approx([VALUES[:2].mean(), VALUES[2:].mean()])
    assert scores_over_draws(cells[:3])[1] == [f"draws, qa num_fewshot=4: not every {seed} has the same cells"]


def test_without_demonstrations_there_is_one_draw_whatever_the_seeds():
    cells = [cell(VALUES[0], has_demonstrations=False, seed=seed, num_fewshot=0) for seed in range(4)]
    assert scores_over_draws(cells) == ([], [])
    cells += [cell(own, seed=seed, num_fewshot=1) for seed, own in enumerate(VALUES)]
    ((curve,), notes) = shot_curves(cells)
    none, one = curve.points
    assert notes == []
    assert (len(none.scores), none.ci95, none.stdev) == (1, None, None)
    assert len(one.scores) == 4
    sampled = [replace(each, options={"decoding.seed": each.options["seed"]}) for each in cells[:4]]
    ([found], _) = scores_over_draws(sampled)  # samples differ without demonstrations, too
    assert found.draw == "decoding.seed"


@pytest.mark.parametrize(("metric", "top"), [("rouge_l", 1.0), ("chrf", 100.0)])
def test_bands_and_intervals_end_where_the_scale_ends(metric, top):
    values = top * np.array([[1.0, 0.99], [0.9, 0.99], [1.0, 1.0]])
    cells = [
        cell(own, metric, is_share=False, seed=seed, num_fewshot=shots)
        for shots in (1, 2)
        for seed, own in enumerate(values)
    ]
    ((curve,), _) = shot_curves(cells)
    assert curve.points[0].ci95[1] == top
    (found, _), _ = scores_over_draws(cells)
    assert found.ci95[1] < top
    assert found.new_draw[1] == top


def test_errors_over_questions_are_those_of_clusters_where_there_are_any():
    def grouped(clusters):
        cells = [cell(own, seed=seed, num_fewshot=shots) for shots in (1, 2) for seed, own in enumerate(VALUES)]
        return [replace(each, measurement=replace(each.measurement, clusters=tuple(clusters))) for each in cells]

    clusters = sorted("abcdef" * 4)
    (found, _), _ = scores_over_draws(grouped(clusters))
    assert found.stderr == pytest.approx(crossed_mean(VALUES, clusters).stderr)
    ((curve,), _) = shot_curves(grouped(clusters))
    assert curve.points[0].test_set_stderr == mean_stderr(VALUES.mean(axis=0), clusters)
    assert scores_over_draws(grouped("a" * 24)) == ([], [])
    assert shot_curves(grouped("a" * 24))[0][0].points[0].test_set_stderr is None
    assert scores_over_draws([cell(own[:1], seed=seed) for seed, own in enumerate(VALUES)]) == ([], [])


def test_scores_of_smoothing_alone_have_no_mean_over_draws():
    cells = [cell(own, seed=number) for number, own in enumerate(VALUES)]
    smoothed = replace(cells[1].measurement, statistics=replace(cells[1].measurement.statistics, is_smoothed=True))
    assert scores_over_draws([cells[0], replace(cells[1], measurement=smoothed), *cells[2:]]) == ([], [])


def test_draws_with_one_score_say_nothing_of_a_new_one():
    ([found], _) = scores_over_draws([cell(VALUES[0], seed=seed) for seed in range(3)])
    assert found.new_draw is None
    assert found.share_of_draws == 0.0
