"""Tasks of lm-evaluation-harness of every kind that asks a model something, on rows of a local file."""

import json


def write_tasks(folder, num_rows=6, num_fewshot=3, max_gen_toks=12):
    """Return one task of each output type, as lm-evaluation-harness takes them."""
    rows = [
        {
            "question": f"What is {number} + {number * 3 % 7}?",
            "choices": ["99", "two three", str(number + number * 3 % 7), "42 A"],
            "label": 2,
            "answer": str(number + number * 3 % 7),
        }
        for number in range(num_rows)
    ]
    path = folder / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "fewshot_split": "test",
        "num_fewshot": num_fewshot,
    }
    mean = {"aggregation": "mean", "higher_is_better": True}
    return {
        "texts": common
        | {
            "output_type": "generate_until",
            "doc_to_text": "Q: {{question}}\nA: ",
            "doc_to_target": "answer",
            "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": max_gen_toks},
            "metric_list": [{"metric": "exact_match", **mean}],
        },
        "choices": common
        | {
            "output_type": "multiple_choice",
            "doc_to_text": "Q: {{question}}\nA:",
            "doc_to_choice": "choices",
            "doc_to_target": "label",
            "metric_list": [{"metric": "acc", **mean}],
        },
        "answers": common
        | {
            "output_type": "loglikelihood",
            "doc_to_text": "{{question}} ",
            "doc_to_target": "answer",
            "metric_list": [{"metric": "acc", **mean}],
        },
        "whole": common
        | {
            "output_type": "loglikelihood_rolling",
            "num_fewshot": 0,
            "doc_to_text": "",
            "doc_to_target": "{{question}} {{answer}}" + " and then three more words" * 6,
            "metric_list": [
                {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False},
            ],
        },
    }
