import collections
import dataclasses
import json
import re

import pytest
import tiny_models

from icl_eval.config.composing import ComposedConfig
from icl_eval.config.evaluations import build_evaluation
from icl_eval.demonstrations import (
    AsSelectedOrder,
    Demonstration,
    FewShot,
    FirstDemonstrations,
    FlippedLabels,
    InstructionOnly,
    NoControl,
    NoTargets,
    RandomTargets,
    ShuffledTargets,
    UnrelatedInputs,
    build_shown,
)
from icl_eval.errors import ConfigError
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

LABELS = ("yes", "no", "maybe")
POOL = tuple(
    Example(f"pool-{n}", {"question": f"Is it so, {n}?", "kind": "odd" if n % 2 else "even"}, (LABELS[n % 3],))
    for n in range(24)
)
TASK = Task("answers", "Answer.", {}, POOL, POOL[:1], "")
QUESTION = Example("test-0", {"question": "?", "kind": "odd"}, ("yes",))


def task_of(*references):
    pool = tuple(Example(f"pool-{n}", {"question": f"{n}"}, found) for n, found in enumerate(references))
    return Task("answers", "", {}, pool, (QUESTION,), "")


def shown(control, num_fewshot=12, task=TASK, match_field=None):
    few_shot = FewShot(FirstDemonstrations(), control, AsSelectedOrder(), num_fewshot)
    return build_shown(task, few_shot, match_field)(QUESTION)


def targets(demonstrations):
    return [demonstration.example.references for demonstration in demonstrations]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "control",
    [NoControl, RandomTargets, FlippedLabels, ShuffledTargets, NoTargets, UnrelatedInputs],
)
def test_a_control_changes_what_is_shown_and_never_what_is_selected(control, seed):
    control = control(seed) if "seed" in control.__dataclass_fields__ else control()
    changed, plain = shown(control), shown(NoControl())
    assert [one.example.id for one in changed] == [one.example.id for one in plain]
    assert changed == shown(control)
    assert (changed == plain) == isinstance(control, NoControl)
    kept = "references" if isinstance(control, UnrelatedInputs) else "inputs"
    assert [getattr(one.example, kept) for one in changed] == [getattr(one.example, kept) for one in plain]


def test_random_targets_are_drawn_evenly_from_the_distinct_targets():
    task = task_of(*[("yes",)] * 8, ("no",), ("maybe",))
    drawn = [target for seed in range(300) for [target] in targets(shown(RandomTargets(seed), 10, task))]
    counts = collections.Counter(drawn)
    assert set(counts) == set(LABELS)
    assert all(900 < count < 1100 for count in counts.values())


def test_a_demonstration_has_its_random_target_whatever_stands_beside_it():
    assert targets(shown(RandomTargets(3), 12))[:5] == targets(shown(RandomTargets(3), 5))


@pytest.mark.parametrize("seed", range(6))
def test_flipped_labels_are_one_for_one_and_always_wrong(seed):
    pairs = {
        (before, after)
        for [before], [after] in zip(targets(shown(NoControl())), targets(shown(FlippedLabels(seed))), strict=True)
    }
    assert all(before != after for before, after in pairs)
    assert {before for before, _ in pairs} == {after for _, after in pairs} == set(LABELS)
    assert len(pairs) == 3


def test_a_label_that_is_also_right_is_never_the_flipped_one():
    task = task_of(("yes", "Maybe "), ("no",), ("maybe",), ("yes",), ("no",), ("maybe",))
    for seed in range(10):
        [flipped] = targets(shown(FlippedLabels(seed), 1, task))[0]
        assert flipped == "no"
    stuck = task_of(("yes", "no"), ("no",), ("yes",), ("no",))
    with pytest.raises(ConfigError) as error:
        shown(FlippedLabels(0), 1, stuck)
    assert str(error.value) == "control=flipped_labels: every label of task 'answers' is a correct answer to 'pool-0'"


@pytest.mark.parametrize("num_fewshot", [2, 3, 9])
def test_shuffled_targets_are_the_same_targets_and_none_stays(num_fewshot):
    task = task_of(*[(f"target {n}",) for n in range(9)])
    plain = targets(shown(NoControl(), num_fewshot, task))
    for seed in range(10):
        shuffled = targets(shown(ShuffledTargets(seed), num_fewshot, task))
        assert sorted(shuffled) == sorted(plain)
        assert all(before != after for before, after in zip(plain, shuffled, strict=True))
    draws = {tuple(targets(shown(ShuffledTargets(seed), num_fewshot, task))) for seed in range(10)}
    assert len(draws) == {2: 1, 3: 2, 9: 10}[num_fewshot]


