import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from icl_eval.cli import main as cli
from icl_eval.config.composing import ComposedConfig
from icl_eval.config.evaluations import build_evaluation
from icl_eval.config.setup import conf_dir
from icl_eval.errors import FingerprintMismatchError, IclEvalError
from icl_eval.evaluation.adopting import adopt_records
from icl_eval.evaluation.pipeline import run_evaluation
from icl_eval.runs.records import RecordLog

QUICK = ("num_fewshot=1", "max_new_tokens=6", "batch_size=4")


@pytest.fixture
def evaluate(evaluate_tiny):
    return lambda name, *overrides: evaluate_tiny(name, *QUICK, *overrides)


def results(folder):
    """Return what must be the same bytes for the same inputs."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    samples = {path.name: path.read_bytes() for path in folder.glob("samples_*.jsonl")}
    return json.dumps([report["run"], report["results"]]), samples


def records(folder, task="qa"):
    lines = (folder / f"samples_{task}.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len({json.loads(line)["example_id"] for line in lines})
    return {json.loads(line)["example_id"]: line for line in lines}


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def after_a_record(number):
    """Be killed when the log of any task holds this many records."""
    append = RecordLog.append

    def append_and_die(log, record):
        append(log, record)
        if len(log.records) == number:
            die()

    RecordLog.append = append_and_die


def within_a_line(number):
    """Be killed when only a part of the first new line has reached the file."""
    append = RecordLog.append

    def append_and_die(log, record):
        append(log, record)
        if len(log.records) == number:
            os.truncate(log.path, log.path.stat().st_size - 40)
            die()

    RecordLog.append = append_and_die


def before_replacing(name):
    """Be killed when a file is written under another name and not yet in its place."""
    replace = Path.replace
    Path.replace = lambda path, target: die() if Path(target).name == name else replace(path, target)


MOMENTS = (
    (before_replacing, "fingerprint.json"),
    (after_a_record, 1),
    (after_a_record, 6),
    (within_a_line, 13),
    (after_a_record, 20),
    (before_replacing, "samples_qa.jsonl"),
    (before_replacing, "samples_commonsense.jsonl"),
    (before_replacing, "report.json"),
)


def run_and_be_killed(arguments):
    """Start the same command once for each moment; in a process of its own, which forks before torch has worked."""
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast  # noqa: F401  once, for all children, like:

    from icl_eval.evaluation import pipeline as evaluation  # noqa: F401
    from icl_eval.metrics import ExactMatch, TokenF1  # noqa: F401

    sys.argv = ["icl-eval", *arguments]
    for arrange, moment in MOMENTS:
        child = os.fork()
        if child == 0:
            arrange(moment)
            cli.main()
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), (moment, status)


@pytest.mark.slow
def test_law_3_a_run_killed_at_any_moment_and_started_again_gives_the_same_bytes(evaluate, gpt2, tmp_path):
    overrides = ("task=[qa,commonsense]", "limit=20")
    arguments = (f"model.source={gpt2}", *QUICK, *overrides, "hydra.run.dir=killed")
    process = multiprocessing.get_context("spawn").Process(target=run_and_be_killed, args=(arguments,))
    process.start()
    undisturbed = evaluate("undisturbed", *overrides)
    process.join()

    assert process.exitcode == 0
    assert not (tmp_path / "killed" / "report.json").exists()
    assert results(evaluate("killed", *overrides)) == results(undisturbed)
    assert len(records(undisturbed)) == len(records(undisturbed, "commonsense")) == 20


@pytest.mark.parametrize("cut", [1, 30])
def test_law_3_a_torn_last_line_is_dropped_and_only_its_question_is_asked_again(cut, evaluate, decoded, tmp_path):
    folder = evaluate("whole", "task=qa", "limit=6")
    torn = tmp_path / "torn"
    shutil.copytree(folder, torn)
    os.truncate(torn / "samples_qa.jsonl", (torn / "samples_qa.jsonl").stat().st_size - cut)
    decoded.clear()

    assert results(evaluate("torn", "task=qa", "limit=6")) == results(folder)
    assert decoded == ["qa-test-006"]


def test_a_broken_line_before_the_last_is_an_error_that_names_it(evaluate, icl_eval_command, gpt2):
    path = evaluate("run", "task=qa", "limit=3") / "samples_qa.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1][:50] + "\n" + lines[2])

    outcome = icl_eval_command(f"model.source={gpt2}", *QUICK, "task=qa", "limit=3", "hydra.run.dir=run")

    assert outcome.exit_code == 2
    assert outcome.err.startswith(f"icl-eval: {path}:2: not a record (the line: Invalid JSON: EOF while parsing")
    assert outcome.err.count("\n") == 1


def test_a_record_of_another_prompt_is_refused(evaluate, icl_eval_command, gpt2):
    path = evaluate("run", "task=qa", "limit=3") / "samples_qa.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["prompt_hash"] = "0123456789abcdef"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    outcome = icl_eval_command(f"model.source={gpt2}", *QUICK, "task=qa", "limit=3", "hydra.run.dir=run")

    sentence = f"{path}: the record of 'qa-test-002' has another prompt; delete the file"
    assert (outcome.exit_code, outcome.err) == (2, f"icl-eval: {sentence}\n")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("doc", {"question": "Another question?"}),
        ("targets", ["another answer"]),
        ("decoder", "another prompt"),
        ("encoder", "a prompt for an encoder"),
        ("demonstration_ids", ["qa-pool-001"]),
        ("demonstrations", []),
        ("shots_effective", 0),
        ("prompt_tokens", 1),
    ],
)
def test_a_record_that_was_changed_on_disk_is_refused(field, value, evaluate, icl_eval_command, gpt2):
    path = evaluate("run", "task=qa", "limit=2") / "samples_qa.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[1][field] != value
    lines[1][field] = value
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    outcome = icl_eval_command(f"model.source={gpt2}", *QUICK, "task=qa", "limit=2", "hydra.run.dir=run")

    sentence = f"{path}: the record of 'qa-test-002' does not match the current data: '{field}' differs"
    assert (outcome.exit_code, outcome.err) == (2, f"icl-eval: {sentence}; delete the file\n")


def test_likelihoods_of_other_answers_are_refused(evaluate, icl_eval_command, gpt2):
    asked = ("task=qa", "limit=2", "likelihood=references")
    path = evaluate("run", *asked) / "samples_qa.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["likelihood"]["references"][0]["text"] = "another answer"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    outcome = icl_eval_command(f"model.source={gpt2}", *QUICK, *asked, "hydra.run.dir=run")

    sentence = "the record of 'qa-test-001' has likelihoods for answers that differ from the data"
    assert (outcome.exit_code, outcome.err) == (2, f"icl-eval: {path}: {sentence}; delete the file\n")


@pytest.fixture
def reordered(tmp_path):
    """Return overrides that name copies of the task's files with their lines in another order."""

    def reorder(split):
        lines = (conf_dir().parent / "data" / "qa" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        (tmp_path / f"{split}.jsonl").write_text("\n".join(reversed(lines)), encoding="utf-8")
        return f"task.qa.{split}.path={split}.jsonl"

    return reorder("pool"), reorder("test")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["gpt2", "t5"])
