from dataclasses import asdict, replace

import numpy as np
import pytest
import scipy.stats

from icl_eval.analysis.designs import SweepCell
from icl_eval.analysis.shot_curve import shot_curves
from icl_eval.analysis.variance import variance_analyses, variance_components
from icl_eval.metrics import BLEU
from icl_eval.metrics.intervals import mean_stderr, pseudo_values
from icl_eval.metrics.means import mean_statistics
from icl_eval.metrics.measurements import Measurement
from icl_eval.runs.cells import Cell, gather_cells
from icl_eval.runs.options import find_varying_options
from icl_eval.runs.reports import Failure, write_json


def cell(values, **options):
    """Return a cell whose questions have these values; `__` in an option's name stands for a dot."""
    named = {key.replace("__", "."): str(value) for key, value in options.items()}
    ids = tuple(f"q{number:03}" for number in range(len(values)))
    return SweepCell(named, Measurement("qa", "exact_match", True, ids, mean_statistics(values, "signature")))


def by_factors(components):
    return {component.factors: component for component in components}


def crossed(values, *factors):
    return [cell(values[place], **dict(zip(factors, place, strict=True))) for place in np.ndindex(values.shape[:-1])]


def test_a_planted_seed_effect_comes_out_as_planted_and_an_absent_order_effect_as_none():
    seeds, questions = np.array([0.1, -0.1, 0.3, -0.3]), np.linspace(-0.2, 0.2, 20)
    values = 0.5 + seeds[:, None, None] + np.zeros((1, 3, 1)) + questions

    ((analysis,), notes) = variance_analyses(crossed(values, "seed", "order"))

    found = by_factors(analysis.components)
    assert notes == []
    assert found[("seed",)].variance == pytest.approx(seeds.var(ddof=1))
    assert found[("questions",)].variance == pytest.approx(questions.var(ddof=1) / 20)
    assert analysis.test_set_stderr == pytest.approx((questions.var(ddof=1) / 20) ** 0.5)
    others = [component.variance for factors, component in found.items() if factors not in [("seed",), ("questions",)]]
    assert len(others) == 5
    assert max(others) < 1e-15
    assert sum(component.share for component in analysis.components) == pytest.approx(1)
    assert analysis.level_means["seed"] == pytest.approx({"0": 0.6, "1": 0.4, "2": 0.8, "3": 0.2})
    assert (analysis.worst.options["seed"], analysis.worst.score) == ("3", pytest.approx(0.2))
    assert (analysis.best.options["seed"], analysis.best.score) == ("2", pytest.approx(0.8))


def test_variances_are_estimated_without_bias():
    generator = np.random.default_rng(0)
    planted = {("a",): 0.04, ("b",): 0.0, ("a", "b"): 0.01, ("questions",): 1.0, ("a", "questions"): 0.25}
    axes = {"a": 0, "b": 1, "questions": 2}
    shape = (5, 4, 16)

    def draw():
        values = generator.normal(0, 0.5, shape)  # of the combination of all three: 0.25
        for factors, variance in planted.items():
            own = [shape[axis] if name in factors else 1 for name, axis in axes.items()]
            values = values + generator.normal(0, variance**0.5, own)
        return {found.factors: found.estimate for found in variance_components(values, ("a", "b"))[0]}

    draws = [draw() for _ in range(400)]
    expected = {**planted, ("b", "questions"): 0.0, ("a", "b", "questions"): 0.25}
    for factors, variance in expected.items():
        estimates = np.array([found[factors] for found in draws])
        truth = variance / (16 if "questions" in factors else 1)
        assert abs(estimates.mean() - truth) < 4 * estimates.std() / 400**0.5, factors


def test_orders_are_drawn_within_draws_of_demonstrations():
    orders = np.array([[0.1, -0.1], [0.3, -0.3], [-0.2, 0.2]])  # of each draw of demonstrations
    values = 0.5 + orders[:, :, None] + np.linspace(-0.2, 0.2, 10)

    ((analysis,), _) = variance_analyses(crossed(values, "demonstrations__seed", "order__seed"))

    found = by_factors(analysis.components)
    assert found.keys() == {("demonstrations.seed",), ("order.seed",), ("questions",)} | {
        (factor, "questions") for factor in ("demonstrations.seed", "order.seed")
    }
    assert found[("order.seed",)].variance == pytest.approx(orders.var(axis=1, ddof=1).mean())
    assert found[("demonstrations.seed",)].variance == 0.0
    assert found[("order.seed",)].p_value < 1e-9


