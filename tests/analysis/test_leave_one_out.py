import json
import math
import random
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from sample_runs import FIRST

from icl_eval.analysis.leave_one_out import (
    CellOutcome,
    Effect,
    Values,
    leave_one_out_analyses,
    measure_left_out,
    read_outcome,
)
from icl_eval.analysis.significance import count_effective_flips, share_difference_interval, simultaneous_level
from icl_eval.config.composing import ComposedConfig
from icl_eval.config.evaluations import build_evaluation
from icl_eval.demonstrations import (
    AsSelectedOrder,
    CandidateTargets,
    FewShot,
    FirstDemonstrations,
    FixedDemonstrations,
    FlippedLabels,
    NoControl,
)
from icl_eval.errors import ConfigError
from icl_eval.metrics import BLEU, CHRF, TER
from icl_eval.metrics.means import mean_statistics
from icl_eval.metrics.measurements import Measurement
from icl_eval.runs.behaviour import Agreement, Behaviour, measure_behaviour
from icl_eval.runs.records import ShownDemonstration
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

# Behaviour


def record(shown, prediction, *targets):
    demonstrations = tuple(ShownDemonstration(f"pool-{n}", target, None) for n, target in enumerate(shown))
    return replace(FIRST, demonstrations=demonstrations, prediction=prediction, targets=targets or ("truth",))


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([], None),
        ([record([], "a")], None),
        ([record([None, None], "a")], None),
        (
            [
                record(["a", "b", "a"], "b"),
                record(["a", "b", "b"], " B\n", "c", "A"),
                record(["a", "b", "a"], "c", "a"),
            ],
            Behaviour(Agreement(3, 2 / 3, 2 / 3), Agreement(3, 1 / 3, 1 / 3), Agreement(3, 1 / 3, 1 / 3)),
        ),
        # no majority: each once, or as many of one as of another
        ([record(["a"], "a")], Behaviour(Agreement(1, 1, 0), None, Agreement(1, 1, 0))),
        ([record(["a", "b"], "b")], Behaviour(Agreement(1, 1, 0), None, Agreement(1, 1, 0))),
        (
            [record(["a", "b", "a", "b"], "a"), record(["a", "a"], "x", "a"), record([], "a")],
            Behaviour(Agreement(2, 1 / 2, 1 / 2), Agreement(1, 0, 1), Agreement(2, 0, 1 / 2)),
        ),
    ],
)
def test_behaviour_is_how_often_outputs_and_truths_are_what_was_shown(records, expected):
    assert measure_behaviour(records) == expected


POOL_TARGETS = ["1"] * 26 + [str(n) for n in range(2, 16)]
"""A pool of 40, in which 26 have the answer 1."""


def answer_questions(predict):
    """Return records of 400 questions with four demonstrations each, drawn anew, and a count of the pool's targets."""
    generator = random.Random(0)
    records = []
    for number in range(400):
        drawn = generator.sample(POOL_TARGETS, 4)
        truth = generator.choice(POOL_TARGETS)
        records.append(replace(record(drawn, predict(drawn), truth), example_id=f"q{number}"))
    return measure_behaviour(records, lambda question, target: (POOL_TARGETS.count(target), len(POOL_TARGETS)))


def test_a_constant_answer_is_what_another_draw_would_show_and_a_copied_one_is_not():
    constant = answer_questions(lambda shown: "1").copied
    assert constant.another_draw == pytest.approx(1 - math.comb(14, 4) / math.comb(40, 4))
    assert constant.output == pytest.approx(constant.another_draw, abs=0.02)
    copied = answer_questions(lambda shown: shown[-1])
    assert (copied.copied.output, copied.last.output) == (1.0, 1.0)
    assert copied.copied.another_draw < 0.75
    assert copied.last.another_draw == pytest.approx((26**2 + 14) / 40**2, abs=0.03)
    assert copied.majority.another_draw is None
    for found, share in {(1, 2): 1.0, (0, 2): 0.0, (0, 0): 0.0}.items():  # fewer candidates than are shown
        assert measure_behaviour([record("aaaa", "a")], lambda *asked: found).copied.another_draw == share  # noqa: B023


