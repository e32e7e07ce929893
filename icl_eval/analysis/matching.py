"""Matching: whether two runs answered the same questions and were scored alike."""

from collections.abc import Sequence

from icl_eval.errors import DataError
from icl_eval.runs.folders import Run
from icl_eval.runs.records import Record
from icl_eval.runs.reports import MetricResult

_MAX_SHOWN = 60


def read_answers(run: Run, task: str) -> list[Record]:
    """Return the records of a task sorted by question, without prompts.

    Raises:
        DataError: If the run has no such task, or some of its records are missing.
    """
    return sorted(run.stream_records(task, prompts=False), key=lambda record: record.example_id)


def require_same_questions(
    baseline: Run, other: Run, task: str, answers: Sequence[Record], other_answers: Sequence[Record]
) -> None:
    """Check that two runs can be compared on a task, given their records.

    Raises:
        DataError: If their data, questions, references or the options of their metrics differ.
    """
    before, after = ({record.example_id: record for record in records} for records in (answers, other_answers))
    if differing := sorted(before.keys() ^ after.keys()):
        raise DataError(
            f"{other.folder}: the questions of task '{task}' differ from those in {baseline.folder}: "
            f"{len(after)} and {len(before)} questions, and {differing[0]!r} is in only one of the runs"
        )
    data = [run.report.provenance.datasets.get(task) for run in (baseline, other)]
    is_foreign = data.count(None) == 1
    for example_id, record in before.items():
        clusters = (after[example_id].cluster, record.cluster)
        if None not in clusters and clusters[0] != clusters[1]:
            raise DataError(
                f"{other.folder}: question {example_id!r} of task '{task}' is in cluster {clusters[0]!r}, but in "
                f"{baseline.folder} in {clusters[1]!r}; score one of them again with the other's fields.cluster"
            )
        if not _is_same_question(record, after[example_id], is_foreign):
            raise DataError(
                f"{other.folder}: question {example_id!r} of task '{task}' differs from the one in {baseline.folder}: "
                f"{_first_difference(record, after[example_id])}"
            )
    if None not in data and data[0] != data[1]:
        raise DataError(f"{other.folder}: the pool or the examples of task '{task}' differ from {baseline.folder}")
    metrics = [run.report.results[task].metrics for run in (baseline, other)]
    for name in metrics[0].keys() & metrics[1].keys():
        if _options(metrics[0][name]) != _options(metrics[1][name]):
            raise DataError(
                f"{other.folder}: the options of {name} of task '{task}' differ from those in {baseline.folder}: "
                f"{metrics[1][name].signature} and {metrics[0][name].signature}"
            )


def _is_same_question(before: Record, after: Record, is_foreign: bool) -> bool:
    """Return whether two records answer the same question.

    If one of them is of another program, which logs other fields, the questions are the same if their references are,
    and all fields that both have.
    """
    if not is_foreign:
        return before.asked == after.asked
    shared = before.doc.keys() & after.doc.keys()
    return before.targets == after.targets and all(before.doc[name] == after.doc[name] for name in shared)


def _options(result: MetricResult) -> list[str]:
    """Return the options of a metric without its version, since `measure` scores all runs again."""
    return [option for option in result.signature.split("|") if not option.startswith("version:")]


def _first_difference(before: Record, after: Record) -> str:
    """Describe the first part of a question on which two records disagree, with both values."""
    parts = [{"references": list(record.targets), **record.doc} for record in (after, before)]
    name = next(name for name in {**parts[0], **parts[1]} if parts[0].get(name) != parts[1].get(name))
    values = [repr(part[name]) if name in part else "none" for part in parts]
    return f"{name}: {' and '.join(text if len(text) <= _MAX_SHOWN else f'{text[:_MAX_SHOWN]}…' for text in values)}"