def test_two_levels_are_told_apart_as_by_a_paired_t_test():
    generator = np.random.default_rng(1)
    values = generator.random((2, 30))
    ((component, *_), _) = variance_components(values, ("template",))
    assert component.p_value == pytest.approx(scipy.stats.ttest_rel(values[0], values[1]).pvalue)


ORDERS_WITHIN = ("order.seed", "demonstrations.seed")


@pytest.mark.parametrize(
    ("factor", "planted", "nested"),
    [
        (("order.seed",), {(0, 1, 2): 0.25}, None),
        # what is larger than the effect is no effect of its own, whichever of it there is
        (("order.seed",), {(0, 1): 0.04, (0, 1, 2): 0.25}, None),
        (("order.seed",), {(1, 2): 0.3, (0, 1, 2): 0.25}, None),
        (("order.seed",), {(0, 1): 0.04, (1, 2): 0.3, (0,): 0.2, (2,): 1.0, (0, 1, 2): 0.25}, None),
        (("demonstrations.seed",), {(0, 1): 0.04, (2,): 1.0, (0, 1, 2): 0.25}, ORDERS_WITHIN),
        (("demonstrations.seed",), {(0, 1): 0.01, (0, 2): 0.3, (0, 1, 2): 0.25}, ORDERS_WITHIN),
        (("order.seed",), {(0,): 0.1, (0, 2): 0.3, (0, 1, 2): 0.25}, ORDERS_WITHIN),
    ],
)
def test_a_factor_without_effect_is_called_one_in_about_five_of_a_hundred_times(factor, planted, nested):
    generator = np.random.default_rng(2)
    called = 0
    for _ in range(400):
        values = planted_values(generator, (3, 4, 40), planted)
        components, _ = variance_components(values, ("demonstrations.seed", "order.seed"), nested)
        called += by_factors(components)[factor].p_value <= 0.05
    assert 4 <= called <= 34


def planted_values(generator, shape, variances):
    """Return normal values, each set of axes adding a variance."""
    values = np.zeros(shape)
    for axes, variance in variances.items():
        own = [length if axis in axes else 1 for axis, length in enumerate(shape)]
        values = values + generator.normal(0, variance**0.5, own)
    return values


def test_the_host_of_orders_is_tested_against_the_spread_of_its_orders_and_of_its_questions():
    values = np.random.default_rng(4).random((4, 3, 10))
    ((draws, *_), _) = variance_components(values, ("demonstrations.seed", "order.seed"), ORDERS_WITHIN)

    means = values.mean(axis=(1, 2))
    within = values.mean(axis=2) - means[:, None]
    by_question = values.mean(axis=1) - values.mean(axis=(0, 1)) - means[:, None] + values.mean()
    rest = values - values.mean(axis=1)[:, None] - within[:, :, None]
    squares = {"draws": 30 * means.var(ddof=1), "orders": 10 * (within**2).sum() / 8}
    squares |= {"questions": 3 * (by_question**2).sum() / 27, "rest": (rest**2).sum() / 72}
    above, below = squares["draws"] + squares["rest"], squares["orders"] + squares["questions"]
    degrees = above**2 / (squares["draws"] ** 2 / 3 + squares["rest"] ** 2 / 72)
    noise_degrees = below**2 / (squares["orders"] ** 2 / 8 + squares["questions"] ** 2 / 27)
    assert draws.factors == ("demonstrations.seed",)
    assert draws.p_value == pytest.approx(scipy.stats.f.sf(above / below, degrees, noise_degrees))


