import collections
import dataclasses
import json
import re
from types import SimpleNamespace

import pytest
import tiny_models
from sample_runs import FIRST

import icl_eval
from icl_eval.config.composing import ComposedConfig
from icl_eval.config.evaluations import build_evaluation
from icl_eval.demonstrations import (
    AbstractLabels,
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
    bind_mapping,
    build_shown,
    controls,
)
from icl_eval.errors import ConfigError
from icl_eval.evaluation.doses import measure_control
from icl_eval.runs.behaviour import Share
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
    [NoControl, RandomTargets, FlippedLabels, AbstractLabels, ShuffledTargets, NoTargets, UnrelatedInputs],
)
def test_a_control_changes_what_is_shown_and_never_what_is_selected(control, seed):
    options = {"seed": seed, "symbols": "ABCD"}
    control = control(**{name: options[name] for name in control.__dataclass_fields__ if name in options})
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


@pytest.mark.parametrize("control", [RandomTargets, FlippedLabels])
def test_a_fraction_changes_that_share_and_the_same_ones_whatever_stands_beside_them(control):
    task = task_of(*[(f"{n}",) for n in range(400)] * 2)
    plain, whole = targets(shown(NoControl(), 800, task)), targets(shown(control(0), 800, task))
    assert targets(shown(control(0, fraction=0), 800, task)) == plain
    changed = {}
    for fraction in (0.25, 0.5, 0.75):
        found = targets(shown(control(0, fraction=fraction), 800, task))
        assert all(each in (before, after) for each, before, after in zip(found, plain, whole, strict=True))
        changed[fraction] = {n for n, (each, before) in enumerate(zip(found, plain, strict=True)) if each != before}
        assert abs(len(changed[fraction]) / 800 - fraction) < 0.05
        assert targets(shown(control(0, fraction=fraction), 7, task)) == found[:7]
    assert changed[0.25] < changed[0.5] < changed[0.75]
    for wrong in (-0.1, 1.5):
        with pytest.raises(ConfigError) as error:
            control(0, fraction=wrong)
        assert str(error.value) == f"fraction={wrong}: must be between 0 and 1"


@pytest.mark.parametrize("seed", range(4))
def test_abstract_labels_are_symbols_one_for_one_for_demonstrations_questions_and_choices(seed):
    control = AbstractLabels(seed, ["yes", "A", "B", "C", "D"])  # a label of the task is no abstract symbol
    pairs = {
        (before, after) for [before], [after] in zip(targets(shown(NoControl())), targets(shown(control)), strict=True)
    }
    symbols = dict(pairs)
    assert len(pairs) == len(set(symbols.values())) == 3
    assert set(symbols) == set(LABELS)
    assert set(symbols.values()) < set("ABCD")
    follow = bind_mapping(control, TASK, None)
    asked = follow(dataclasses.replace(QUESTION, choices=LABELS))
    assert asked.references == (symbols["yes"],)
    assert asked.choices == tuple(symbols[label] for label in LABELS)
    assert asked.inputs == QUESTION.inputs
    follow = bind_mapping(control, TASK, "kind")
    odd, even = (
        [
            follow(dataclasses.replace(QUESTION, inputs={"kind": kind}, references=(label,))).references
            for label in LABELS
        ]
        for kind in ("odd", "even")
    )
    assert odd != even  # each kind has symbols of its own


def test_abstract_symbols_are_drawn_by_seed():
    assert len({tuple(map(tuple, targets(shown(AbstractLabels(seed, "ABCD"))))) for seed in range(50)}) > 10