def test_another_draw_shows_what_the_control_leaves_and_never_a_copy_of_the_question():
    labels = ["a", "a", "a", "b"]
    pool = tuple(Example(f"p{n}", {"question": f"{n}?"}, (label,)) for n, label in enumerate(labels * 2))
    task = Task("t", "", {}, pool, (), "")
    question, copy = Example("q", {"question": "new?"}, ("a",)), replace(pool[0], id="q")
    few_shot = FewShot(FirstDemonstrations(), NoControl(), AsSelectedOrder(), 2)
    plain = CandidateTargets(task, few_shot)
    assert (plain.count(question, " A"), plain.count(copy, "a"), plain.count(copy, "b")) == ((6, 8), (5, 7), (2, 7))
    repeated = replace(task, pool=(*pool, replace(pool[0], id="p8")))
    assert CandidateTargets(repeated, few_shot).count(question, "a") == (6, 8)
    listed = replace(few_shot, selector=FixedDemonstrations(["p0", "p8"]))  # which may show both
    assert CandidateTargets(repeated, listed).count(question, "a") == (7, 9)
    flipped = CandidateTargets(task, replace(few_shot, control=FlippedLabels(0)))
    assert (flipped.count(question, "a"), flipped.count(question, "b")) == ((2, 8), (6, 8))


def test_candidates_are_summed_once_and_not_for_each_question(monkeypatch):
    pool = tuple(Example(f"p{n}", {"question": f"{n}?"}, (f"{n}",)) for n in range(8))
    few_shot = FewShot(FirstDemonstrations(), NoControl(), AsSelectedOrder(), 2)
    candidates = CandidateTargets(Task("t", "", {}, pool, (), ""), few_shot)
    summed, total = [], Counter.total
    monkeypatch.setattr(Counter, "total", lambda counted: summed.append(len(counted)) or total(counted))
    assert candidates.count(Example("q", {"question": "7?"}, ("a",)), "3") == (1, 7)
    assert summed == [1]  # the copies of the question alone


# Leaving one out


def shown(*ids):
    return tuple(ShownDemonstration(name, f"target of {name}", None) for name in ids)


def means(values, is_share=False):
    """Return the values of a measure whose score is their mean."""
    return Values(values, values, is_share)


def answers(demonstrations, **values):
    questions = [f"q{n}" for n in range(len(next(iter(values.values()))))]
    return CellOutcome(
        dict.fromkeys(questions, demonstrations),
        {
            name: means(dict(zip(questions, found, strict=True)), is_share=name == "exact_match")
            for name, found in values.items()
        },
    )


def test_a_planted_influence_is_found_for_the_demonstration_and_the_questions_it_was_planted_on():
    whole = answers(shown("a", "b", "c"), exact_match=[1, 1, 0, 1, 0])
    without = [
        answers(shown("b", "c"), exact_match=[0, 0, 0, 1, 0]),  # without a, the first two are wrong
        answers(shown("a", "c"), exact_match=[1, 1, 0, 1, 0]),
        answers(shown("a", "b"), exact_match=[1, 0, 1, 1, 1]),
    ]
    helpful, idle, harmful = measure_left_out(whole, without)
    assert [found.id for found in (helpful, idle, harmful)] == ["a", "b", "c"]
    assert helpful.target == "target of a"
    level = simultaneous_level(3)
    interval = share_difference_interval(2, 0, 5, level)
    assert helpful.effects["exact_match"] == Effect(5, 0.4, pytest.approx(interval), {"q0": 1, "q1": 1}, {})
    assert idle.effects["exact_match"] == Effect(5, 0.0, share_difference_interval(0, 0, 5, level), {}, {})
    assert harmful.effects["exact_match"].mean == pytest.approx(-0.2)
    assert harmful.effects["exact_match"].helped == {"q1": 1}
    assert harmful.effects["exact_match"].hurt == {"q2": -1, "q4": -1}


