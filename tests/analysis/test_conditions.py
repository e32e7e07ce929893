import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import sample_runs
from sample_runs import FIRST

from icl_eval.analysis.comparison import compare_runs
from icl_eval.analysis.crossed import crossed_mean
from icl_eval.analysis.pilots import read_pilot
from icl_eval.analysis.planning import Costs
from icl_eval.analysis.significance import share_difference_interval
from icl_eval.analysis.sweeps import analyse_runs
from icl_eval.errors import DataError
from icl_eval.runs.folders import read_run
from icl_eval.runs.reports import MetricResult, Timing, write_report


@pytest.fixture
def write(tmp_path):
    """Write a run whose questions have the given values of a metric, and read it again."""

    def write_run(
        name, values, num_fewshot=4, metric="judge", clusters=None, weights="sha256:a", speed=None, **options
    ):
        named = {key.replace("__", "."): value for key, value in options.items()}
        folder = tmp_path / name
        folder.mkdir(parents=True)
        records = [
            replace(FIRST, example_id=f"q{number:03}", metrics={metric: float(value)}, cluster=cluster)
            for number, (value, cluster) in enumerate(zip(values, clusters or [None] * len(values), strict=True))
        ]
        lines = "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)
        (folder / "samples_qa.jsonl").write_text(lines, encoding="utf-8")
        scores = {metric: MetricResult(float(np.mean(values)), 0.1, (0.0, 1.0), "judge|v:1", True, stored=True)}
        counts = replace(
            sample_runs.REPORT.results["qa"].counts,
            prompt_tokens=8000,
            prefix_tokens_reused=60 * (len(records) - 1),
            completion_tokens=400,
        )
        sizes = {"n": len(records), "num_fewshot": num_fewshot}
        result = replace(sample_runs.REPORT.results["qa"], **sizes, metrics=scores, counts=counts)
        config = {"num_fewshot": num_fewshot, "task": {"qa": {"metrics": {"bleu": {"name": "bleu"}}}}, **named}
        overrides = tuple(f"{key}={value}" for key, value in {"num_fewshot": num_fewshot, **named}.items())
        report = sample_runs.REPORT
        report = replace(
            report,
            run=replace(report.run, num_fewshot=num_fewshot, one_draw=num_fewshot > 0),
            results={"qa": result},
            timing=Timing({"prompts": 5.0, "decoding": 30.0, "likelihood": 6.0}, speed),
            provenance=replace(report.provenance, config=config, overrides=overrides, weights=weights),
        )
        write_report(report, folder / "report.json")
        return read_run(folder)

    return write_run


def answers(generator, num_draws, num_questions=80, gain=0.0, liking=0.0):
    return (generator.random((num_draws, num_questions)) < 0.5 + gain + liking).astype(float)


def test_runs_that_differ_in_seeds_alone_are_one_condition_and_are_tested_over_shared_draws(write):
    generator = np.random.default_rng(0)
    before, after = answers(generator, 3), answers(generator, 4, gain=0.2)
    runs = [write(f"sweep/a{seed}", own, seed=seed, model="a") for seed, own in enumerate(before)]
    runs += [write(f"sweep/b{seed}", own, seed=seed, model="b") for seed, own in enumerate(after)]

    found = compare_runs(runs)

    [difference] = found.differences
    crossed = crossed_mean(after[:3] - before)
    assert (difference.test, difference.draws, difference.others) == ("crossed", 3, {})
    assert difference.ci95 == pytest.approx(crossed.interval())
    assert difference.p_value == pytest.approx(crossed.p_value())
    assert difference.difference == pytest.approx(after[:3].mean() - before.mean())
    assert [name.rsplit("/", 1)[1] for name in (found.baseline, *found.runs)] == ["model=a", "model=b"]
    assert [len(folders) for folders in found.members.values()] == [3, 4]
    assert found.notes == ("model=b: 1 run left out, of draws that only one of the two conditions has",)