def test_law_2_batch_size_order_and_limit_change_no_record(model, evaluate, reordered, request):
    overrides = (f"model.source={request.getfixturevalue(model)}", "task=qa", "num_fewshot=2", "template=plain")
    full = records(evaluate("full", *overrides))
    assert len(full) == 64

    for name, changes in {
        "single": ["batch_size=1"],
        "uneven": ["batch_size=7"],
        "all_at_once": ["batch_size=64"],
        "limited": ["limit=9"],
        "reordered": reordered,
    }.items():
        changed = records(evaluate(name, *overrides, *changes))
        assert len(changed) == (9 if name == "limited" else 64)
        assert changed == {example_id: full[example_id] for example_id in changed}, name
        assert (list(changed) == list(full)[: len(changed)]) == (name != "reordered")


CONFIGURATIONS = {
    "num_fewshot=2": "num_fewshot: 1 there, 2 now",
    "seed=1": "demonstrations.seed: 0 there, 1 now; seed: 0 there, 1 now",
    "limit=4": "limit: 3 there, 4 now",
    "dtype=float64": "dtype: 'float32' there, 'float64' now",
    "decoding.stop=[x]": "decoding.stop: None there, ['x'] now",
    "template.separator=x": "template.separator: '\\n\\n' there, 'x' now",
    "demonstrations.per_question=true": "demonstrations.per_question: False there, True now",
    "task.qa.test.path=rows.jsonl": "task.qa.data: '{digest}' there, '{digest}' now",
    "model.source=other": "weights: 'folder:sha256={digest}' there, 'folder:sha256={digest}' now",
}


