"""What a task brings of its own holds, unless the run gives something else."""

from pathlib import Path

import pytest

from icl_eval.config.composing import ComposedConfig
from icl_eval.config.evaluations import build_evaluation
from icl_eval.config.given import is_given
from icl_eval.config.plans import apply_limit

LABELLED = "{% if labels.question %}{{ labels.question }}: {% endif %}{{ question }}\n{{ labels.answer }}:"
OWN = ("+template@task.qa.template=plain", "task.qa.num_fewshot=2")


@pytest.fixture
def plan_of(compose):
    """Return the only plan of an evaluation, as the command line would build it."""

    def build(*overrides):
        composed = ComposedConfig(compose("task=qa", *overrides), {"template": "labelled"}, overrides=overrides)
        evaluation = build_evaluation(composed)
        return evaluation.plans[0], evaluation

    return build


@pytest.mark.parametrize(
    ("given", "question", "num_fewshot"),
    [
        ((), "{{ question }}\n", 2),
        (("num_fewshot=4",), "{{ question }}\n", 4),
        (("num_fewshot=null",), "{{ question }}\n", 2),
        (("template=labelled",), LABELLED, 2),
        (("template.separator='--'",), LABELLED, 2),
    ],
)
def test_a_tasks_own_wording_and_shots_hold_unless_the_run_gives_others(given, question, num_fewshot, plan_of):
    plan, evaluation = plan_of(*OWN, *given)
    assert plan.template.question == question
    assert plan.few_shot.num_fewshot == num_fewshot == evaluation.config["num_fewshot"]
    assert len(plan.select(plan.examples[0])) == num_fewshot


def test_the_identity_says_which_of_the_two_templates_holds(plan_of):
    own, given = (plan_of(*OWN, *more)[1].identity for more in ((), ("template=labelled",)))
    assert own["task.qa.template.question"] == "{{ question }}\n"
    assert given["task.qa.template"] is None


@pytest.mark.parametrize(("limit", "count"), [(0.07, 7), (0.071, 8), (0.28, 28), (0.55, 55), (0.001, 1), (3, 3)])
def test_a_fraction_of_the_questions_is_the_one_that_is_written(limit, count):
    assert apply_limit(tuple(range(100)), limit) == tuple(range(count))


def test_tasks_without_anything_of_their_own_show_four_demonstrations(plan_of):
    plan, evaluation = plan_of()
    assert plan.few_shot.num_fewshot == 4 == evaluation.config["num_fewshot"]
    assert plan.template.name == "labelled"


@pytest.mark.parametrize(
    ("content", "given"),
    [
        ("template: {separator: x}", True),
        ("defaults: [{override /template: labelled}]", True),
        ("defaults: [{/template@task.qa.template: plain}]\nnum_fewshot: 3", False),
    ],
)
def test_an_experiment_may_give_the_template(content, given, tmp_path, compose):
    (tmp_path / "experiment").mkdir()
    Path(tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{content}\n", encoding="utf-8")
    composed = ComposedConfig(compose(), {"experiment": "mine"}, search_path=(tmp_path,))
    assert is_given(composed, "template") is given
