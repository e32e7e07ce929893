"""Tasks of lm-evaluation-harness, run here and by the harness itself on the same weights."""

import hashlib
import json
import random
import re

import numpy as np
import pytest
import yaml
from harness_tasks import write_tasks

from icl_eval.errors import ConfigError
from icl_eval.harnesses.lm_eval import registry, tasks
from icl_eval.harnesses.lm_eval.generation_options import GenerationOptions, read_generation

NAMES = ("sums", "sky", "phrases", "cloze")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture
def run(icl_eval_command, folder, tmp_path, request):
    """Run tasks of the folder and return the report and the records of each task."""

    def call(names, *overrides, model="gpt2"):
        source = request.getfixturevalue(model)
        outcome = icl_eval_command(
            "task=lm_eval",
            f"task.lm_eval.name=[{','.join(names)}]",
            f"task.lm_eval.include_path={folder}",
            f"model.source={source}",
            "device=cpu",
            "hydra.run.dir=run",
            *overrides,
        )
        assert outcome.exit_code == 0, outcome.err
        report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
        lines = {
            task: (tmp_path / "run" / f"samples_{task}.jsonl").read_text().splitlines() for task in report["results"]
        }
        return report, {task: list(map(json.loads, each)) for task, each in lines.items()}

    call.command = icl_eval_command
    return call


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def evaluate_there(model, folder, num_fewshot=None):
    """Evaluate the tasks with the harness's own model class."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    return lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(model), "dtype": "float32"},
        tasks=list(NAMES),
        num_fewshot=num_fewshot,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        device="cpu",
        batch_size=4,
        bootstrap_iters=0,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("model", "num_fewshot"), [("gpt2", None), ("gpt2", 2), ("t5", 2)])
def test_prompts_answers_and_scores_are_those_of_the_harness(model, num_fewshot, run, folder, request):
    theirs = evaluate_there(request.getfixturevalue(model), folder, num_fewshot)
    report, records = run(NAMES, *([] if num_fewshot is None else [f"num_fewshot={num_fewshot}"]), model=model)

    assert set(records) == set(theirs["samples"]) == {"sums", "sky_a", "sky_b", "phrases", "cloze"}
    for task, samples in theirs["samples"].items():
        by_id = {str(sample["doc_id"]): sample for sample in samples}
        assert [record["example_id"] for record in records[task]] == list(by_id)
        for record in records[task]:
            sample = by_id[record["example_id"]]
            prompt = record["encoder"] or record["decoder"]
            assert hashlib.sha256(prompt.encode()).hexdigest() == sample["prompt_hash"]
            if record["likelihood"] is None:
                # the harness adds the length of the encoder's input to its limit on new tokens
                text = sample["resps"][0][0]
                assert record["completion"] == (text if model == "gpt2" else text[: len(record["completion"])])
                continue
            answers = record["likelihood"]["choices"] or record["likelihood"]["references"]
            for answer, [(logprob, is_greedy)] in zip(answers, sample["resps"], strict=True):
                assert answer["logprob"] == pytest.approx(logprob, rel=1e-6, abs=2e-4)
                assert answer["is_greedy"] is is_greedy
        expected = {key: value for key, value in theirs["results"][task].items() if is_score(key)}
        found = {key: each["score"] for key, each in report["results"][task]["metrics"].items() if is_score(key)}
        assert list(found) == list(expected)
        if model == "t5" and task in ("sums", "phrases"):
            continue
        exact = {key for key in expected if not key.startswith("perplexity")}
        assert {key: found[key] for key in exact} == {key: expected[key] for key in exact}  # to the last digit
        assert found == pytest.approx(expected, rel=1e-3)
    group = {key: value for key, value in theirs["groups"]["sky"].items() if is_score(key)}
    assert {key: each["score"] for key, each in report["groups"]["sky"]["metrics"].items()} == group


def is_score(key):
    return "," in key and "_stderr" not in key


def test_a_task_is_run_with_its_own_shots_and_scored_by_its_own_filters(run):
    report, records = run(["sums"], "limit=2")
    assert report["run"]["num_fewshot"] == 3
    assert (report["run"]["demonstrations"], report["run"]["template"]) == ("lm_eval", "lm_eval")
    assert report["run"]["decoding"]["tasks"]["sums"] == {"stop": ["Question:"], "max_new_tokens": 12}
    metrics = report["results"]["sums"]["metrics"]
    assert list(metrics) == ["exact_match,strict", "exact_match,flexible"]
    assert metrics["exact_match,strict"]["signature"] == "exact_match|filter:strict|task:sums@3.0|lm_eval:0.4.13"
    assert [record["example_id"] for record in records["sums"]] == ["0", "1"]
    assert records["sums"][0]["targets"] == ["7 plus 3.\n#### 10"]
    assert records["sums"][0]["decoder"].endswith("Question: What is 7 + 3?\nAnswer:")
    assert len(records["sums"][0]["demonstration_ids"]) == 3


def test_demonstrations_of_ours_are_worded_as_the_harness_words_its_own(run):
    _, records = run(
        ["sky_a"], "demonstrations=fixed", "demonstrations.ids=[pool-5,pool-1]", "num_fewshot=2", "limit=1"
    )
    [record] = records["sky_a"]
    assert record["decoder"] == (
        "Numbers about a.\n\nWhich number follows 5?\nAnswer: 6\n\nWhich number follows 1?\nAnswer: 2\n\n"
        "Which number follows 20?\nAnswer:"
    )
    assert [choice["text"] for choice in record["likelihood"]["choices"]] == ["22", "30", "21"]


def test_functions_of_the_users_own_run_if_the_user_allows_it(run):
    report, records = run(["coded"], "task.lm_eval.trust_remote_code=true", "num_fewshot=0")
    assert [record["doc"] for record in records["coded"]] == [{"question": f"WHAT IS 7 + {b}?"} for b in (3, 5)]
    metrics = report["results"]["coded"]["metrics"]
    assert list(metrics) == ["says_it,strict", "length,strict", "says_it,flexible", "length,flexible"]
    assert (metrics["length,strict"]["ci95"], metrics["length,strict"]["higher_is_better"]) == (None, False)


CHANGING = """
include: sums.yaml
task: changing
process_results: !function changing.score
metric_list:
  - {metric: size, aggregation: mean, higher_is_better: true}