def test_orders_within_draws_are_none_of_what_a_template_is_tested_against():
    values = np.random.default_rng(6).random((4, 3, 2, 10))
    nested = by_factors(
        variance_components(values, ("demonstrations.seed", "order.seed", "template"), ORDERS_WITHIN)[0]
    )
    averaged = by_factors(variance_components(values.mean(axis=1), ("demonstrations.seed", "template"))[0])
    assert nested[("template",)].p_value == pytest.approx(averaged[("template",)].p_value)


def test_an_effect_that_is_there_is_found():
    generator = np.random.default_rng(5)
    shape, planted = (4, 3, 40), {(0,): 0.2, (0, 1): 0.0025, (2,): 1.0, (0, 1, 2): 0.5}
    found = [
        variance_components(planted_values(generator, shape, planted), ("demonstrations.seed", "order.seed"), nested)[0]
        for _ in range(100)
        for nested in (None, ORDERS_WITHIN)
    ]
    assert sum(by_factors(components)[("demonstrations.seed",)].p_value <= 0.05 for components in found) >= 180


def test_rounding_is_no_component_and_proves_nothing():
    values = np.zeros((3, 3, 1)) + np.array([0.1, 0.7, 0.3])  # three times 0.1, divided by three, is not 0.1
    (same, order, both, questions, *_), _ = variance_components(values, ("seed", "order"))
    assert (same.p_value, order.p_value, both.p_value, questions.share) == (1.0, 1.0, 1.0, 1.0)
    components, at_least = variance_components(np.full((3, 3, 5), 0.1), ("seed", "order"))
    assert {component.share for component in components} == {at_least} == {0.0}


def test_what_rounding_leaves_of_a_variance_is_exactly_nothing():
    values = np.ones((2, 2, 3))
    values[0, 1, 0] = 0.0  # one wrong answer is as large an effect as the questions explain
    components, _ = variance_components(values, ("seed", "template"))
    assert by_factors(components)[("seed", "template")].estimate == 0.0


def test_a_combination_that_is_missing_is_said_and_not_guessed():
    values = np.random.default_rng(0).random((2, 3, 5))
    analyses, notes = variance_analyses(crossed(values, "seed", "order")[:-1])
    assert analyses == []
    assert notes == ["variance, qa: 5 of 6 combinations have a score; all are needed"]


def test_a_combination_that_is_given_twice_takes_the_place_of_no_other():
    whole = crossed(np.random.default_rng(0).random((2, 2, 8)), "seed", "template")
    missing = ([], ["variance, qa: 3 of 4 combinations have a score; all are needed"])
    assert variance_analyses([whole[0], *whole[:3]]) == missing
    repeated = ([], ["variance, qa: several runs have the same options; give each combination once"])
    assert variance_analyses([whole[0], *whole]) == repeated


def test_a_cell_that_lacks_an_option_is_left_out_of_what_hinges_on_it_and_said():
    values = np.random.default_rng(0).random((2, 3, 5))
    whole = crossed(values, "seed", "order")
    expected, _ = variance_analyses(whole)
    analyses, notes = variance_analyses([cell([0, 1, 1, 0, 1], seed=0), *whole, cell([1, 1, 1, 0, 1])])
    assert analyses == expected
    assert notes == ["variance, qa: 2 of 8 cells left out because they do not set seed and order"]

    apart = [cell([0, 1, 1], seed=0), cell([0, 1, 0], seed=1), cell([1, 1, 0], order="a"), cell([1, 1, 1], order="b")]
    assert variance_analyses(apart) == (
        [],
        ["variance, qa: 4 of 4 cells left out because they do not set seed and order"],
    )

    curve = [cell([0, 1, shots], num_fewshot=shots, seed=seed) for shots in (0, 1) for seed in (0, 1)]
    expected, _ = shot_curves(curve)
    found = shot_curves([*curve, cell([1, 1, 1], num_fewshot=1), cell([1, 1, 1], seed=0)])
    assert found == (expected, ["shot curve, qa: 2 of 6 cells left out because they do not set num_fewshot and seed"])
    assert shot_curves([cell([0, 1], seed=0), cell([1, 1])]) == ([], [])