@pytest.mark.slow
def test_a_folder_of_another_configuration_is_refused_with_the_key_that_differs(
    evaluate, icl_eval_command, gpt2, tmp_path
):
    folder = evaluate("run", "task=qa", "limit=3")
    before = results(folder)
    rows = (conf_dir().parent / "data" / "qa" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "rows.jsonl").write_text("\n".join(rows[:5]), encoding="utf-8")
    shutil.copytree(gpt2, tmp_path / "other")
    (tmp_path / "other" / "generation_config.json").write_text("{}")

    for change, difference in CONFIGURATIONS.items():
        change = change.replace("=other", f"={tmp_path / 'other'}")
        outcome = icl_eval_command(f"model.source={gpt2}", *QUICK, "task=qa", "limit=3", "hydra.run.dir=run", change)
        assert outcome.exit_code == 2
        assert re.sub("[0-9a-f]{16,}", "{digest}", outcome.err) == (
            f"icl-eval: {folder} contains a run with other options ({difference}); "
            "choose another folder with hydra.run.dir=… (in Python folder=…) or delete this one\n"
        )
    assert results(folder) == before


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            "fingerprint.json",
            '{"a":',
            "{folder}/fingerprint.json: not a JSON object that identifies a run (Expecting ",
        ),
        ("fingerprint.json", "[]", "{folder}/fingerprint.json: not a JSON object that identifies a run (a list "),
        ("report.json", "hi", "{folder} contains report.json but no fingerprint.json that identifies the run; choose "),
        (
            "samples_other.jsonl",
            "hi",
            "{folder} contains samples_other.jsonl but no fingerprint.json that identifies the ",
        ),
        ("report.html", "hi", "{folder} contains report.html but no fingerprint.json that identifies the run; choose "),
    ],
)
def test_a_file_of_which_nothing_says_whose_it_is_is_named_and_kept(
    name, content, sentence, icl_eval_command, gpt2, tmp_path, decoded
):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).write_text(content)
    outcome = icl_eval_command(f"model.source={gpt2}", *QUICK, "task=qa", "limit=1", "hydra.run.dir=run")
    assert outcome.exit_code == 2
    assert outcome.err.startswith(f"icl-eval: {sentence.format(folder=folder)}")
    assert "hydra.run.dir=…" in outcome.err
    assert outcome.err.count("\n") == 1
    assert (folder / name).read_text() == content
    assert decoded == []


def test_the_same_model_and_data_in_another_place_are_the_same_run(evaluate, decoded, gpt2, tmp_path):
    before = results(evaluate("run", "task=qa", "limit=3"))
    decoded.clear()
    shutil.copytree(gpt2, tmp_path / gpt2.name)
    shutil.copy(conf_dir().parent / "data" / "qa" / "test.jsonl", tmp_path / "moved.jsonl")

    again = evaluate("run", "task=qa", "limit=3", f"model.source=./{gpt2.name}", "task.qa.test.path=moved.jsonl")

    assert results(again) == before
    assert decoded == []


class Silence:
    """Nobody is told how far a run is."""

    def begin(self, task, total, done):
        pass

    def advance(self, task):
        pass


def test_of_two_runs_in_one_folder_at_once_the_second_is_refused(compose, gpt2, tmp_path):
    config = compose(f"model.source={gpt2}", *QUICK, "task=qa", "limit=3")
    evaluation = build_evaluation(ComposedConfig(config, {"template": "labelled"}))

    refusals = []

    def run_again(*_):
        with pytest.raises(FingerprintMismatchError) as refused:
            run_evaluation(evaluation, tmp_path, Silence())
        refusals.append(str(refused.value))

    class SecondRun(Silence):
        def begin(self, task, total, done):
            run_again()

    run = run_evaluation(evaluation, tmp_path, SecondRun(), write_page=run_again)
    assert run.report.results["qa"].n == 3
    assert refusals == [f"{tmp_path} is being written by another run"] * 2  # at its beginning and at its end