@pytest.mark.parametrize(
    ("symbols", "question", "message"),
    [
        ("AB", QUESTION, "task 'answers' has 3 labels, and control.symbols has only 2 symbols that are no labels"),
        (
            "ABC",
            dataclasses.replace(QUESTION, references=("perhaps",)),
            "the answer 'perhaps' of 'test-0' is no label in the pool of task 'answers'",
        ),
        (
            "ABC",
            dataclasses.replace(QUESTION, choices=("yes", "perhaps")),
            "the choice 'perhaps' of 'test-0' is no label in the pool of task 'answers'",
        ),
    ],
)
def test_what_has_no_abstract_symbol_is_refused(symbols, question, message):
    with pytest.raises(ConfigError) as error:
        bind_mapping(AbstractLabels(0, symbols), TASK, None)(question)
    assert str(error.value) == f"control=abstract_labels: {message}"
    with pytest.raises(ConfigError) as error:
        AbstractLabels(0, ["A", " a"])
    assert str(error.value) == "symbols=[A,  a]: must be different, and not empty"


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
    twice = Example("pool-0", {"question": "Is it so?", "context": "Is it so?"}, ("yes",))
    [one] = shown(UnrelatedInputs(0), 1, Task("answers", "", {}, (twice,), (QUESTION,), ""))
    assert one.example.inputs["question"] != one.example.inputs["context"]
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


def test_any_rationale_of_the_pool_may_argue_for_a_random_target():
    pool = tuple(
        Example(f"pool-{n}", {"question": f"{n}"}, (LABELS[n % 2],), demonstration_fields={"why": f"{n}"})
        for n in range(8)
    )
    task = dataclasses.replace(TASK, pool=pool)
    drawn = {fields(shown(RandomTargets(seed), 1, task))[0]["why"] for seed in range(60)}
    assert drawn == {"0", "1", "3", "5", "7"}  # its own, and each of those for the other label


def test_a_rationale_is_found_without_a_look_at_the_whole_pool(monkeypatch):
    task, plain = dataclasses.replace(TASK, pool=WORKED), [Demonstration(one) for one in WORKED]
    change = RandomTargets(0).bind(task, None)
    looked, label_of = [], controls.label_of
    monkeypatch.setattr(controls, "label_of", lambda example: looked.append(example.id) or label_of(example))
    assert targets(change(plain)) != targets(plain)
    assert looked == [one.id for one in WORKED]


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


@pytest.mark.parametrize(
    ("control", "task", "num_right"),
    [
        (UnrelatedInputs(0), TASK, 0),
        (NoTargets(), TASK, None),
        (FlippedLabels(0, fraction=0), TASK, 2),
        (ShuffledTargets(0), task_of(("yes", "no"), ("no", "yes")), 2),  # what they exchange is right for both
    ],
)
def test_the_dose_is_the_share_of_right_targets_among_those_that_fitted_into_prompts(control, task, num_right):
    few_shot = FewShot(FirstDemonstrations(), control, AsSelectedOrder(), min(4, len(task.pool)))
    select = build_shown(task, few_shot)
    plan = SimpleNamespace(
        task=task, few_shot=few_shot, match_field=None, examples=(QUESTION,), select=select, max_new_tokens=0
    )
    record = dataclasses.replace(FIRST, example_id="test-0", demonstration_ids=("pool-0", "pool-1"))
    found = measure_control(plan, [record, record])
    expected = None if num_right is None else Share(4, num_right / 2)  # in two prompts
    assert (found.dose, found.follows) == (expected, None)


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


@pytest.mark.slow
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


# What a control leaves, and whether outputs follow it


ROWS = [{"question": f"{n}?", "references": [LABELS[n % 3]]} for n in range(24)]
LABELLED = Task.of_rows("answers", pool=ROWS[:12], test=ROWS[12:])


@pytest.fixture
def outcome_of(gpt2, tmp_path, monkeypatch):
    """Return what the report says of a control whose outputs are those that a function of the question gives."""

    def run(predict, *overrides):
        from icl_eval.decoding import Completion, StreamDecoder

        def stream(decoder, prompts, **options):
            for prompt in prompts:
                answer = predict(int(prompt.prompt.decoder.split("Question: ")[-1].split("?")[0]))
                yield Completion(prompt.prompt.example_id, answer, (1,), "stop")

        monkeypatch.setattr(StreamDecoder, "stream", stream)
        run = icl_eval.evaluate(
            *overrides, f"model.source={gpt2}", "demonstrations=first", "device=cpu", task=LABELLED, num_fewshot=6,
            folder=tmp_path / "_".join(overrides),
        )  # fmt: skip
        return run.report.results["answers"]

    return run


