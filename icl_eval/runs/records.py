"""Records: one line on disk for each completion, written when it is finished, and read again to go on or to score.

{"example_id": "qa-test-001", "doc": {"question": …}, "targets": ["Paris"], …, "finish_reason": "stop"}
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from icl_eval.errors import DataError
from icl_eval.formatting import find_not_finite
from icl_eval.runs.writing import Held, naming, write_whole


@dataclass(frozen=True)
class ShownDemonstration:
    """A demonstration as a prompt shows it."""

    id: str
    target: str | None
    """As it is shown, which under a control is not the right one; None where it is withheld."""
    similarity: float | None
    """To the question, where the strategy measures one."""


@dataclass(frozen=True)
class AnswerLikelihood:
    """What was found for one answer."""

    text: str
    logprob: float
    """Natural logarithm of its probability after the prompt."""
    tokens: int
    """How many tokens that is the sum of."""
    bytes: int
    """Of the answer in UTF-8, without the white space before it."""
    calibrated: float | None
    """`logprob` minus what it is after the content-free prompt; None where that was not asked for."""


@dataclass(frozen=True)
class QuestionLikelihood:
    """What was found for one question."""

    references: tuple[AnswerLikelihood, ...]
    choices: tuple[AnswerLikelihood, ...]
    """Empty where they were not asked for."""
    content_free: str | None
    """What stood in place of the question to calibrate; None for no calibration."""


@dataclass(frozen=True)
class Record:
    """Everything that a person needs to audit one completion."""

    example_id: str
    doc: Mapping[str, str]
    """The question's fields, as the templates see them."""
    targets: tuple[str, ...]
    """All references."""
    encoder: str | None
    decoder: str | None
    """The prompt's two sides, as text."""
    demonstration_ids: tuple[str, ...]
    """In the order of the prompt."""
    shots_requested: int
    shots_effective: int
    """How many demonstrations were in the prompt; fewer than requested where they did not fit."""
    completion: str
    """What the model said, before postprocessing."""
    prediction: str
    """What is scored."""
    metrics: Mapping[str, float | None]
    """This example's own scores, by metric; empty until the task is finished."""
    prompt_tokens: int
    completion_tokens: int
    """Tokens generated, a final end-of-sequence token included."""
    finish_reason: str
    """`eos`, `stop` or `length`; `undecoded` where no completion was asked for."""
    prompt_hash: str
    demonstrations: tuple[ShownDemonstration, ...] = ()
    """What was shown, in the order of the prompt."""
    likelihood: QuestionLikelihood | None = None
    """What the model finds of answers that it is given, where that was asked for."""
    stop_string: str | None = None
    """What ended the completion where `finish_reason` is `stop`."""

    @property
    def asked(self) -> dict[str, Any]:
        """Return what was asked: records with the same are about the same question, and can be compared."""
        return {"id": self.example_id, "doc": dict(self.doc), "targets": self.targets}


_RECORD = TypeAdapter(Record)


class RecordLog:
    """The records of one task in one run folder: `samples_<task>.jsonl`.

    While the run works they are appended in the order in which completions are finished, each flushed at once;
    at the end the file is replaced by one in the order of the data set, with the scores in it. A line that was
    torn by a kill is dropped on opening.
    """

    def __init__(self, path: Path):
        """Open the log and read what an earlier run left.

        Raises:
            DataError: When a line other than a torn last one is not a record.
        """
        self.path = path
        self.records: dict[str, Record] = {}
        if path.exists():
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            for number, line in enumerate(whole.splitlines(), start=1):
                record = _parse(path, number, line)
                self.records[record.example_id] = record
            if len(whole) < len(content):
                os.truncate(path, len(whole))
        self._file = path.open("a", encoding="utf-8", newline="\n")
        self._held = Held.at(path)

    def append(self, record: Record) -> None:
        """Add one finished record and flush it to the file.

        Raises:
            DataError: When a number in it is infinite or not a number.
            IclEvalError: When the file is no longer where it was.
            OSError: When the record cannot be written; its filename is the file's.
        """
        line = _line(record)
        self._held.require_in_place()
        self.records[record.example_id] = record
        with naming(self.path):
            self._file.write(line)
            self._file.flush()

    def finish(self, records: Iterable[Record]) -> None:
        """Replace the file's content by these records, at once or not at all.

        Raises:
            IclEvalError: When the file is no longer where it was.
            OSError: When they cannot be written; its filename is the file's.
        """
        self._held.require_in_place()
        write_whole("".join(map(_line, records)), self.path)
        self._file.close()

    def close(self) -> None:
        """Close the file."""
        with naming(self.path):  # what a full disk did not take is tried again
            self._file.close()


def read_records(path: Path) -> list[Record]:
    """Read the records of a finished task.

    Raises:
        DataError: When a line is not a record.
    """
    lines = path.read_bytes().splitlines()
    return [_parse(path, number, line) for number, line in enumerate(lines, start=1)]


def _line(record: Record) -> str:
    value = asdict(record)
    if found := find_not_finite(value):
        raise DataError(f"{record.example_id}: its record cannot be written ({found}, which is not a finite number)")
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


def _parse(path: Path, number: int, line: bytes) -> Record:
    try:
        return _RECORD.validate_json(line)
    except ValidationError as error:
        raise DataError(f"{path}:{number}: not a record ({describe_mistake(error, 'the line')})") from None


def describe_mistake(error: ValidationError, whole: str = "the file") -> str:
    """Return the first thing that is wrong with what a file holds, and its place, which may be the whole."""
    first: Any = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"