def test_questions_are_listed_by_how_much_they_are_helped_or_hurt():
    whole = answers(shown("a", "b"), chrf=[10.0, 20.0, 30.0, 40.0, 5.0])
    [found] = measure_left_out(whole, [answers(shown("b"), chrf=[9.0, 15.0, 31.0, 50.0, 5.0])])
    assert list(found.effects["chrf"].helped.items()) == [("q1", 5.0), ("q0", 1.0)]
    assert list(found.effects["chrf"].hurt.items()) == [("q3", -10.0), ("q2", -1.0)]
    interval = scipy.stats.t.interval(0.95, 4, -1.0, scipy.stats.sem([1, 5, -1, -10, 0]))
    assert found.effects["chrf"].ci95 == pytest.approx(interval)


def test_the_interval_of_an_effect_is_over_clusters_where_questions_have_them():
    names = dict(zip((f"q{number}" for number in range(8)), "aabbccdd", strict=True))

    def in_clusters(cell, clusters):
        return replace(cell, values={name: replace(own, clusters=clusters) for name, own in cell.values.items()})

    hits, f1 = [1, 1, 0, 0, 1, 1, 0, 0], [0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0.5, 0.5]
    whole = answers(shown("a", "b"), exact_match=hits, f1=f1)
    without = [answers(shown("b"), exact_match=[0] * 8, f1=[0.25] * 8)]
    [found] = measure_left_out(in_clusters(whole, names), without)
    flips = share_difference_interval(*count_effective_flips(np.array(hits), list("aabbccdd")))
    assert found.effects["exact_match"].ci95 == pytest.approx(flips)
    expected = scipy.stats.t.interval(0.95, 3, 0.25, scipy.stats.sem([0.5, 0.25, 0.0, 0.25]))
    assert found.effects["f1"].ci95 == pytest.approx(expected)
    [alone] = measure_left_out(in_clusters(whole, {name: name for name in names}), without)
    assert alone == measure_left_out(whole, without)[0]
    [together] = measure_left_out(in_clusters(whole, dict.fromkeys(names, "a")), without)
    assert {effect.ci95 for effect in together.effects.values()} == {None}


def test_an_effect_that_is_the_same_for_all_questions_has_the_interval_of_shares_if_its_scale_has_ends():
    same = answers(shown("a", "b"), f1=[0.5, 0.25, 0.5, 0.25])
    for width, others, expected in [
        (1.0, [0.5, 0.25, 0.5, 0.25], share_difference_interval(0, 0, 4)),
        (1.0, [0.25, 0.0, 0.25, 0.0], share_difference_interval(1, 0, 4)),
        (np.inf, [0.5, 0.25, 0.5, 0.25], None),
    ]:
        without = answers(shown("b"), f1=others)
        cells = [replace(each, values={"f1": replace(each.values["f1"], width=width)}) for each in (same, without)]
        [found] = measure_left_out(cells[0], cells[1:])
        assert found.effects["f1"].ci95 == expected


def measured(metric, predictions, references):
    ids = tuple(f"q{n}" for n in range(len(predictions)))
    return Measurement("t", metric.name, metric.higher_is_better, ids, metric.per_example(predictions, references))


@pytest.mark.parametrize("metric", [BLEU(), CHRF(), TER()], ids=lambda metric: metric.name)
def test_one_output_that_differs_is_one_question_helped_whatever_the_corpus_score_does(metric):
    references = [[f"the number {n} stands in line {n * n} of the old book"] for n in range(20)]
    without = [f"a number {n} stood in line {n * n} of an old book" for n in range(20)]
    whole = [references[0][0], *without[1:]]
    cells = [measured(metric, said, references) for said in (whole, without)]
    assert sum(cells[0].values != cells[1].values) == 20  # pseudo-values change for every question

    [found] = measure_left_out(answers_of(shown("a", "b"), cells[0]), [answers_of(shown("b"), cells[1])])

    effect = found.effects[metric.name]
    assert (list(effect.helped), effect.hurt) == (["q0"], {})
    sign = 1 if metric.higher_is_better else -1
    assert effect.mean == pytest.approx(sign * (cells[0].score - cells[1].score))
    [gained] = effect.helped.values()
    assert gained == sign * (cells[0].statistics.per_example[0] - cells[1].statistics.per_example[0]) > 0


