"""Collect the answers of several runs, for a page that shows two of them side by side.

Questions are matched by id, fields and references. A run that lacks a question has no answer to it, and is not compared
on that question. A page reads the scores of the two runs that it shows whole, and their texts as they are looked at.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from icl_eval.reporting.pages.packing import BlockList, TextTable, is_large
from icl_eval.reporting.pages.rendering import embed_json, to_json
from icl_eval.runs.folders import Run
from icl_eval.runs.records import Record
from icl_eval.runs.reports import MetricResult

MAX_ANSWERS = 1_000_000
"""Maximum number of answers on a page, over all runs and tasks: about 40 MB if they are short."""
_SORTED = json.JSONEncoder(sort_keys=True)


class AnswerBlocks:
    """The answers of several runs as elements of a page.

    Each task has a list of its questions in the order of first appearance, and for each run a list of its answers in
    the same order, of the form `[completion, prediction]`, or null.
    """

    def __init__(self, runs: Mapping[str, Run], max_answers: int = MAX_ANSWERS):
        """Find the tasks of some runs, without reading records.

        Args:
            runs: Finished runs by their display names.
            max_answers: Maximum number of answers. If there are more, each task keeps its first questions and tells how
                many were left out.

        Raises:
            DataError: When a run's records are missing.
        """
        self._runs = runs
        self._tasks = list(dict.fromkeys(task for run in runs.values() for task in run.report.results))
        self._max_questions = max(1, max_answers // max(1, len(runs) * len(self._tasks)))
        self._compress = is_large(run.records_path(task) for run in runs.values() for task in run.report.results)
        self.content: dict[str, Any] = {"runs": list(runs), "tasks": []}
        """What `answers.js` needs to know to read the elements; complete once all of them were yielded."""

    @property
    def has_tasks(self) -> bool:
        """Whether there is anything to show."""
        return bool(self._tasks)

    def __iter__(self) -> Iterator[Markup]:
        """Yield the elements; memory is needed for the answers of one run to one task at a time.

        Raises:
            DataError: When a run's records do not match its report.
        """
        for number, task in enumerate(self._tasks):
            yield from self._embed_task(task, f"answers-{number}")

    def _embed_task(self, task: str, name: str) -> Iterator[Markup]:
        results = [run.report.results.get(task) for run in self._runs.values()]
        metrics = {metric: score for result in results if result for metric, score in result.metrics.items()}
        questions: BlockList[Record] = BlockList(f"{name}-questions", self._compress, _pack_question)
        numbers: dict[bytes, int] = {}
        lists = []
        for place, (run, result) in enumerate(zip(self._runs.values(), results, strict=True)):
            own: dict[int, _Answer] = {}
            for record in run.stream_records(task, prompts=False) if result else ():
                number = numbers.setdefault(_digest(record), len(numbers))
                if number < self._max_questions:
                    if number == questions.size:
                        yield from questions.add(record)
                    own[number] = _Answer.of(record, list(metrics))
            answers: BlockList[_Answer | None] = BlockList(f"{name}-answers-{place}", self._compress, _pack_answer)
            for number in range(questions.size):
                yield from answers.add(own.get(number))
            yield from answers.finish()
            lists.append(answers.blocks)
            values = _pack_values([own.get(number) for number in range(questions.size)], len(metrics))
            yield embed_json(f"{name}-values-{place}", to_json(values), self._compress)
        yield from questions.finish()
        self.content["tasks"].append(
            {
                "name": task,
                "metrics": [{"name": metric, "higher": score.higher_is_better} for metric, score in metrics.items()],
                "scores": [
                    [pack_score(result.metrics.get(metric)) if result else None for metric in metrics]
                    for result in results
                ],
                "questions": questions.blocks,
                "left_out": len(numbers) - questions.size,
                "answers": lists,
                "values": [f"{name}-values-{place}" for place in range(len(lists))],
            }
        )


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a page shows of a record."""

    completion: str
    prediction: str
    scores: tuple[float | None, ...]

    @classmethod
    def of(cls, record: Record, metrics: Sequence[str]) -> "_Answer":
        scores = tuple(record.metrics.get(metric) for metric in metrics)
        return cls(record.completion, record.prediction, scores)


def _digest(record: Record) -> bytes:
    """Return what identifies the question that a record answers."""
    return hashlib.sha256(_SORTED.encode(record.asked).encode()).digest()[:16]


def _pack_question(record: Record, table: TextTable) -> Mapping[str, Any]:
    return record.asked


def _pack_answer(answer: _Answer | None, table: TextTable) -> list[int] | None:
    return None if answer is None else [table.number(answer.completion), table.number(answer.prediction)]


def _pack_values(answers: Sequence[_Answer | None], num_metrics: int) -> dict[str, Any]:
    """Return a list of scores for each metric, and the numbers of the questions without an answer."""
    return {
        "scores": [[answer and answer.scores[place] for answer in answers] for place in range(num_metrics)],
        "missing": [number for number, answer in enumerate(answers) if answer is None],
    }


def pack_score(result: MetricResult | None) -> list[float | None] | None:
    """Return a score and the ends of its interval, of which there may be none; None without a score."""
    return None if result is None else [result.score, *(result.ci95 or (None, None))]