def test_unrelated_inputs_keep_length_layout_and_targets_and_no_word():
    pool = tuple(
        Example(
            f"pool-{n}", {"question": f"User: Is {n} so?\nAgent: No, it's anchor.", "kind": "k"}, ("Lamp", "the rope")
        )
        for n in range(40)
    )
    task = Task("answers", "", {}, pool, (QUESTION,), "")
    texts = [one.example.inputs["question"] for one in shown(UnrelatedInputs(0), 40, task)]
    for text in texts:
        assert re.sub(r"\w+", "w", text) == "w: w w w?\nw: w, w'w w."
        assert text[0].isupper()
    words = collections.Counter(word.lower() for text in texts for word in re.findall(r"\w+", text))
    assert not {"user", "is", "so", "agent", "no", "lamp", "rope"} & set(words)
    assert len(words) > 100
    matched = [one.example.inputs for one in shown(UnrelatedInputs(0), 3, TASK, "kind")]
    assert {inputs["kind"] for inputs in matched} == {"odd"}


def test_targets_are_those_of_the_questions_kind():
    references = {"odd": ("1", "3"), "even": ("2", "4")}
    pool = tuple(
        Example(f"pool-{n}", {"question": f"{n}", "kind": kind}, (references[kind][n // 2 % 2],))
        for n, kind in enumerate(["even", "odd"] * 8)
    )
    task = Task("answers", "", {}, pool, (QUESTION,), "")
    for control in (RandomTargets(1), FlippedLabels(1), ShuffledTargets(1)):
        assert {target for [target] in targets(shown(control, 8, task, "kind"))} == {"1", "3"}


WORKED = tuple(
    Example(f"pool-{n}", {"question": f"Is it so, {n}?"}, (LABELS[n % 3],), (), {"why": f"As {n} is {LABELS[n % 3]}."})
    for n in range(24)
)


def fields(demonstrations):
    return [dict(one.example.demonstration_fields) for one in demonstrations]


@pytest.mark.parametrize("seed", range(4))
def test_a_rationale_goes_where_the_target_goes_that_it_argues_for(seed):
    task = dataclasses.replace(TASK, pool=WORKED)
    plain = shown(NoControl(), 12, task)
    for control in (RandomTargets(seed), ShuffledTargets(seed)):
        changed = shown(control, 12, task)
        moved = 0
        for before, after in zip(plain, changed, strict=True):
            [target] = after.example.references
            why = after.example.demonstration_fields["why"]
            assert why.endswith(f" is {target}.")
            own = before.example.demonstration_fields["why"]
            assert isinstance(control, ShuffledTargets) or (why == own) == (target == before.example.references[0])
            moved += why != own
        assert moved >= 4
        bare = dataclasses.replace(
            TASK, pool=tuple(dataclasses.replace(one, demonstration_fields={}) for one in WORKED)
        )
        assert targets(changed) == targets(shown(control, 12, bare))  # a rationale changes no draw
    assert fields(shown(ShuffledTargets(seed), 12, task)) != fields(plain)
    assert sorted(map(str, fields(shown(ShuffledTargets(seed), 12, task)))) == sorted(map(str, fields(plain)))


def test_unrelated_inputs_make_rationales_meaningless_too():
    [one] = shown(UnrelatedInputs(0), 1, dataclasses.replace(TASK, pool=WORKED))
    why = one.example.demonstration_fields["why"]
    assert re.sub(r"\w+", "w", why) == "w w w w."
    assert not {"as", "0", "is", "yes"} & set(re.findall(r"\w+", why.lower()))


def test_flipped_labels_refuse_rationales_which_argue_for_the_right_label():
    with pytest.raises(ConfigError) as error:
        shown(FlippedLabels(0), 2, dataclasses.replace(TASK, pool=WORKED))
    assert str(error.value) == (
        "control=flipped_labels: demonstrations of task 'answers' have more than a label (why), which would argue for "
        "the right one; leave out its demonstration_fields, or use shuffled_targets or random_targets"
    )


def test_without_targets_no_rationale_is_shown(compose):
    overrides = ("task=[math_worked]", "control=no_targets", "num_fewshot=1", "demonstrations=first")
    question = "Tom has 3 boxes of 12 pens and gives away 5 pens. How many pens does he keep?"
    for template, text in (
        (["template=chain_of_thought"], f"Problem: {question}\nAnswer:"),
        (["template.demonstration='{{ question }} {{ rationale }} {{ answer }}'"], question),
    ):
        evaluation = build_evaluation(ComposedConfig(compose(*overrides, *template)))
        [plan] = evaluation.plans
        examples = [one.example for one in plan.select(plan.examples[0])]
        assert plan.template.render(plan.task, examples, plan.examples[0]).demonstrations == (text,)


def test_instruction_only_shows_no_demonstration():
    assert shown(InstructionOnly()) == ()


@pytest.mark.parametrize(
    ("control", "references", "message"),
    [
        (RandomTargets(0), "aaaa", "control=random_targets: 'a' is the only target in the pool of task 'answers'"),
        (ShuffledTargets(0), "aaaa", "control=shuffled_targets: 'a' is the only target in the pool of task 'answers'"),
        (
            FlippedLabels(0),
            "abcde",
            "control=flipped_labels: the pool of task 'answers' has 5 distinct answers in 5 rows; a set of labels "
            "needs at least 2 rows per label",
        ),
    ],
)
def test_a_control_that_makes_no_sense_for_a_task_is_refused(control, references, message):
    with pytest.raises(ConfigError) as error:
        shown(control, 2, task_of(*references))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["control=shuffled_targets", "num_fewshot=1"],
            "control=shuffled_targets: needs num_fewshot=2 or more, not 1",
        ),
        (
            ["control=no_targets", "num_fewshot=0"],
            "control=no_targets: needs num_fewshot=1 or more, not 0",
        ),
        (
            ["control=instruction_only", "template=plain"],
            "control=instruction_only: template 'plain' shows no instruction for task 'qa'",
        ),
    ],
)
def test_a_control_that_makes_no_sense_for_a_run_is_refused(overrides, message, compose):
    cfg = compose("task=[qa]", *overrides)
    with pytest.raises(ConfigError) as error:
        build_evaluation(ComposedConfig(cfg, {"template": "plain" if "template=plain" in overrides else "labelled"}))
    assert str(error.value) == message


