"""Find and read the files that lm-evaluation-harness writes with `--output_path` and `--log_samples`.

    EleutherAI__pythia-160m/results_2026-08-21T10-00-00.123456.json
    EleutherAI__pythia-160m/samples_arc_easy_2026-08-21T10-00-00.123456.jsonl

A line of a samples file is a document with the responses of one filter. Lines of the same document are joined here.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from icl_eval.errors import DataError
from icl_eval.formatting import find_lone_surrogate, join_lines
from icl_eval.runs.records import describe_mistake

_DATE = r"\d{4}-\d\d-\d\dT[\d.-]*\d"
_SAMPLES = re.compile(rf"samples_(?P<task>.+?)(?:_(?P<date>{_DATE}))?\.jsonl")
_RESULTS = re.compile(rf".+_(?P<date>{_DATE})\.json")


@dataclass(frozen=True)
class LoggedRun:
    """The files of one run of the harness."""

    folder: Path
    date: str
    """The date in the names of the files; empty if they have none."""
    samples: Mapping[str, Path]
    """The samples file of each task."""
    results: Path | None


@dataclass(frozen=True)
class LoggedDocument:
    """A document with its requests, the model's responses, and the values of metrics."""

    doc_id: int
    doc: Any
    target: str
    requests: tuple[tuple[Any, ...], ...]
    """The arguments of each request: a prompt with the options of decoding, or with a continuation."""
    responses: tuple[Any, ...]
    """The responses to each request."""
    prompt_hash: str
    filtered: dict[str, Any] = field(default_factory=dict)
    """By filter, what it made of the responses to each request, in the order of the file."""
    values: dict[tuple[str, str], Any] = field(default_factory=dict)
    """The values of metrics, by metric and filter."""


@dataclass(frozen=True)
class _Line:
    """The keys of a line that are read; each metric is another one."""

    doc_id: int
    doc: Any
    target: Any
    arguments: dict[str, dict[str, Any]]
    resps: list[Any]
    filtered_resps: list[Any]
    filter: str
    metrics: list[str]
    prompt_hash: str


_LINE = TypeAdapter(_Line)


def find_logged_runs(path: Path) -> list[LoggedRun]:
    """Find runs of the harness: a samples file, a results file with its samples, or all runs in a folder.

    Raises:
        DataError: If there is no such file, or it belongs to no run.
    """
    if path.is_dir():
        files = sorted(path.rglob("samples_*.jsonl"))
        runs = {(each.parent, found["date"]) for each in files if (found := _SAMPLES.fullmatch(each.name))}
        dated = sorted((folder, date) for folder, date in runs if date)
        if not dated:
            raise DataError(f"{path}: no samples_TASK_DATE.jsonl in it, as lm-eval writes them with --log_samples")
        return [_gather(folder, date) for folder, date in dated]
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if found := _SAMPLES.fullmatch(path.name):
        date = found["date"] or ""
        return [LoggedRun(path.parent, date, {found["task"]: path}, _find_results(path.parent, date))]
    if found := _RESULTS.fullmatch(path.name):
        return [_gather(path.parent, found["date"])]
    raise DataError(
        f"{path}: must be a folder, or a samples_TASK_DATE.jsonl or results_DATE.json, as lm-eval names its files"
    )


def _gather(folder: Path, date: str) -> LoggedRun:
    """Return the run of a date in a folder."""
    names = [(_SAMPLES.fullmatch(path.name), path) for path in sorted(folder.glob("samples_*.jsonl"))]
    samples = {found["task"]: path for found, path in names if found and found["date"] == date}
    if not samples:
        raise DataError(f"{folder}: no samples_TASK_{date}.jsonl beside the results; lm-eval needs --log_samples")
    return LoggedRun(folder, date, samples, _find_results(folder, date))


def _find_results(folder: Path, date: str) -> Path | None:
    found = sorted(folder.glob(f"*_{date}.json")) if date else []
    if len(found) > 1:
        raise DataError(f"{folder}: {found[0].name} and {found[1].name} have the same date; keep one of them")
    return found[0] if found else None


def read_results(path: Path) -> dict[str, Any]:
    """Read a results file.

    Raises:
        DataError: If it is not one.
    """
    content: dict[str, Any] = _parse(str(path), path.read_bytes())
    for key in ("results", "configs", "n-shot", "higher_is_better"):
        if not isinstance(content, dict) or not isinstance(content.get(key), dict):
            raise DataError(f"{path}: not a results file of lm-eval ({key!r} is missing or not an object)")
    return content


def read_documents(path: Path) -> list[LoggedDocument]:
    """Read a samples file, and join the lines of the same document.

    Raises:
        DataError: If a line is not one of a samples file, or a document lacks the line of a filter.
    """
    documents: dict[int, LoggedDocument] = {}
    for number, text in enumerate(path.read_bytes().splitlines(), start=1):
        where = f"{path}:{number}"
        content = _parse(where, text)
        line = _validate(where, content)
        document = documents.setdefault(line.doc_id, _begin(line))
        if line.filter in document.filtered:
            raise DataError(f"{where}: a second line of document {line.doc_id} for filter {line.filter!r}")
        document.filtered[line.filter] = line.filtered_resps
        document.values.update({(metric, line.filter): _find_value(where, content, metric) for metric in line.metrics})
    _require_whole(path, list(documents.values()))
    return list(documents.values())


def _parse(where: str, text: bytes) -> Any:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not whole JSON ({join_lines(str(error))})") from None
    if b"\\ud" in text.lower() and (found := find_lone_surrogate(json.dumps(content, ensure_ascii=False))):
        raise DataError(f"{where}: contains {found}")
    return content


def _validate(where: str, content: Any) -> _Line:
    if isinstance(content, dict) and "example_id" in content and "doc_id" not in content:
        raise DataError(f"{where}: a record of icl_eval, which needs no import")
    try:
        line = _LINE.validate_python(content)
    except ValidationError as error:
        raise DataError(
            f"{where}: not a line of an lm-eval samples file ({describe_mistake(error, 'the line')})"
        ) from None
    for key, values in (("arguments", line.arguments), ("resps", line.resps)):
        if not values:
            raise DataError(f"{where}: {key} is empty")
    for name, arguments in line.arguments.items():
        if not arguments:
            raise DataError(f"{where}: arguments.{name} is empty")
    return line


def _begin(line: _Line) -> LoggedDocument:
    requests = tuple(tuple(arguments.values()) for arguments in line.arguments.values())
    return LoggedDocument(line.doc_id, line.doc, str(line.target), requests, tuple(line.resps), line.prompt_hash)


def _find_value(where: str, content: Mapping[str, Any], metric: str) -> Any:
    if metric not in content:
        raise DataError(f"{where}: has no value of {metric}, which its 'metrics' name")
    return content[metric]


def _require_whole(path: Path, documents: Sequence[LoggedDocument]) -> None:
    """Check that each document has a line for each filter."""
    if not documents:
        raise DataError(f"{path}: has no line")
    filters = dict.fromkeys(name for document in documents for name in document.filtered)
    for document in documents:
        if missing := [name for name in filters if name not in document.filtered]:
            raise DataError(f"{path}: document {document.doc_id} has no line for filter {missing[0]!r}, as others have")
