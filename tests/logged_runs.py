"""Runs of lm-evaluation-harness itself, with a model that gives written answers, logged as its command logs them."""

import json
import os
from contextlib import contextmanager
from pathlib import Path

SUMS = [(1, 2), (3, 4), (5, 7), (2, 2), (9, 1), (6, 3)]
ANSWERS = {
    "first": ("3", "The sum is 7", "12", "5", "10", "9"),
    "second": ("4", "7", "I say 12", "4", "10", "8"),
}
"""What two models answer. Exactly right are 4 and 3 of 6; right by their first number are 5 and 4."""

CHOICES = {"first": (0, 1, 2, 0, 0, 1), "second": (0, 0, 2, 1, 0, 1)}
"""The number of the choice that each model prefers; the first one is right."""

_FILTERS = {
    "strict-match": [{"function": "take_first"}],
    "flexible-extract": [{"function": "regex", "regex_pattern": "([0-9]+)"}, {"function": "take_first"}],
}
_MATCH = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}


def list_tasks(data):
    """Return the configurations of four tasks and a group of two of them, whose rows are in a file."""
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": "cache"},
        "test_split": "test",
        "doc_to_text": "Q: {{question}}\nA:",
        "doc_to_target": "{{answer}}",
    }
    decoded = shared | {"output_type": "generate_until", "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6}}
    filters = [{"name": name, "filter": steps} for name, steps in _FILTERS.items()]
    choices = {"doc_to_choice": "{{choices}}", "doc_to_target": 0, "output_type": "multiple_choice"}
    ranked = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}, {"metric": "brier_score"}]
    sums = decoded | {
        "task": "sums",
        "num_fewshot": 1,
        "fewshot_split": "test",
        "fewshot_config": {"sampler": "first_n"},
        "metric_list": [_MATCH],
        "filter_list": filters,
        "metadata": {"version": 2.0},
    }
    words = decoded | {"task": "words", "num_fewshot": 0, "metric_list": [{"metric": "chrf"}]}
    ranking = shared | choices | {"task": "ranking", "num_fewshot": 0, "metric_list": ranked}
    last = shared | {"task": "last", "num_fewshot": 0, "output_type": "loglikelihood"}
    last["metric_list"] = [{"metric": "perplexity"}, {"metric": "acc"}]
    group = {"group": "arithmetic", "task": ["sums", "ranking"], "aggregate_metric_list": [{"metric": "acc"}]}
    return [sums, ranking, words, last, group]


def log_run(folder, model):
    """Evaluate a model in a folder, and return the folder of its files."""
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    with _inside(folder):
        rows = [
            {"question": f"What is {one} + {other}?", "answer": f"{one + other}", "choices": _list_choices(one + other)}
            for one, other in SUMS
        ]
        Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        for number, config in enumerate(list_tasks(folder / "rows.jsonl")):
            Path(f"{number}.yaml").write_text(json.dumps(config), encoding="utf-8")
        tracker = EvaluationTracker(output_path=".")
        results = simple_evaluate(
            model=_make_model(model),
            tasks=["arithmetic", "words", "last"],
            task_manager=TaskManager(include_path=".", include_defaults=False),
            evaluation_tracker=tracker,
            bootstrap_iters=10,
        )
        tracker.general_config_tracker.log_experiment_args("hf", {"pretrained": f"org/{model}"}, None, None, False)
        samples = results.pop("samples")
        tracker.save_results_aggregated(results=results, samples=samples)
        for task in results["configs"]:
            tracker.save_results_samples(task_name=task, samples=samples[task])
    return folder / f"org__{model}"


def _list_choices(right):
    return [str(right), str(right + 1), str(right + 20)]


def _make_model(name):
    from lm_eval.api.model import LM

    class WrittenModel(LM):
        """Answers from the tables above, by the number of the document."""

        def generate_until(self, requests):
            return [ANSWERS[name][request.doc_id] for request in requests]

        def loglikelihood(self, requests):
            return [(-1.0 if request.idx == CHOICES[name][request.doc_id] else -2.5, False) for request in requests]

        def loglikelihood_rolling(self, requests):
            raise NotImplementedError

    return WrittenModel()


@contextmanager
def _inside(folder):
    folder.mkdir(parents=True, exist_ok=True)
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
