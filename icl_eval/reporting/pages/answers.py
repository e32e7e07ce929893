"""Answers: what several runs said to the same questions, for a page on which two of them stand side by side.

Questions are aligned by what was asked: the same id, fields and references. A run without one of them has no answer
there, and is not compared on it.
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
"""How many answers a page holds, all runs and tasks together: some 20 MB, which a browser opens in a second."""


def gather_answers(runs: Mapping[str, Run], max_answers: int = MAX_ANSWERS) -> dict[str, Any]:
    """Return the answers of several runs, in the form in which `answers.js` reads them.

    Args:
        runs: Finished runs, by the name a reader knows them by.
        max_answers: When there are more, each task keeps its first questions and says how many were left out.

    Raises:
        DataError: When a run's records are missing or are not its report's.
    """
    tasks = list(dict.fromkeys(task for run in runs.values() for task in run.report.results))
    max_questions = max(1, max_answers // max(1, len(runs) * len(tasks)))
    return {"runs": list(runs), "tasks": [_gather_task(task, list(runs.values()), max_questions) for task in tasks]}


@dataclass
class _Questions:
    """The questions of a task, numbered in the order in which they are first met."""

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
    metrics = {name: found for result in results if result for name, found in result.metrics.items()}
    questions, texts = _Questions(), TextTable()
    answers: list[dict[int, list[Any]]] = []
    for run, result in zip(runs, results, strict=True):
        records = run.records(task) if result else []
        numbered = {questions.number(record): record for record in records}
        kept = {number: record for number, record in numbered.items() if number < max_questions}
        answers.append({number: _answer(record, list(metrics), texts) for number, record in kept.items()})
    num_kept = min(len(questions.embedded), max_questions)
    return {
        "name": task,
        "metrics": [{"name": name, "higher": found.higher_is_better} for name, found in metrics.items()],
        "scores": [[_score(result.metrics.get(name)) if result else None for name in metrics] for result in results],
        "questions": questions.embedded[:num_kept],
        "left_out": len(questions.embedded) - num_kept,
        "answers": [[found.get(number) for number in range(num_kept)] for found in answers],
        "texts": texts.texts,
    }


def _answer(record: Record, metrics: Sequence[str], texts: TextTable) -> list[Any]:
    """Return the numbers of completion and prediction, and the record's scores."""
    scores = [record.metrics.get(metric) for metric in metrics]
    return [texts.number(record.completion), texts.number(record.prediction), *scores]


def _score(found: MetricResult | None) -> list[float | None] | None:
    return None if found is None else [found.score, *(found.ci95 or (None, None))]