def remove(folder):
    shutil.rmtree(folder)


def move(folder):
    folder.rename(folder.with_name("moved"))


def replace(folder):
    move(folder)
    folder.mkdir()


def empty(folder):
    for path in folder.glob("[!.]*"):  # as a shell does: without the lock
        path.unlink()


@pytest.mark.parametrize(
    ("act", "moment"),
    [(remove, "decoding"), (replace, "decoding"), (empty, "decoding"), (remove, "page"), (move, "page")],
)
def test_a_folder_that_is_taken_away_is_noticed_by_the_run_that_writes_into_it(act, moment, compose, gpt2, tmp_path):
    config = compose(f"model.source={gpt2}", *QUICK, "task=qa", "limit=3", "batch_size=1")
    evaluation = build_evaluation(ComposedConfig(config, {"template": "labelled"}))
    folder = tmp_path / "run"
    folder.mkdir()

    class Disturbance(Silence):
        def advance(self, task):
            if moment == "decoding" and folder.exists():
                act(folder)

    with pytest.raises(IclEvalError) as noticed:
        run_evaluation(evaluation, folder, Disturbance(), write_page=act if moment == "page" else lambda folder: None)

    lost = folder / ("samples_qa.jsonl" if moment == "decoding" else ".lock")
    assert str(noticed.value) == (
        f"{lost} was removed, moved or replaced while this run was writing into {folder}; "
        "repeat the command to start again"
    )
    assert noticed.value.exit_code == 1
    assert not folder.exists() or [path.name for path in folder.iterdir()] == [".lock"] * (act is empty)


@pytest.mark.slow
def test_a_run_for_which_there_is_no_room_names_the_file_and_loses_nothing(
    evaluate, icl_eval_command, files_of_at_most, gpt2, tmp_path
):
    asked = ("task=qa", "limit=3", "hydra.output_subdir=null")
    whole = evaluate("whole", *asked)
    folder = tmp_path / "full"
    for name in ("fingerprint.json", "samples_qa.jsonl", "report.json", "report.html"):  # from small to large
        with files_of_at_most((whole / name).stat().st_size * 9 // 10):
            outcome = icl_eval_command(f"model.source={gpt2}", *QUICK, *asked, "hydra.run.dir=full")

        assert outcome.exit_code == 1
        assert outcome.err == f"icl-eval: {folder / name}: cannot be read or written (File too large)\n"
        assert not list(folder.glob("*.tmp"))

    assert results(evaluate("full", *asked)) == results(whole)


@pytest.mark.parametrize(
    ("shown", "changes", "adopted"),
    [
        ((0, 0), {}, True),
        ((0, 0), {"model": "b"}, False),
        ((0, 0), {"likelihood": None}, False),  # an option that the other cell, of an earlier version, does not have
        ((0, 2), {}, False),  # one of two tasks shows demonstrations, which depend on the seed
    ],
)
def test_records_are_taken_over_where_nothing_differs_but_seeds_that_change_no_prompt(
    shown, changes, adopted, tmp_path
):
    (cell, folder) = (tmp_path / "cell", tmp_path / "new")
    for each in (cell, folder):
        each.mkdir()
    (cell / "report.json").write_text("{}")
    (cell / "fingerprint.json").write_text(json.dumps({"seed": 0, "model": "a"}))
    plans = []
    for name, num_shown in zip(("qa", "math"), shown, strict=True):
        (cell / f"samples_{name}.jsonl").write_text(f"the records of {name}")
        plans.append(SimpleNamespace(task=SimpleNamespace(name=name), few_shot=SimpleNamespace(num_shown=num_shown)))
    adopt_records(SimpleNamespace(plans=plans), {"seed": 1, "model": "a"} | changes, folder, [cell])
    taken = {path.name: path.read_text() for path in folder.iterdir()}
    assert taken == ({f"samples_{name}.jsonl": f"the records of {name}" for name in ("qa", "math")} if adopted else {})
