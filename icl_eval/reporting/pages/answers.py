"""Collect the answers of several runs, for a page that shows two of them side by side.

Questions are matched by id, fields and references. A run that lacks a question has no answer to it, and is not compared
on that question.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from icl_eval.reporting.pages.packing import TextTable
from icl_eval.runs.folders import Run
from icl_eval.runs.records import Record
from icl_eval.runs.reports import MetricResult

MAX_ANSWERS = 200_000
"""Maximum number of answers on a page, over all runs and tasks: about 20 MB, which a browser opens in a second."""


def gather_answers(runs: Mapping[str, Run], max_answers: int = MAX_ANSWERS) -> dict[str, Any]:
    """Return the answers of several runs in the form that `answers.js` reads.

    Args:
        runs: Finished runs by their display names.
        max_answers: Maximum number of answers. If there are more, each task keeps its first questions and tells how
            many were left out.

    Raises:
        DataError: When a run's records are missing or do not match its report.
    """
    tasks = list(dict.fromkeys(task for run in runs.values() for task in run.report.results))
    max_questions = max(1, max_answers // max(1, len(runs) * len(tasks)))
    return {"runs": list(runs), "tasks": [_gather_task(task, list(runs.values()), max_questions) for task in tasks]}


@dataclass
class _Questions:
    """The questions of a task, numbered in order of first appearance."""

    embedded: list[dict[str, Any]] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)

    def number(self, record: Record) -> int:
        """Return the number of the question that a record answers."""
        number = self.numbers.setdefault(json.dumps(record.asked, sort_keys=True), len(self.embedded))
        if number == len(self.embedded):
            self.embedded.append(record.asked)
        return number


def _gather_task(task: str, runs: Sequence[Run], max_questions: int) -> dict[str, Any]:
    results = [run.report.results.get(task) for run in runs]
    metrics = {name: score for result in results if result for name, score in result.metrics.items()}
    questions, texts = _Questions(), TextTable()
    answers: list[dict[int, list[Any]]] = []
    for run, result in zip(runs, results, strict=True):
        records = run.records(task) if result else []
        numbered = {questions.number(record): record for record in records}
        kept = {number: record for number, record in numbered.items() if number < max_questions}
        answers.append({number: _pack_answer(record, list(metrics), texts) for number, record in kept.items()})
    num_kept = min(len(questions.embedded), max_questions)
    return {
        "name": task,
        "metrics": [{"name": name, "higher": score.higher_is_better} for name, score in metrics.items()],
        "scores": [
            [pack_score(result.metrics.get(name)) if result else None for name in metrics] for result in results
        ],
        "questions": questions.embedded[:num_kept],
        "left_out": len(questions.embedded) - num_kept,
        "answers": [[by_number.get(number) for number in range(num_kept)] for by_number in answers],
        "texts": texts.texts,
    }


def _pack_answer(record: Record, metrics: Sequence[str], texts: TextTable) -> list[Any]:
    """Return the numbers of the completion and the prediction, followed by the record's scores."""
    scores = [record.metrics.get(metric) for metric in metrics]
    return [texts.number(record.completion), texts.number(record.prediction), *scores]


def pack_score(result: MetricResult | None) -> list[float | None] | None:
    """Return a score and the ends of its interval, of which there may be none; None without a score."""
    return None if result is None else [result.score, *(result.ci95 or (None, None))]