def answers_of(demonstrations, measurement):
    sign = 1 if measurement.higher_is_better else -1
    parts = dict(zip(measurement.example_ids, sign * measurement.values, strict=True))
    found = Values(parts, measurement.own_values, measurement.statistics.is_share)
    return CellOutcome(dict.fromkeys(measurement.example_ids, demonstrations), {measurement.metric: found})


def test_rounding_helps_and_hurts_nobody():
    whole = answers(shown("a", "b"), chrf=[0.1 + 0.2, 50.00000000000001])
    [found] = measure_left_out(whole, [answers(shown("b"), chrf=[0.3, 50.0])])
    assert (found.effects["chrf"].helped, found.effects["chrf"].hurt) == ({}, {})


def test_a_demonstration_that_makes_room_for_another_one_is_not_what_differs():
    whole = answers(shown("a", "b", "c"), f1=[1.0])  # of four, d did not fit
    without = [answers(shown(*ids), f1=[0.0]) for ids in ("bcd", "acd", "abd", "abc", "ab")]
    [found] = measure_left_out(whole, without)
    assert (found.id, found.effects["f1"]) == ("c", Effect(1, 1.0, None, {"q0": 1.0}, {}))


def test_what_is_left_out_is_read_from_the_records_of_each_question():
    whole = CellOutcome(
        {"q0": shown("a", "b"), "q1": shown("b", "c"), "q2": shown("a")},  # the last had no room for two
        {"f1": means({"q0": 1.0, "q1": 1.0, "q2": 1.0})},
    )
    without_second = CellOutcome(
        {"q0": shown("a"), "q1": shown("b"), "q2": shown("a")}, {"f1": means(dict.fromkeys(whole.shown, 0.5))}
    )
    b, c = measure_left_out(whole, [without_second])
    assert (b.id, b.effects["f1"]) == ("b", Effect(1, 0.5, None, {"q0": 0.5}, {}))
    assert (c.id, c.effects["f1"]) == ("c", Effect(1, 0.5, None, {"q1": 0.5}, {}))


def test_it_is_said_where_no_prompt_lacks_one_demonstration_alone(monkeypatch):
    shows = {"whole": shown("a", "b"), "first": shown("b", "c"), "second": shown("a", "c")}
    ranks = {"whole": None, "first": 1, "second": 2}

    def run_of(name):
        info, results = SimpleNamespace(leave_out=ranks[name]), {"qa": SimpleNamespace(behaviour=None)}
        return SimpleNamespace(name=name, report=SimpleNamespace(run=info, results=results))

    monkeypatch.setattr(
        "icl_eval.analysis.leave_one_out.read_outcome", lambda run, task: answers(shows[run.name], f1=[0.5])
    )
    options = [{"leave_out": str(rank)} for rank in ranks.values()]
    ([analysis], notes) = leave_one_out_analyses([run_of(name) for name in ranks], options)
    assert analysis.demonstrations == ()
    assert notes == ["leave-one-out, qa: no two prompts differ by exactly one demonstration"]
    shows.update(first=shown("b"), second=shown("a"))
    names = ("second", "whole", "first")
    ([analysis], _) = leave_one_out_analyses(map(run_of, names), [{"leave_out": str(ranks[name])} for name in names])
    assert [each.id for each in analysis.demonstrations] == ["a", "b"]  # by rank


def test_values_are_larger_where_answers_are_better_also_if_a_score_is_better_the_lower(monkeypatch):
    measured = Measurement("qa", "ter", False, ("q0", "q1"), mean_statistics([3.0, 1.0], ""))
    monkeypatch.setattr("icl_eval.analysis.leave_one_out.measure", lambda run, tasks: [measured])
    found = read_outcome(SimpleNamespace(records=lambda task: [replace(FIRST, example_id="q0")]), "qa")
    assert found.values == {"ter": means({"q0": -3.0, "q1": -1.0})}
    assert found.shown == {"q0": FIRST.demonstrations}


# Leaving out


def demonstrations(compose, *overrides):
    [plan] = build_evaluation(ComposedConfig(compose("task=[qa]", "num_fewshot=4", *overrides))).plans
    return [
        (demonstration.example.id, demonstration.example.references[0])
        for demonstration in plan.select(plan.examples[0])
    ]


