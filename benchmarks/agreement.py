"""Run the packaged questions as tasks of lm-evaluation-harness, in the harness and here, and compare every answer.

    python -m benchmarks.agreement --limit 16

The tasks are files of the harness over the packaged data: several references and a filter (qa), numbers by two filters
(math), ranked choices with the harness's random demonstrations (commonsense) and with shared ones (commonsense_first),
and a corpus score (translation).
"""

import argparse
import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import icl_eval
from icl_eval.models.specs import ModelSpec
from icl_eval.models.weights import resolve_weights
from icl_eval.runs.folders import Run

_ROOT = Path(__file__).resolve().parent.parent
_MATCH = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True}
_LINE = {"until": ["\n"], "max_gen_toks": 16}
TASKS: Mapping[str, Mapping[str, Any]] = {
    "qa": {
        "output_type": "generate_until",
        "doc_to_target": "references",
        "generation_kwargs": _LINE,
        "metric_list": [_MATCH],
        "filter_list": [{"name": "strip", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}],
    },
    "math": {
        "output_type": "generate_until",
        "doc_to_target": "{{references[0]}}",
        "generation_kwargs": {"until": ["Question:"], "max_gen_toks": 24},
        "metric_list": [_MATCH],
        "filter_list": [
            {
                "name": name,
                "filter": [
                    {"function": "regex", "regex_pattern": "(-?[0-9]+)", "group_select": place},
                    {"function": "take_first"},
                ],
            }
            for name, place in (("first", 0), ("last", -1))
        ],
    },
    "commonsense": {
        "output_type": "multiple_choice",
        "fewshot_split": "test",  # rows of the pool have no choices
        "doc_to_choice": "choices",
        "doc_to_target": "{{(references|select('in', choices)|list)[0]}}",
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
        ],
    },
    "translation": {
        "output_type": "generate_until",
        "doc_to_target": "{{references[0]}}",
        "generation_kwargs": _LINE,
        "metric_list": [{"metric": "bleu"}, {"metric": "chrf"}, {"metric": "ter"}],
    },
}


def write_tasks(folder: Path) -> list[str]:
    """Write the tasks into a folder and return their names."""
    names = []
    for name, options in TASKS.items():
        variants = {"": {}, "_first": {"fewshot_config": {"sampler": "first_n"}}} if name == "commonsense" else {"": {}}
        for suffix, more in variants.items():
            splits = ("test",) if name == "commonsense" else ("pool", "test")
            files = {split: str(_ROOT / "data" / name / f"{split}.jsonl") for split in splits}
            task = {
                "task": f"packaged_{name}{suffix}",
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": files},
                "fewshot_split": "pool",
                "test_split": "test",
                "doc_to_text": "Question: {{question}}\nAnswer:",
                **options,
                **more,
            }
            (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
            names.append(str(task["task"]))
    return names


def run_there(model: Path, folder: Path, names: list[str], options: argparse.Namespace) -> Mapping[str, Any]:
    """Run tasks in the harness, with its own class of models."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    results: Mapping[str, Any] = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(model), "dtype": "float32"},
        tasks=names,
        num_fewshot=options.num_fewshot,
        limit=options.limit,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        device="cpu",
        batch_size=8,
        bootstrap_iters=0,
    )
    return results


def run_here(model: Path, folder: Path, names: list[str], options: argparse.Namespace) -> Run:
    """Run the same tasks with this package."""
    task: dict[str, Any] = {"task.lm_eval.name": names, "task.lm_eval.include_path": str(folder)}
    return icl_eval.evaluate(
        "task=lm_eval",
        model=str(model),
        num_fewshot=options.num_fewshot,
        limit=options.limit,
        folder=folder / "run",
        device="cpu",
        **task,
    )


def compare(theirs: Mapping[str, Any], here: Run, name: str) -> str:
    """Return one row of the table: what is equal in a task."""
    samples = {str(sample["doc_id"]): sample for sample in theirs["samples"][name]}
    records = here.records(name)
    prompts = sum(_hash(record.decoder or "") == samples[record.example_id]["prompt_hash"] for record in records)
    texts, greedy, answers, largest = 0, 0, 0, 0.0
    for record in records:
        responses = samples[record.example_id]["resps"]
        if record.likelihood is None:
            texts += record.completion == responses[0][0]
            continue
        for answer, [(logprob, is_greedy)] in zip(record.likelihood.choices, responses, strict=True):
            answers += 1
            greedy += answer.is_greedy == is_greedy
            largest = max(largest, abs(answer.logprob - logprob))
    found = here.report.results[name].metrics
    scores = {key: value for key, value in theirs["results"][name].items() if "," in key and "_stderr" not in key}
    equal = sum(found[key].score == value for key, value in scores.items())
    what = f"{greedy} of {answers} greedy, {largest:.1e}" if answers else f"{texts} of {len(records)} texts"
    shown = ", ".join(f"{key} {value:.4f}" for key, value in scores.items())
    return f"| {name} | {prompts} of {len(records)} | {what} | {equal} of {len(scores)} | {shown} |"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.agreement", description=__doc__)
    parser.add_argument("--limit", type=int, default=64, help="questions of each task")
    parser.add_argument("--num-fewshot", type=int, default=4)
    options = parser.parse_args()
    source = yaml.safe_load((_ROOT / "conf/model/smollm2_135m.yaml").read_text(encoding="utf-8"))["source"]
    model = resolve_weights(ModelSpec(source)).folder
    with tempfile.TemporaryDirectory() as folder:
        names = write_tasks(Path(folder))
        here = run_here(model, Path(folder), names, options)
        theirs = run_there(model, Path(folder), names, options)
        print("| task | prompts equal | answers equal | scores equal | scores |\n|---|---|---|---|---|")
        for name in names:
            print(compare(theirs, here, name))


if __name__ == "__main__":
    main()