"""


def test_a_sweep_loads_tasks_once_and_its_cells_are_as_runs_of_their_own(icl_eval_command, tmp_path, gpt2, monkeypatch):
    (tmp_path / "tasks").mkdir()
    folder = write_tasks(tmp_path / "tasks")
    (folder / "changing.yaml").write_text(CHANGING)  # scoring changes documents
    (folder / "changing.py").write_text(
        'def score(doc, results):\n    doc["question"] += "?"\n    return {"size": len(doc["question"])}\n'
    )
    words = ("task=lm_eval", "task.lm_eval.name=[changing,sky]", f"task.lm_eval.include_path={folder}", "limit=3")
    words += ("task.lm_eval.trust_remote_code=true", f"model.source={gpt2}", "num_fewshot=2", "max_new_tokens=2")
    loaded = []
    real = registry.load_tasks
    monkeypatch.setattr(tasks, "load_tasks", lambda *args: loaded.append(args) or real(*args))

    assert (
        icl_eval_command("-m", *words, "seed=0,1", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=${seed}").exit_code == 0
    )
    assert len(loaded) == 1
    for seed in (0, 1):
        icl_eval_command(*words, f"seed={seed}", f"hydra.run.dir=alone/{seed}")
        cell, alone = (tmp_path / place / str(seed) for place in ("sweep", "alone"))
        for name in ("samples_changing.jsonl", "samples_sky_a.jsonl", "samples_sky_b.jsonl"):
            assert (cell / name).read_bytes() == (alone / name).read_bytes()
        results = [json.loads((place / "report.json").read_text())["results"] for place in (cell, alone)]
        assert results[0] == results[1]
    assert len(loaded) == 3


def test_a_task_that_draws_its_documents_draws_the_same_ones_each_time(tmp_path):
    folder = write_tasks(tmp_path)
    (folder / "drawn.yaml").write_text("include: sums.yaml\ntask: drawn\nprocess_docs: !function drawn.draw\n")
    (folder / "drawn.py").write_text(
        "import random\n\nimport numpy\n\n\n"
        "def draw(docs):\n    return docs.select([random.randrange(len(docs)), numpy.random.randint(len(docs))] * 2)\n"
    )
    drawn = []
    for seed in range(3):
        random.seed(seed)
        np.random.seed(seed)
        states = random.getstate(), np.random.get_state()[1].tolist()
        drawn.append(tasks.read_tasks("task.x.name", ["drawn"], str(folder), True).tasks["drawn"].task.content_hash)
        assert (random.getstate(), np.random.get_state()[1].tolist()) == states
    assert len(set(drawn)) == 1


def test_a_control_changes_the_answers_in_the_harness_wording(run):
    _, records = run(["sky_a"], "control=random_targets", "num_fewshot=3", "limit=1")
    [record] = records["sky_a"]
    shown = [each["target"] for each in record["demonstrations"]]
    assert shown != ["1", "2", "3"]
    assert all(f"Answer: {target}\n\n" in record["decoder"] for target in shown)


def test_another_template_and_metric_replace_the_harness_own(run):
    report, records = run(["sums"], "template=plain", "metrics=[token_f1]", "num_fewshot=1", "limit=1")
    assert list(report["results"]["sums"]["metrics"]) == ["token_f1"]
    assert records["sums"][0]["decoder"].endswith("\n\nWhat is 7 + 3?\n")
    assert report["run"]["template"] == "plain"


@pytest.mark.slow
def test_a_run_is_resumed_and_its_stored_scores_are_compared(run, icl_eval_command, decoded, tmp_path):
    run(["sums", "sky"], "limit=2")
    assert decoded == ["0", "1"]
    run(["sums", "sky"], "limit=2")
    assert decoded == ["0", "1"]
    assert not (tmp_path / "run" / "finished.json").exists()  # the harness may score otherwise next time
    run(["sums", "sky"], "limit=2", "num_fewshot=1", "hydra.run.dir=fewer")
    outcome = icl_eval_command("compare", "run", "fewer")
    assert outcome.exit_code == 0, outcome.err
    assert "exact_match,strict" in outcome.out
    assert "acc,none" in outcome.out


def log_prompts(records, path, changed=()):
    """Write what the harness logs about the prompts of records."""
    lines = []
    for record in records:
        digest = hashlib.sha256(record["decoder"].encode()).hexdigest()
        lines.append(
            {
                "doc_id": int(record["example_id"]),
                "doc": {},
                "target": "",
                "arguments": {"gen_args_0": {"arg_0": record["decoder"], "arg_1": {}}},
                "resps": [[""]],
                "filtered_resps": [""],
                "filter": "none",
                "metrics": [],
                "prompt_hash": digest[::-1] if record["example_id"] in changed else digest,
            }
        )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.mark.parametrize(
    ("more", "changed", "sentence"),
    [
        (
            ["num_fewshot=2"],
            (),
            "sums: 0 of 4 prompts have the hashes of samples_sums.jsonl; different: 0, 1, 2 and 1 more\n",
        ),
        ([], ("2",), "sums: 3 of 4 prompts have the hashes of samples_sums.jsonl; different: 2\n"),
        (
            ["limit=6"],
            (),
            "sums: 4 of 4 prompts have the hashes of samples_sums.jsonl; 2 questions are not in that file\n",
        ),
    ],
)
def test_prompts_are_compared_with_logged_ones_without_a_model(more, changed, sentence, run, folder, tmp_path, gpt2):
    _, records = run(["sums"], "limit=4", "max_new_tokens=1")
    log_prompts(records["sums"], tmp_path / "samples_sums.jsonl", changed)
    outcome = run.command(
        "preview", "task=lm_eval", "task.lm_eval.name=sums", f"task.lm_eval.include_path={folder}",
        f"model.source={gpt2}", "limit=4", "logged=samples_sums.jsonl", *more,
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.err
    assert outcome.out.endswith(sentence)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["task.lm_eval.name=summs"],
            "has no such task, group or tag; did you mean 'sums'? (lm-eval ls tasks lists them)",
        ),
        (["task.lm_eval.name=nothing_*"], "task.lm_eval.name=nothing_*: lm-evaluation-harness 0.4.13 has no such task"),
        (["task.lm_eval.name=no.yaml"], "task.lm_eval.name=no.yaml: there is no such file"),
        (
            ["task.lm_eval.name=[]"],
            "task.lm_eval.name=[]: must be the name of a task, group or tag, a pattern, or a list",
        ),
        ([], "task.lm_eval.name=: must be the name of a task, group or tag, a pattern, or a list of these"),
        (["task.lm_eval.name=sums", "task.lm_eval.stop=[x]"], "task.lm_eval.stop: the tasks of lm-evaluation-harness"),
        (
            ["task.lm_eval.name=sums", "num_fewshot=11"],
            "num_fewshot=11: task 'sums' of lm-evaluation-harness has only 10",
        ),
        (
            ["task.lm_eval.name=fixed", "num_fewshot=1"],
            "always runs task 'fixed' with num_fewshot=0, which its file fixes",
        ),
        (["task.lm_eval.name=rolling"], "task 'rolling' of lm-evaluation-harness cannot be run here: its requests are"),
        (["task.lm_eval.name=sampled"], "samples its completions; add decoding=sample decoding.temperature=0.5"),
        (["task.lm_eval.name=coded"], "coded.yaml: process_docs: !function hooks.process runs Python; allow it with"),
        (["task.lm_eval.name=elsewhere"], "task.lm_eval.name=elsewhere: cannot be loaded ("),
        (["task.lm_eval.name=sums", "template=chat"], "chat template"),
        (["task.lm_eval.name=sums", "control=unrelated_inputs"], "task 'sums': the harness words its documents itself"),
        (["task.lm_eval.name=sky_a", "likelihood=choices"], "task 'sky_a': the harness words its documents itself"),
        (["task.lm_eval.name=sky_a", "likelihood=references"], "likelihood=references: task 'sky_a' of"),
        (
            ["task.lm_eval.name=sums", "decoding=sample", "decoding.num_samples=2"],
            "decoding.num_samples=2: task 'sums' of lm-evaluation-harness takes 1 completion of each question",
        ),
    ],
)
def test_what_cannot_be_run_is_one_sentence_before_weights_load(overrides, message, folder, gpt2, icl_eval_command):
    outcome = icl_eval_command(
        "task=lm_eval", f"task.lm_eval.include_path={folder}", f"model.source={gpt2}", "hydra.run.dir=run", *overrides
    )
    assert outcome.exit_code == 2
    assert outcome.err.count("\n") == 1, outcome.err
    assert message in outcome.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"until": ["", "e"]},
            "generation_kwargs.until=['', 'e']: must be a string that is not empty, or a list of these",
        ),
        ({"until": 5}, "generation_kwargs.until=5: must be a string that is not empty, or a list of these"),
        ({"max_gen_toks": "many"}, "generation_kwargs.max_gen_toks='many': must be a whole number of 1 or more"),
        ({"num_beams": 3}, "generation_kwargs.num_beams=3: is not followed here"),
        ({"repetition_penalty": 1.8}, "generation_kwargs.repetition_penalty=1.8: is not followed here"),
        ({"do_sample": True, "top_p": "x"}, "generation_kwargs.top_p='x': must be a number"),
    ],
)
def test_generation_options_that_cannot_be_followed_are_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_generation("sums", options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"until": "\n", "max_tokens": 6}, GenerationOptions(("\n",), 6, {})),
        ({"max_completion_tokens": 6, "num_beams": 1, "temperature": 0}, GenerationOptions((), 6, {})),
        ({"do_sample": True}, GenerationOptions((), 256, {"temperature": 1.0})),
        ({"temperature": 0.5, "top_p": 0.9}, GenerationOptions((), 256, {"temperature": 0.5, "top_p": 0.9})),
        (None, GenerationOptions((), 0, {})),
    ],
)
def test_generation_options_have_the_names_of_the_harness(options, expected):
    assert read_generation("sums", options) == expected


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("text", {"doc_to_text": 5}, "task 'text' of lm-evaluation-harness: its prompts cannot be built ("),
        (
            "target",
            {"doc_to_target": "number"},
            "'target' of lm-evaluation-harness: its prompts cannot be built (",
        ),
        ("described", {"description": 5}, "task 'described' of lm-evaluation-harness: its documents cannot be read ("),
        ("repeated", {"repeats": "x"}, "task 'repeated' of lm-evaluation-harness: repeats='x': must be"),
        ("a" * 201, {}, "a task's name becomes part of a file name; this one has 201 bytes in UTF-8"),
        (5, {}, ": the name of a task is 5, but must be a string"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(name, changes, message, tmp_path, gpt2, icl_eval_command):
    (tmp_path / "rows.jsonl").write_text('{"q": "a", "a": "b", "number": 1}\n' * 3, encoding="utf-8")
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{q}}",
        "doc_to_target": "{{a}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match"}],
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task | changes), encoding="utf-8")
    outcome = icl_eval_command(
        "task=lm_eval",
        f"task.lm_eval.name='{name}'",
        "task.lm_eval.include_path=.",
        f"model.source={gpt2}",
        "num_fewshot=1",
    )
    assert (outcome.exit_code, outcome.err.count("\n")) == (2, 1), outcome.err
    assert message in outcome.err
