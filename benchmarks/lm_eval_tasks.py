"""Tasks of lm-evaluation-harness with local data, in the columns that their data sets have on the hub.

Prompts and scores are the harness's own (`arc_easy`, `mmlu_astronomy`, `gsm8k`). Questions with choices come from the
packaged tasks `commonsense` and `qa`; in the latter, the answers to other questions are the wrong choices. Word
problems are made up from a seed.

| task           | requests                                | demonstrations                                    |
|----------------|-----------------------------------------|---------------------------------------------------|
| `arc_first`    | the likelihood of each choice           | the same five for all questions                   |
| `arc_random`   | the likelihood of each choice           | five drawn for each question, the harness's default |
| `mmlu_letters` | the likelihood of each choice's letter  | the same five for all questions                   |
| `gsm8k_first`  | a text                                  | the same five for all questions                   |
| `gsm8k_random` | a text                                  | five drawn for each question, the harness's default |
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.workloads import Problem, make_problems

NUM_FEWSHOT = 5
MOST_QUESTIONS = 128
"""The number of questions in the packaged tasks."""
_DATA = Path(__file__).parent.parent / "data"
_POOL_SIZE = 40
_LETTERS = "ABCD"
_FIRST = {"fewshot_config": {"sampler": "first_n"}}

TASKS: dict[str, dict[str, Any]] = {
    "arc_first": {"include": "arc/arc_easy.yaml", **_FIRST},
    "arc_random": {"include": "arc/arc_easy.yaml"},
    "mmlu_letters": {"include": "mmlu/default/mmlu_astronomy.yaml"},
    "gsm8k_first": {"include": "gsm8k/gsm8k.yaml", **_FIRST},
    "gsm8k_random": {"include": "gsm8k/gsm8k.yaml"},
}
"""What each task takes from the harness, and what it changes."""


def write_tasks(folder: Path, seed: int) -> None:
    """Write all tasks and their data into a folder.

    Args:
        folder: An empty folder.
        seed: The seed of the word problems.
    """
    import lm_eval.tasks

    harness = Path(lm_eval.tasks.__file__).parent
    train = _make_choices(_read("commonsense/pool"))
    test = [*_read("commonsense/test"), *_make_choices(_read("qa/test"))]
    _write(folder / "arc", {"train": map(_as_arc, train), "validation": map(_as_arc, test), "test": map(_as_arc, test)})
    four = [[row for row in rows if len(row["choices"]) == len(_LETTERS)] for rows in (train, test)]
    _write(folder / "mmlu", {"dev": map(_as_mmlu, four[0]), "test": map(_as_mmlu, four[1])})
    problems = [make_problems("demonstrations", seed, _POOL_SIZE), make_problems("questions", seed, MOST_QUESTIONS)]
    _write(folder / "gsm8k", {"train": map(_as_gsm8k, problems[0]), "test": map(_as_gsm8k, problems[1])})
    for name, task in TASKS.items():
        files = {path.stem: str(path) for path in sorted((folder / name.partition("_")[0]).glob("*.jsonl"))}
        own = {
            "include": str(harness / task["include"]),
            "task": name,
            "tag": None,
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": files},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**task, **own}, sort_keys=False))


def _read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (_DATA / f"{name}.jsonl").read_text().splitlines()]


def _make_choices(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with their answer and those of the next three rows as choices, the right one in varying places."""
    answers = [row["references"][0] for row in rows]
    made = []
    for number, row in enumerate(rows):
        around = [answers[(number + step) % len(rows)] for step in range(len(_LETTERS))]
        place = number % len(_LETTERS)
        made.append({**row, "choices": around[place:] + around[:place]})
    return made


def _write(folder: Path, splits: dict[str, Any]) -> None:
    folder.mkdir()
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _as_arc(row: dict[str, Any]) -> dict[str, Any]:
    choices, number = row["choices"], _find_answer(row)
    labels = [str(place + 1) for place in range(len(choices))]
    return {
        "id": row["id"],
        "question": row["question"],
        "choices": {"text": choices, "label": labels},
        "answerKey": labels[number],
    }


def _as_mmlu(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "question": row["question"],
        "subject": "commonsense",
        "choices": row["choices"],
        "answer": _find_answer(row),
    }


def _find_answer(row: dict[str, Any]) -> int:
    choices: Sequence[str] = row["choices"]
    return next(place for place, choice in enumerate(choices) if choice in row["references"])


def _as_gsm8k(problem: Problem) -> dict[str, str]:
    result = re.findall(r"\d+", problem.answer)[-1]
    return {"question": problem.question, "answer": f"{problem.answer}\n#### {result}"}