def test_orders_of_one_draw_are_averaged_and_are_no_further_draws(write):
    generator = np.random.default_rng(1)
    before, after = answers(generator, 4), answers(generator, 4)
    seeds = [{"demonstrations__seed": number // 2, "order__seed": number % 2} for number in range(4)]
    runs = [write(f"a{number}", before[number], model="a", **seeds[number]) for number in range(4)]
    runs += [write(f"b{number}", after[number], model="b", **seeds[number]) for number in range(4)]
    [difference] = compare_runs(runs).differences
    differences = after - before
    assert difference.draws == 2
    expected = crossed_mean(np.stack([differences[:2].mean(axis=0), differences[2:].mean(axis=0)]))
    assert difference.p_value == pytest.approx(expected.p_value())


@pytest.mark.parametrize("turned", [False, True])
def test_orders_that_only_one_condition_has_are_averaged_within_their_draw_and_none_is_left_out(write, turned):
    generator = np.random.default_rng(6)
    before, after = answers(generator, 2), answers(generator, 6)
    plain = [write(f"a{seed}", own, seed=seed, model="a") for seed, own in enumerate(before)]
    seeds = [{"seed": number // 3, "order__seed": number % 3} for number in range(6)]
    random = [write(f"b{number}", after[number], model="b", **seeds[number]) for number in range(6)]
    found = compare_runs([*random, *plain] if turned else [*plain, *random])
    [difference] = found.differences
    expected = crossed_mean((after.reshape(2, 3, -1).mean(axis=1) - before) * (-1 if turned else 1))
    assert (difference.draws, found.notes) == (2, ())
    assert difference.difference == pytest.approx(expected.mean)
    assert difference.ci95 == pytest.approx(expected.interval())


def test_one_run_is_compared_with_all_orders_of_the_other_condition(write):
    generator = np.random.default_rng(7)
    before, after = answers(generator, 1)[0], answers(generator, 3)
    runs = [write("a", before, seed=0, model="a")]
    runs += [write(f"b{number}", own, seed=0, model="b", order__seed=number) for number, own in enumerate(after)]
    found = compare_runs(runs)
    [difference] = found.differences
    assert (difference.draws, found.notes) == (3, ())
    assert difference.ci95 == pytest.approx(crossed_mean(after - before).interval())


@pytest.mark.parametrize(("size", "number", "unit"), [(1, 80, "question"), (8, 10, "cluster")])
def test_a_pilot_whose_questions_are_clusters_of_one_is_planned_in_questions(write, monkeypatch, size, number, unit):
    clusters = tuple(str(place // size) for place in range(80))
    monkeypatch.setattr("icl_eval.metrics.measurements.clusters_of", lambda records: clusters)
    values = answers(np.random.default_rng(8), 2)
    found = read_pilot([write(f"a{seed}", own, seed=seed) for seed, own in enumerate(values)], "qa/judge")
    assert (found.num_questions, found.unit) == (number, unit)


def test_a_condition_without_demonstrations_is_the_same_for_every_draw(write):
    generator = np.random.default_rng(2)
    none, four = answers(generator, 1)[0], answers(generator, 3, gain=0.2)
    runs = [write(f"none{seed}", none, num_fewshot=0, seed=seed) for seed in (7, 8)]  # seeds that no other run has
    runs += [write(f"four{seed}", own, seed=seed) for seed, own in enumerate(four)]
    [difference] = compare_runs(runs).differences
    assert difference.draws == 3
    assert difference.p_value == pytest.approx(crossed_mean(four - none).p_value())


def test_cells_without_demonstrations_are_one_draw_in_the_analyses_of_a_sweep(write):
    generator = np.random.default_rng(8)
    runs = [write(f"0-{seed}", [0, 1, 1, 1], num_fewshot=0, seed=seed) for seed in range(3)]
    runs += [write(f"4-{seed}", own, num_fewshot=4, seed=seed) for seed, own in enumerate(answers(generator, 3, 4))]
    [curve] = analyse_runs(runs).shot_curves
    assert [len(point.scores) for point in curve.points] == [1, 3]


def test_a_test_of_one_draw_says_that_it_is_about_these_prompts(write):
    generator = np.random.default_rng(3)
    runs = [write(f"run{seed}", answers(generator, 1)[0], seed=seed) for seed in range(2)]
    found = compare_runs(runs)  # two draws of one condition, which can only be compared as prompts
    [difference] = found.differences
    assert (difference.test, difference.draws) == ("bonett_price", 1)
    [note] = found.notes
    assert note.startswith("a test of one draw is about these prompts")
    assert (found.baseline, found.runs) == (str(runs[0].folder), (str(runs[1].folder),))


def test_a_metric_that_only_one_run_has_is_left_out_and_named(write):
    runs = [write(metric, [0, 1], metric=metric, control=metric) for metric in ("judge", "other")]
    found = compare_runs(runs)
    assert (found.left_out, found.differences) == (("qa: judge", "qa: other"), ())


def test_draws_that_no_run_shares_are_refused_in_one_line(write):
    runs = [write(f"a{seed}", [0, 1, 1], seed=seed, model="a") for seed in (0, 1)]
    runs += [write(f"b{seed}", [0, 1, 1], seed=seed, model="b") for seed in (2, 3)]
    with pytest.raises(
        DataError, match=r"model=b: shares no draw of demonstrations with .*model=a \(seed=2 … and seed=0"
    ):
        compare_runs(runs)


def test_too_few_resamples_for_so_many_tests_are_said(write):
    runs = [write(f"run{number}", [0.5, 0.25, 0.75, 1.0], control=str(number)) for number in range(8)]
    assert any("use 280 or more" in note for note in compare_runs(runs, num_resamples=100).notes)
    assert not any("num_resamples" in note for note in compare_runs(runs, num_resamples=280).notes)


@pytest.mark.slow
def test_systems_that_like_different_draws_are_called_different_less_often_than_on_one_draw(write):
    """The whole path, from files to a p-value, where one draw rejects most true nulls."""
    generator = np.random.default_rng(4)
    called = {1: 0, 5: 0}
    for repetition in range(20):
        likings = generator.normal(0, 0.075, (2, 5, 1))
        sides = [(generator.random((5, 300)) < 0.5 + liking).astype(float) for liking in likings]
        runs = [
            [write(f"{repetition}/{model}{seed}", own, seed=seed, model=model) for seed, own in enumerate(side)]
            for model, side in zip("ab", sides, strict=True)
        ]
        for draws in called:
            [difference] = compare_runs([*runs[0][:draws], *runs[1][:draws]]).differences
            assert difference.draws == draws
            called[draws] += difference.p_value < 0.05
    assert called[5] <= 3
    assert called[1] >= 6


def test_draws_are_crossed_with_clusters_where_questions_have_them(write):
    generator = np.random.default_rng(5)
    clusters = tuple(str(number // 8) for number in range(80))
    before, after = answers(generator, 3), answers(generator, 3, gain=0.2)
    runs = [write(f"a{seed}", own, seed=seed, model="a") for seed, own in enumerate(before)]  # of an earlier version
    runs += [write(f"b{seed}", own, seed=seed, model="b", clusters=clusters) for seed, own in enumerate(after)]
    [difference] = compare_runs(runs).differences
    assert difference.num_clusters == 10
    assert difference.ci95 == pytest.approx(crossed_mean(after - before, clusters).interval())
    [difference] = compare_runs([runs[0], runs[3]]).differences
    assert (difference.test, difference.num_clusters, list(difference.others)) == ("bonett_price", 10, ["sign_flip"])


def test_runs_of_other_weights_are_another_condition_and_equal_seeds_are_no_draws(write):
    runs = [write(f"{weights}{seed}", [0, 1, 1], seed=seed, weights=weights) for weights in "ab" for seed in (0, 1)]
    assert [len(folders) for folders in compare_runs(runs).members.values()] == [2, 2]
    again = [write(name, [0, 1, 1], seed=seed) for name, seed in (("one", 0), ("again", 0), ("other", 1))]
    again.append(write("four", [0, 1, 1], num_fewshot=0))
    assert [len(folders) for folders in compare_runs(again).members.values()] == [1, 1, 1, 1]


def test_copies_of_questions_in_clusters_count_once_in_a_test_of_graded_values(write):
    values = np.random.default_rng(6).random((2, 12)) ** [[1.0], [0.5]]
    alone = [write(f"alone{number}", own, metric="token_f1", control=str(number)) for number, own in enumerate(values)]
    names = [f"c{number // 3:02}" for number in range(36)]
    copied = [
        write(f"copied{number}", np.repeat(own, 3), metric="token_f1", control=str(number), clusters=names)
        for number, own in enumerate(values)
    ]
    (expected,), (found,) = (compare_runs(runs, num_resamples=200).differences for runs in (alone, copied))
    assert (found.test, found.p_value, found.num_clusters) == ("bootstrap_t", expected.p_value, 12)
    assert found.ci95 == pytest.approx(expected.ci95)
    same = replace(copied[0], folder=write("same", np.repeat(values[0], 3), metric="token_f1", clusters=names).folder)
    (unchanged,) = compare_runs([copied[0], same], num_resamples=200).differences
    assert unchanged.ci95 == share_difference_interval(0, 0, 12)  # where no cluster changed


def test_an_interval_of_a_difference_ends_where_differences_end(write):
    after = [0.0, 0.0, 0.0, 0.1, 0.1, 0.2]
    runs = [write(name, own, metric="token_f1", control=name) for name, own in (("a", [0.99] * 6), ("b", after))]
    (found,) = compare_runs(runs, num_resamples=200).differences
    assert found.ci95[0] == -1.0 < found.difference < found.ci95[1] < 0.0


def test_what_draws_take_back_is_neither_better_nor_worse(write):
    runs = [write(f"a{seed}", [0.5, 0.5], model="a", seed=seed) for seed in range(3)]
    gains = (0.6, 0.7, 0.2)  # which add up to 1.5 but for rounding
    runs += [write(f"b{seed}", [value, value + 0.1], model="b", seed=seed) for seed, value in enumerate(gains)]
    (found,) = compare_runs(runs).differences
    assert (found.better, found.worse) == (("q001",), ())


def test_a_pilot_shows_the_variances_of_its_values_and_what_a_draw_costs(write):
    values = answers(np.random.default_rng(7), 3)
    clusters = [str(number // 8) for number in range(80)]
    speeds = (400 / 30, 800 / 30, 100 / 30)  # the last run was mostly decoded before, so that its time says nothing
    runs = [write(f"{seed}", own, seed=seed, speed=speeds[seed]) for seed, own in enumerate(values)]
    pilot = read_pilot(runs)
    assert (pilot.task, pilot.metric, pilot.unit) == ("qa", "judge", "question")
    assert (pilot.num_draws, pilot.num_questions, pilot.mean) == (3, 80, pytest.approx(values.mean()))
    assert pilot.components == crossed_mean(values).components
    # 8,000 tokens of prompts, of which 79 questions reuse the 60 of the demonstrations, and 400 new ones
    assert pilot.tokens == Costs(prefix=60.0, question=45.0)
    minutes = 36 / (60 + 80 * 45) / 60  # for each token, of 36 seconds of decoding and likelihoods
    assert (pilot.minutes.prefix, pilot.minutes.question) == pytest.approx((60 * minutes, 45 * minutes))
    assert read_pilot([runs[2], write("none", values[0], seed=3)]).minutes is None
    grouped = [write(f"g{seed}", own, seed=seed, clusters=clusters) for seed, own in enumerate(values)]
    pilot = read_pilot(grouped)
    assert (pilot.unit, pilot.num_questions, pilot.tokens) == ("cluster", 10, Costs(60.0, 8 * 45.0))