def test_conditions_have_an_analysis_each():
    values = np.random.default_rng(0).random((2, 3, 5))
    analyses, _ = variance_analyses(crossed(values, "model", "demonstrations__seed"))
    assert [analysis.conditions for analysis in analyses] == [{"model": "0"}, {"model": "1"}]
    assert [analysis.factors for analysis in analyses] == [{"demonstrations.seed": ("0", "1", "2")}] * 2
    assert [analysis.mean for analysis in analyses] == pytest.approx(values.mean(axis=(1, 2)).tolist())


def in_clusters(cells, clusters):
    return [replace(each, measurement=replace(each.measurement, clusters=tuple(clusters))) for each in cells]


def test_questions_of_one_cluster_count_once():
    generator = np.random.default_rng(7)
    values = (generator.random((3, 2, 12)) < 0.5).astype(float)
    ((alone,), _) = variance_analyses(crossed(values, "seed", "template"))
    copied = crossed(np.repeat(values, 3, axis=-1), "seed", "template")
    ((grouped,), _) = variance_analyses(in_clusters(copied, [f"c{number // 3:02}" for number in range(36)]))
    assert (alone.num_clusters, grouped.num_clusters, grouped.n) == (None, 12, 36)
    assert grouped.test_set_stderr == pytest.approx(alone.test_set_stderr)
    assert grouped.test_set_at_least == pytest.approx(alone.test_set_at_least)
    for found, expected in zip(grouped.components, alone.components, strict=True):
        assert (found.estimate, found.p_value) == pytest.approx((expected.estimate, expected.p_value))
        assert found.share_ci95 == pytest.approx(expected.share_ci95)

    uneven = crossed(values, "seed", "template")
    names = ["a"] * 6 + ["b"] * 3 + ["c"] * 2 + ["d"]
    ((analysis,), _) = variance_analyses(in_clusters(uneven, names))
    errors = [mean_stderr(own, names) ** 2 for own in values.reshape(6, 12)]
    of_questions = sum(each.estimate for each in analysis.components if "questions" in each.factors)
    assert analysis.test_set_stderr**2 == pytest.approx(np.mean(errors))
    assert of_questions == pytest.approx(np.mean(errors))
    assert analysis.level_means["seed"] == pytest.approx(dict(zip("012", values.mean(axis=(1, 2)), strict=True)))

    assert variance_analyses(in_clusters(uneven, ["a"] * 12)) == (
        [],
        ["variance, qa: all questions are of one cluster, so no error can be estimated"],
    )


def test_an_analysis_has_the_gap_of_its_cells_and_the_spread_of_its_wordings():
    values = (np.random.default_rng(8).random((3, 2, 30)) < 0.5).astype(float)
    ((analysis,), _) = variance_analyses(crossed(values, "seed", "template"))
    scores = values.mean(axis=-1)
    assert analysis.gap == pytest.approx(np.ptp(scores))
    assert (analysis.worst.score, analysis.best.score) == pytest.approx((scores.min(), scores.max()))
    errors = [
        replace(each, measurement=replace(each.measurement, higher_is_better=False))
        for each in crossed(values, "seed", "template")
    ]
    ((lower,), _) = variance_analyses(errors)
    assert (lower.worst, lower.best) == (analysis.best, analysis.worst)
    assert 0 < analysis.noise_gap.mean < analysis.noise_gap.p95
    assert analysis.wording.spread == pytest.approx(np.ptp(scores.mean(axis=0)))
    ((without,), _) = variance_analyses(crossed(values, "seed", "order"))
    assert without.wording is None


def test_orders_of_one_draw_are_averaged_before_a_shot_curve_has_its_band():
    values = (np.random.default_rng(3).random((2, 3, 4, 25)) < 0.5).astype(float)
    cells = [
        cell(values[k, seed, order], num_fewshot=k + 1, demonstrations__seed=seed, order__seed=order)
        for k, seed, order in np.ndindex(2, 3, 4)
    ]

    ((curve,), _) = shot_curves(cells)

    for k, point in enumerate(curve.points):
        scores = values[k].mean(axis=(1, 2))  # of each draw
        assert point.scores == pytest.approx({f"demonstrations.seed={seed}": scores[seed] for seed in range(3)})
        expected = scipy.stats.t.interval(0.95, 2, scores.mean(), scipy.stats.sem(scores))
        assert point.ci95 == pytest.approx((max(0.0, expected[0]), min(1.0, expected[1])))
        assert (point.mean, point.stdev) == pytest.approx((scores.mean(), scores.std(ddof=1)))


