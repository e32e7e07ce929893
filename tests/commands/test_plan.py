import dataclasses
import json
import re

import pytest

import icl_eval

QUICK = ("task=qa", "metrics=[chrf,exact_match]", "limit=8", "max_new_tokens=4", "overflow=drop")


@pytest.fixture
def pilot(icl_eval_command, gpt2):
    """Run a pilot of three draws in two conditions, into the folder `pilot`."""
    outcome = icl_eval_command(
        f"model.source={gpt2}", *QUICK, "-m", "num_fewshot=1,2", "demonstrations.seed=0,1,2", "hydra.sweep.dir=pilot"
    )
    assert outcome.exit_code == 0


def rows(outcome):
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in outcome.out.splitlines() if "│" in line]


@pytest.mark.slow
def test_a_pilot_of_two_conditions_plans_their_difference_and_its_costs(pilot, icl_eval_command, tmp_path):
    outcome = icl_eval_command(
        "plan", "pilot", "score=qa/chrf", "draws=[2,5]", "questions=[10,100]", "difference=1", "budget_tokens=1234567"
    )
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert re.search(
        r"pilot: qa chrf, 3 draws × 8 questions: difference \S+ of num_fewshot=2 from num_fewshot=1", outcome.out
    )
    table = rows(outcome)
    assert [row[:2] for row in table] == [["2", "10"], ["2", "100"], ["5", "10"], ["5", "100"]]
    tokens = [int(row[5].replace(",", "")) for row in table]
    assert tokens[2] == pytest.approx(2.5 * tokens[0], abs=2)
    assert tokens[0] < tokens[1] < 10 * tokens[0]  # the prefix is computed once
    assert "which more questions do not remove" in outcome.out
    assert "best for 1,234,567 tokens" in outcome.out
    assert "if draws vary as much as the pilot allows" in outcome.out
    assert outcome.out.endswith("plan: pilot/plan.json\n")
    options = {"score": "qa/chrf", "draws": [2, 5], "questions": [10, 100], "difference": 1, "budget_tokens": 1234567}
    plan = icl_eval.plan("pilot", **options)
    written = json.loads((tmp_path / "pilot/plan.json").read_text(encoding="utf-8"))
    assert json.loads(json.dumps(dataclasses.asdict(plan))) == written
    assert [[f"{each.draws}", f"{each.questions}", f"{each.stderr:.3g}"] for each in plan.studies] == [
        row[:3] for row in table
    ]
    assert [round(each.tokens) for each in plan.studies] == tokens
    assert plan.best["tokens"].tokens <= 1234567
    assert plan.table.shape == (4, 7)
    assert repr(plan) == "<StudyPlan: pilot of 2 conditions (num_fewshot=1, num_fewshot=2), 4 studies>"
    outcome = icl_eval_command("plan", "pilot", "score=qa/exact_match")  # the model has never a right answer
    assert "nothing varies in the pilot, so it says nothing about errors\n" in outcome.out
    assert icl_eval.plan("pilot", score="qa/exact_match").studies == ()
    assert icl_eval_command("plan", "pilot", "score=qa/bleu").err == (
        "icl-eval: score=bleu: no metric of the pilot; it has chrf, exact_match\n"
    )
    assert icl_eval_command("plan", "pilot", "score=qa/").err == (
        "icl-eval: score=: no metric of the pilot; it has chrf, exact_match\n"
    )


@pytest.mark.slow
def test_a_pilot_of_one_condition_plans_its_score(icl_eval_command, gpt2):
    command = (f"model.source={gpt2}", *QUICK, "num_fewshot=1", "-m")
    assert icl_eval_command(*command, "demonstrations.seed=0,1,2", "hydra.sweep.dir=one").exit_code == 0
    outcome = icl_eval_command("plan", "one", "score=qa/chrf")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert "smallest difference from a known value" in outcome.out


def test_without_a_pilot_a_share_of_flips_is_enough(icl_eval_command, tmp_path):
    outcome = icl_eval_command("plan", "flips=0.2", "questions=[64,626]")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert rows(outcome) == [["64", "12%"], ["626", "80%"]]
    assert "questions for power 0.8: 626\n" in outcome.out
    assert "about the prompts of one draw" in outcome.out
    assert not list(tmp_path.iterdir())
    for _ in range(2):  # an earlier plan may be overwritten
        outcome = icl_eval_command("plan", "flips=0.2", "questions=[64,626]", "output=mine.json")
        assert outcome.out.endswith("plan: mine.json\n")
    plan = icl_eval.plan(flips=0.2, questions=[64, 626])
    assert json.loads((tmp_path / "mine.json").read_text("utf-8")) == json.loads(json.dumps(dataclasses.asdict(plan)))
    assert [(each.draws, each.questions, round(each.power, 2)) for each in plan.studies] == [
        (1, 64, 0.12), (1, 626, 0.8)
    ]  # fmt: skip
    assert (plan.cheapest.questions, plan.pilot, plan.goal.power) == (626, None, 0.8)


def test_a_plan_overwrites_nothing_else(icl_eval_command, tmp_path):
    (tmp_path / "mine.json").write_text('{"results": []}')
    outcome = icl_eval_command("plan", "flips=0.2", "output=mine.json")
    assert outcome.err == ("icl-eval: output=mine.json: mine.json exists and is not a plan; choose another name\n")
    assert (tmp_path / "mine.json").read_text() == '{"results": []}'


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "plan: needs a pilot over seeds (icl-eval plan SWEEP), or flips=… for a guess without one"),
        (["nowhere/at/all"], "nowhere/at/all: no such folder"),
        (["flips=0.01"], "flips=0.01: must be more than difference=0.05, and at most 1"),
        (["flips=0.2", "budget_tokens=5"], "budget_tokens=5: has no effect with flips"),
        (["flips=0.2", "draws=[3]"], "draws=[3]: has no effect with flips, which plan a test of one draw"),
        (["flips=0.2", "questions=[]"], "questions=[]: must be one or more numbers"),
        (["flips=0.2", "output="], "output=: must end in .json"),
        (["flips=0.2", ""], "'': an empty argument; must be a folder or key=value"),
        (["flips=0.2", "power=1"], "power=1.0: must be between 0 and 1"),
        (["flips=0.2", "difference=0"], "difference=0.0: must be more than 0 and finite"),
        (["flips=0.2", "difference=inf"], "difference=inf: must be more than 0 and finite"),
        (["flips=0.2", "difference=1e-9"], "difference=1e-09: must be 0.0001 or more with flips"),
        (["flips=0.2", "questions=[1]"], "questions=1: must be 2 to 1,000,000"),
        (["flips=0.2", "output=plan.txt"], "output=plan.txt: must end in .json"),
        (["flips=0.2", "tests=0"], "tests=0: must be 1 or more"),
        (["flips=0.2", ".", "-m"], "-m: only evaluations can be swept"),
    ],
)
def test_a_mistake_in_a_plan_is_one_line(words, sentence, icl_eval_command):
    outcome = icl_eval_command("plan", *words)
    assert outcome.exit_code == 2
    assert outcome.err == f"icl-eval: {sentence}\n"


def test_one_draw_is_no_pilot(icl_eval_command, gpt2):
    assert icl_eval_command(f"model.source={gpt2}", *QUICK, "hydra.run.dir=one").exit_code == 0
    outcome = icl_eval_command("plan", "one")
    assert outcome.err == (
        "icl-eval: plan: one: one draw does not show how draws differ; make a pilot of several (seed=0,1,2)\n"
    )
