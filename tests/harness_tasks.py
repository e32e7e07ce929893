"""Small tasks of lm-evaluation-harness in local files: one of each kind that the package runs."""

import json
from pathlib import Path

import yaml

SUMS = [(a, b) for a in range(2, 12) for b in (3, 5)]
PHRASES = (
    ("The house is small.", "La casa es pequeña."),
    ("The sky is blue.", "El cielo es azul."),
    ("Good night.", "Buenas noches."),
    ("Where is the book?", "¿Dónde está el libro?"),
    ("The answer is yes.", "La respuesta es sí."),
    ("One two three.", "Uno dos tres."),
)


def write_tasks(folder: Path) -> Path:
    """Write the tasks `sums`, `sky_a`, `sky_b`, `phrases` and `cloze`, the group `sky`, and tasks that are refused."""
    sums = [{"question": f"What is {a} + {b}?", "answer": f"{a} plus {b}.\n#### {a + b}"} for a, b in SUMS]
    _write(folder, "sums_train", sums[:10])
    _write(folder, "sums_test", sums[10:16])
    for name, offset in (("a", 0), ("b", 7)):
        _write(folder, f"sky_{name}_dev", [_ask(number + offset) for number in range(6)])
        _write(folder, f"sky_{name}_test", [_ask(number + offset + 20) for number in range(5 if name == "a" else 3)])
    _write(folder, "phrases", [{"en": english, "es": spanish} for english, spanish in PHRASES])
    for name, task in TASKS.items():
        content = {"dataset_path": "json", **task, "task": name}
        files = {split: str(folder / f"{file}.jsonl") for split, file in content.pop("files").items()}
        content["dataset_kwargs"] = {"data_files": files}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    (folder / "hooks.py").write_text(HOOKS, encoding="utf-8")
    (folder / "coded.yaml").write_text(CODED, encoding="utf-8")
    (folder / "sky.yaml").write_text(yaml.safe_dump(GROUP, sort_keys=False), encoding="utf-8")
    return folder


def _write(folder, name, rows):
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def _ask(number):
    choices = [str(number + step) for step in (1, 2, 10)]
    place = number % 3
    return {"n": number, "options": choices[-place:] + choices[:-place], "label": place}


SUMS_TASK = {
    "files": {"train": "sums_train", "test": "sums_test"},
    "output_type": "generate_until",
    "training_split": "train",
    "fewshot_split": "train",
    "test_split": "test",
    "num_fewshot": 3,
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["Question:"], "max_gen_toks": 12, "do_sample": False},
    "metric_list": [
        {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "regexes_to_ignore": ["(?s).*#### "]}
    ],
    "filter_list": [
        {
            "name": "strict",
            "filter": [{"function": "regex", "regex_pattern": "#### (-?[0-9]+)"}, {"function": "take_first"}],
        },
        {
            "name": "flexible",
            "filter": [
                {"function": "regex", "regex_pattern": "(-?[0-9]+)", "group_select": -1},
                {"function": "take_first"},
            ],
        },
    ],
    "metadata": {"version": 3.0},
}


def _sky(name):
    return {
        "files": {"dev": f"sky_{name}_dev", "test": f"sky_{name}_test"},
        "output_type": "multiple_choice",
        "fewshot_split": "dev",
        "test_split": "test",
        "fewshot_config": {"sampler": "first_n"},
        "description": f"Numbers about {name}.\n\n",
        "doc_to_text": "Which number follows {{n}}?\nAnswer:",
        "doc_to_choice": "options",
        "doc_to_target": "label",
        "metric_list": [
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
            {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
        ],
    }


TASKS = {
    "sums": SUMS_TASK,
    "sky_a": _sky("a"),
    "sky_b": _sky("b"),
    "phrases": {  # the test split is the pool, the description has no line break, and the question ends in a space
        "files": {"train": "phrases", "test": "phrases"},
        "output_type": "generate_until",
        "training_split": "train",
        "fewshot_split": "test",
        "test_split": "test",
        "description": "Translate.",
        "doc_to_text": "English: {{en}} ",
        "doc_to_target": "{{es}}",
        "gen_prefix": "Spanish:",
        "fewshot_delimiter": "\n",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
        "metric_list": [{"metric": "bleu"}, {"metric": "ter"}, {"metric": "chrf"}],
    },
    "cloze": {
        "files": {"test": "phrases"},
        "output_type": "loglikelihood",
        "test_split": "test",
        "doc_to_text": "{{en}}\n",
        "doc_to_target": "{{es[:4]}}",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        ],
    },
}
TASKS |= {
    "fixed": TASKS["sums"] | {"num_fewshot": 0},
    "rolling": TASKS["cloze"]
    | {"output_type": "loglikelihood_rolling", "metric_list": [{"metric": "word_perplexity"}]},
    "sampled": TASKS["sums"] | {"generation_kwargs": {"until": ["\n"], "do_sample": True, "temperature": 0.5}},
    "elsewhere": TASKS["sums"] | {"dataset_path": "nobody/nothing"},
}
HOOKS = """
def process(docs):
    return docs.filter(lambda doc: doc["question"] < "What is 8").map(lambda doc: {"question": doc["question"].upper()})


def score(doc, results):
    return {"says_it": float("8" in results[0]), "length": (len(results[0]), 2)}


def mean_length(items):
    return sum(length for length, _ in items) / len(items)
"""
CODED = """
include: sums.yaml
task: coded
process_docs: !function hooks.process
process_results: !function hooks.score
metric_list:
  - {metric: says_it, aggregation: mean, higher_is_better: true}
  - {metric: length, aggregation: !function hooks.mean_length, higher_is_better: false}
"""
GROUP = {
    "group": "sky",
    "task": ["sky_a", "sky_b"],
    "aggregate_metric_list": [
        {"metric": "acc", "weight_by_size": True},
        {"metric": "acc_norm", "weight_by_size": False},
    ],
}