def test_a_shot_curve_has_students_band_over_seeds_and_the_test_sets_error_apart():
    values = (np.random.default_rng(0).random((3, 4, 25)) < 0.5).astype(float)
    cells = [cell(values[k, seed], num_fewshot=4**k, seed=seed) for k in (2, 0, 1) for seed in range(4)]

    ((curve,), _) = shot_curves(cells)

    assert [point.num_fewshot for point in curve.points] == [1, 4, 16]
    for k, point in enumerate(curve.points):
        scores = values[k].mean(axis=1)
        expected = scipy.stats.t.interval(0.95, 3, scores.mean(), scores.std(ddof=1) / 2)
        assert point.ci95 == pytest.approx(expected)
        assert list(point.scores.values()) == pytest.approx(scores.tolist())
        assert point.test_set_stderr == pytest.approx(scipy.stats.sem(values[k].mean(axis=0)))
    assert (curve.draws, curve.n, next(iter(curve.points[0].scores))) == (("seed",), 25, "seed=0")


def test_about_95_of_100_bands_cover_the_mean_over_all_seeds():
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(300):
        drawn = generator.normal(0.6, 0.1, 5)  # the score of each seed
        cells = [cell([drawn[seed]] * 2, num_fewshot=k, seed=seed) for k in (0, 1) for seed in range(5)]
        low, high = shot_curves(cells)[0][0].points[0].ci95
        covered += low <= 0.6 <= high
    assert 273 <= covered <= 297


def test_a_band_of_shares_stays_between_0_and_1():
    def share(values, **options):
        measured = cell(values, **options)
        return replace(
            measured, measurement=replace(measured.measurement, statistics=mean_statistics(values, "", kind="share"))
        )

    cells = [share(values, num_fewshot=k, seed=seed) for k in (0, 1) for seed, values in enumerate(([1, 1], [1, 0]))]
    assert shot_curves(cells)[0][0].points[0].ci95 == (0.0, 1.0)


def test_one_draw_has_no_band():
    ((curve,), _) = shot_curves([cell([0, 1, 1], num_fewshot=k) for k in (0, 8)])
    assert [(point.stdev, point.ci95) for point in curve.points] == [(None, None)] * 2
    assert curve.points[0].scores == {"": pytest.approx(2 / 3)}


def test_pseudo_values_of_bleu_are_sacrebleu_with_each_question_left_out():
    import sacrebleu

    predictions = ["the cat sat on the mat", "a dog barked at the old man", "he reads a book about the sea"]
    references = [["the cat sat on a mat"], ["the dog barked at the old man"], ["he reads the book about a sea"]]
    statistics = BLEU().per_example(predictions, references)
    left_out = []
    for others in ((1, 2), (0, 2), (0, 1)):
        answers = [[references[i][0] for i in others]]
        left_out.append(sacrebleu.corpus_bleu([predictions[i] for i in others], answers))
    by_hand = np.array([3 * statistics.value - 2 * without.score for without in left_out])
    found = pseudo_values(statistics.rows, statistics.score_sums)
    assert found == pytest.approx(by_hand - by_hand.mean() + statistics.value)


def test_options_that_all_cells_share_do_not_vary():
    cells = [Cell(seed, ("task=[qa]", f"seed={seed}", "+demonstrations.x=1")) for seed in "01"]
    assert find_varying_options([cell.overrides for cell in cells]) == [{"seed": "0"}, {"seed": "1"}]


def test_cells_are_in_the_order_of_the_numbers_in_their_options_whatever_else_looks_like_one(tmp_path):
    for name in ("x=1²10", "x=1²9", "x=٣"):
        (tmp_path / name).mkdir()
        write_json(asdict(Failure("ConfigError", "no", 2)), tmp_path / name / "error.json")
    assert [cell.cell for cell in gather_cells(tmp_path)] == ["x=1²9", "x=1²10", "x=٣"]