@pytest.mark.slow
def test_a_report_says_how_many_of_the_targets_shown_are_right(outcome_of):
    def dose(*overrides):
        found = outcome_of(lambda number: "yes", *overrides).control
        return found and found.dose and (found.dose.n, found.dose.share)

    assert dose("control=none") is None
    assert dose("control=no_targets") is None
    assert dose("control=flipped_labels") == (72, 0.0)
    assert dose("control=flipped_labels", "control.fraction=0") == (72, 1.0)
    assert dose("control=abstract_labels") == (72, 1.0)
    assert dose("control=unrelated_inputs") == (72, 0.0)
    few_shot = FewShot(FirstDemonstrations(), ShuffledTargets(0), AsSelectedOrder(), 6)
    shuffled = targets(build_shown(LABELLED, few_shot)(LABELLED.examples[0]))
    right = sum(found == (LABELS[n % 3],) for n, found in enumerate(shuffled)) / 6
    assert dose("control=shuffled_targets") == (72, pytest.approx(right))


def test_a_report_tells_a_model_that_follows_from_one_that_is_confused(outcome_of):
    follow = bind_mapping(FlippedLabels(0), LABELLED, None)
    flipped = {
        number: follow(example).references[0] for number, example in zip(range(12, 24), LABELLED.examples, strict=True)
    }
    obedient = outcome_of(flipped.__getitem__, "control=flipped_labels", "seed=0")
    confused = outcome_of(lambda number: "what?", "control=flipped_labels", "seed=0", "limit=12")
    scores = [each.metrics["exact_match"].score for each in (obedient, confused)]
    assert scores == [0.0, 0.0]
    assert (obedient.control.follows.n, obedient.control.follows.share) == (12, 1.0)
    assert confused.control.follows.share == 0.0
    assert outcome_of(lambda number: "yes", "control=random_targets").control.follows is None


def test_runs_without_a_fraction_of_their_own_are_those_from_before_there_was_one(compose):
    identities = [
        build_evaluation(ComposedConfig(compose("task=[qa]", *overrides))).identity
        for overrides in (["control=random_targets"], ["control=random_targets", "control.fraction=0.5"])
    ]
    assert "control.fraction" not in identities[0]
    assert identities[1]["control.fraction"] == 0.5


WORDS = "[bade,dedi,fepi,gilo,kopu,luna,muva,pare,rezi,siko,tolu,vuka]"
"""Words of the packaged model's vocabulary that are nowhere in its tasks."""


@pytest.mark.slow
def test_the_shipped_model_learns_labels_of_any_kind_and_follows_what_it_is_shown(tmp_path):
    model = icl_eval.load_model("icl_t5", device="cpu")

    def run(*overrides):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        found = icl_eval.evaluate(*overrides, model=model, task="induction_labels", num_fewshot=8, folder=folder)
        result = found.report.results["induction_labels"]
        return result.metrics["exact_match"].score, result.control

    gold, _ = run("control=none")
    abstract, _ = run("control=abstract_labels", f"control.symbols={WORDS}")
    assert abstract > gold - 0.05  # it knows no label, so that it loses nothing with others
    chance, random = run("control=random_targets")
    assert abs(chance - 1 / 3) < 0.1
    assert abs(random.dose.share - 1 / 3) < 0.05
    runs = [run("control=flipped_labels", f"control.fraction={part}") for part in (0, 0.5, 1)]
    scores, follows = zip(*runs, strict=True)
    assert scores[0] == gold > scores[1] + 0.3 > scores[2] + 0.6
    doses = [each.dose.share for each in follows]
    assert doses == [1.0, pytest.approx(0.5, abs=0.05), 0.0]
    shares = [each.follows.share for each in follows]
    assert shares[0] < 0.1 < 0.3 < shares[1] < 0.7 < gold - 0.05 <= shares[2]