@pytest.mark.parametrize("control", ["none", "shuffled_targets"])
def test_the_others_stay_as_they_are_when_one_is_left_out(control, compose):
    whole = demonstrations(compose, f"control={control}")
    for rank in range(1, 5):
        left = demonstrations(compose, f"control={control}", f"leave_out={rank}")
        assert left == whole[: rank - 1] + whole[rank:]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["leave_out=5"], "leave_out=5: must be the rank of a demonstration, 1 to num_fewshot=4"),
        (["leave_out=0"], "leave_out=0: must be the rank of a demonstration, 1 to num_fewshot=4"),
        (
            ["leave_out=1", "control=instruction_only"],
            "leave_out=1: has no effect, control=instruction_only shows no demonstrations",
        ),
    ],
)
def test_what_cannot_be_left_out_is_refused(overrides, message, compose):
    with pytest.raises(ConfigError) as error:
        demonstrations(compose, *overrides)
    assert str(error.value) == message


# A sweep, with a model that is a script


def answer_as_shown(decoder, prompts, **options):
    """Complete each prompt by the target of its first demonstration, if that is of some use."""
    from icl_eval.decoding import Completion

    for prompt in prompts:
        targets = [
            line.removeprefix("Answer: ") for line in prompt.prompt.decoder.split("\n") if line.startswith("Answer: ")
        ]
        said = targets[0] if "Zeus" in targets else targets[-1]
        yield Completion(prompt.prompt.example_id, said, (1,), "stop")


@pytest.mark.slow
def test_the_influence_experiment_finds_what_a_scripted_model_does(icl_eval_command, gpt2, tmp_path, monkeypatch):
    from icl_eval.decoding import StreamDecoder

    monkeypatch.setattr(StreamDecoder, "stream", answer_as_shown)
    (tmp_path / "test.csv").write_text("question,references\nwhere?,Zeus\nwho?,Napoleon Bonaparte\nwhat?,Zeus\n")
    options = [
        "task=[qa]",
        "demonstrations=first",
        "task.qa.test.path=./test.csv",
        "leave_out=null,1,2",
        "num_fewshot=2",
    ]
    outcome = icl_eval_command(
        "experiment=leave_one_out", f"model.source={gpt2}", *options, "metrics=[exact_match]", "hydra.sweep.dir=sweep"
    )
    assert outcome.exit_code == 0
    sweep = json.loads((tmp_path / "sweep" / "sweep.json").read_text(encoding="utf-8"))
    [analysis] = sweep["analysis"]["leave_one_out"]
    effects = {found["target"]: found["effects"]["exact_match"] for found in analysis["demonstrations"]}
    assert effects["Zeus"]["helped"] == {"test-0": 1.0, "test-2": 1.0}
    assert effects["Zeus"]["hurt"] == {"test-1": -1.0}
    assert effects["Zeus"]["mean"] == pytest.approx(1 / 3)
    assert (effects["Napoleon Bonaparte"]["helped"], effects["Napoleon Bonaparte"]["hurt"]) == ({}, {})
    always = {"n": 3, "output": 1.0, "truth": 1.0, "another_draw": pytest.approx(2 / 40)}
    once = {"n": 3, "output": 0.0, "truth": pytest.approx(1 / 3), "another_draw": pytest.approx(1 / 40)}
    assert analysis["behaviour"] == {"copied": always, "majority": None, "last": once}
    cells = {cell["run"]["leave_out"]: cell for cell in sweep["cells"]}
    assert set(cells) == {None, 1, 2}
    assert cells[None]["results"]["qa"]["behaviour"] == analysis["behaviour"]
    assert (cells[None]["results"]["qa"]["num_fewshot"], cells[1]["results"]["qa"]["num_fewshot"]) == (2, 1)
    assert "fit fewer" not in outcome.out
    assert "improvement of the score by a demonstration beside all the others (above zero it helps" in " ".join(
        outcome.out.split()
    )
    [line] = [line for line in outcome.out.splitlines() if "│ qa-pool-001" in line]
    assert [cell.strip() for cell in line.split("│")[2:6]] == [
        "qa-pool-001",
        "Zeus",
        "+0.333 (-0.782 to +1.000)",
        "2 / 1",
    ]