@pytest.mark.parametrize("template", ["labelled", "phi", "flan_t5_encoder"])
def test_a_template_that_shows_the_instruction_anywhere_can_be_shown_alone(template, compose):
    build_evaluation(ComposedConfig(compose("task=[qa,showcase]", f"template={template}", "control=instruction_only")))


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("labelled", "Question: Who was the king of the gods in Greek mythology?\nAnswer:"),
        ("plain", "Who was the king of the gods in Greek mythology?\n"),
        ("flan_t5_encoder", "Example: Who was the king of the gods in Greek mythology??"),
    ],
)
def test_a_demonstration_without_target_ends_where_its_answer_would_begin(template, text, compose):
    cfg = compose("task=[qa]", f"template={template}", "control=no_targets", "num_fewshot=1", "demonstrations=first")
    evaluation = build_evaluation(ComposedConfig(cfg))
    [plan] = evaluation.plans
    [demonstration] = plan.select(plan.examples[0])
    assert isinstance(demonstration, Demonstration)
    assert plan.template.render(plan.task, [demonstration.example], QUESTION).demonstrations == (text,)


def test_a_run_under_a_control_says_so_and_shows_the_changed_targets(icl_eval_command, gpt2, tmp_path):
    options = [
        f"model.source={gpt2}",
        "task=[qa]",
        "demonstrations=first",
        "limit=1",
        "num_fewshot=2",
        "max_new_tokens=2",
    ]
    found = {}
    for control in ("none", "shuffled_targets", "no_targets", "instruction_only"):
        outcome = icl_eval_command(*options, f"control={control}", f"hydra.run.dir={control}")
        assert outcome.exit_code == 0
        assert ("control" in outcome.out.partition("\n")[0]) == (control != "none")
        report = json.loads((tmp_path / control / "report.json").read_text())
        assert report["run"]["control"] == control
        [line] = (tmp_path / control / "samples_qa.jsonl").read_text(encoding="utf-8").splitlines()
        found[control] = json.loads(line)
    assert "fit fewer" not in outcome.out
    assert len({record["prompt_hash"] for record in found.values()}) == 4
    plain = [one["target"] for one in found["none"]["demonstrations"]]
    shuffled = [one["target"] for one in found["shuffled_targets"]["demonstrations"]]
    assert shuffled == plain[::-1]
    assert re.findall(r"Answer: (.*)\n", found["shuffled_targets"]["decoder"]) == shuffled
    assert [one["target"] for one in found["no_targets"]["demonstrations"]] == [None] * 2
    assert found["instruction_only"]["demonstrations"] == []
    assert (found["instruction_only"]["shots_requested"], found["none"]["shots_requested"]) == (0, 2)


def test_a_conversation_cannot_withhold_answers(icl_eval_command, tmp_path):
    chatty = tiny_models.save_gpt2(tmp_path / "chatty", chat_template=tiny_models.CHAT_TEMPLATE)
    outcome = icl_eval_command(f"model.source={chatty}", "task=[qa]", "template=chat", "control=no_targets", "limit=1")
    assert (outcome.exit_code, outcome.err) == (
        2,
        "icl-eval: control=no_targets: in a conversation every question needs an answer; use a template without "
        "'chat'\n",
    )
