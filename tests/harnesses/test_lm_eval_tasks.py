"""Tasks of lm-evaluation-harness, run here and by the harness itself on the same weights."""

import hashlib
import json

import pytest
from harness_tasks import write_tasks

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
                assert answer["logprob"] == pytest.approx(logprob, abs=2e-4)
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
