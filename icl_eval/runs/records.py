"""Write one JSON line for a question as soon as it is answered, and read the lines to resume or score a run.

A question whose answers are scored by likelihood has a second line, which replaces the first.

{"example_id": "qa-test-001", "doc": {"question": …}, "targets": ["Paris"], …, "finish_reason": "stop"}
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainValidator, TypeAdapter, ValidationError

from icl_eval.errors import DataError
from icl_eval.formatting import find_not_finite
from icl_eval.runs.writing import HeldFile, naming_file, write_whole


@dataclass(frozen=True, slots=True)
class ShownDemonstration:
    """A demonstration as a prompt shows it."""

    id: str
    target: str | None
    """The target as shown, which a control may have changed; None if the prompt shows no target."""
    similarity: float | None
    """The similarity to the question; None if the strategy does not compute one."""


@dataclass(frozen=True)
class AnswerLikelihood:
    """The log-likelihood of one answer."""

    text: str
    logprob: float
    """The natural logarithm of the answer's probability after the prompt, summed over its tokens."""
    tokens: int | None
    """The number of tokens in that sum; None if another program computed it and does not say."""
    bytes: int
    """The length in UTF-8 of the answer as the template writes it, without the white space before it."""
    calibrated: float | None
    """`logprob` minus the value after the content-free prompt, or the logarithm of the mean probability after several;
    None without calibration."""
    is_greedy: bool | None = None
    """Whether every token of the answer is the most probable one; None in records of earlier versions."""
    domain: float | None = None
    """`logprob` minus the logarithm of the mean probability after random words of the task's questions; None without
    domain-context calibration."""
    pmi: float | None = None
    """`logprob` minus the value after the bare premise; None without a premise."""


@dataclass(frozen=True)
class ScoredQuestion:
    """What `likelihood=channel` scores: a question after an answer, with every demonstration the same way round."""

    encoder: str | None
    decoder: str | None
    """The text of the encoder and decoder side of the prompt of the first reference."""
    question: str
    """The question, which continues the prompt of each answer."""


@dataclass(frozen=True)
class QuestionLikelihood:
    """The log-likelihoods of one question's answers."""

    references: tuple[AnswerLikelihood, ...]
    choices: tuple[AnswerLikelihood, ...]
    """The task's choices; empty if they are not scored."""
    content_free: str | tuple[str, ...] | None
    """The string, or the strings, that replaced the question for calibration; None without calibration."""
    domain_texts: int | None = None
    """The number of texts of random words that replaced the question; None without domain-context calibration."""
    premise: str | None = None
    """The premise after which choices were scored too; None without one."""
    channel: ScoredQuestion | None = None
    """What is scored if it is the question: then log-probabilities, tokens and bytes of an answer are those of the
    question after it. None if the answers are scored."""


@dataclass(frozen=True, slots=True)
class SampledCompletion:
    """One of several completions of a prompt."""

    completion: str
    """The model's output, before postprocessing."""
    prediction: str
    """The postprocessed completion."""
    tokens: int | None
    """The number of generated tokens, including a final end-of-sequence token; None if it is not known."""
    finish_reason: str
    """`eos`, `stop` or `length`."""
    stop_string: str | None
    """The string that ended the completion if `finish_reason` is `stop`."""


@dataclass(frozen=True, slots=True)
class Record:
    """Everything needed to audit one completion."""

    example_id: str
    doc: Mapping[str, str]
    """The question's fields, as templates see them."""
    targets: tuple[str, ...]
    """All references."""
    encoder: str | None
    decoder: str | None
    """The text of the prompt's encoder and decoder side."""
    demonstration_ids: tuple[str, ...]
    """The ids of the demonstrations, in the order of the prompt."""
    shots_requested: int
    shots_effective: int
    """The number of demonstrations in the prompt; fewer than requested if they did not fit."""
    completion: str
    """The model's output, before postprocessing. Of several samples, the first one with the scored prediction."""
    prediction: str
    """The postprocessed completion, which is scored. Of several samples, the most frequent prediction."""
    metrics: Mapping[str, float | None]
    """The scores of this example, by metric; empty until the task is finished."""
    prompt_tokens: int | None
    completion_tokens: int | None
    """The number of generated tokens of all samples, including final end-of-sequence tokens. Both numbers are None if
    another program made the completion and does not say."""
    finish_reason: str
    """`eos`, `stop` or `length`; `undecoded` if nothing was decoded; `unknown` if another program does not say."""
    prompt_hash: str
    demonstrations: tuple[ShownDemonstration, ...] = ()
    """The demonstrations, in the order of the prompt."""
    likelihood: QuestionLikelihood | None = None
    """The log-likelihoods of given answers; None if they are not computed."""
    stop_string: str | None = None
    """The string that ended the completion if `finish_reason` is `stop`."""
    samples: tuple[SampledCompletion, ...] = ()
    """All completions of the prompt, in the order of sampling; empty if there is only one."""
    cluster: str | None = None
    """The cluster of the question, by which errors are estimated; None if the task names none."""

    @property
    def completions(self) -> tuple[SampledCompletion, ...]:
        """All completions of the prompt, also if there is only one."""
        only = (self.completion, self.prediction, self.completion_tokens, self.finish_reason, self.stop_string)
        return self.samples or (SampledCompletion(*only),)

    @property
    def asked(self) -> dict[str, Any]:
        """The question with its references. Records can be compared if these are equal."""
        return {"id": self.example_id, "doc": dict(self.doc), "targets": self.targets}


_RECORD = TypeAdapter(Record)

_NO_TEXT = PlainValidator(lambda _: None)
_NOTHING = PlainValidator(lambda _: ())


@dataclass(frozen=True, slots=True)
class _WithoutPrompt(Record):
    """A record whose prompt and demonstrations are neither checked nor kept."""

    encoder: Annotated[str | None, _NO_TEXT]
    decoder: Annotated[str | None, _NO_TEXT]
    demonstration_ids: Annotated[tuple[str, ...], _NOTHING]
    demonstrations: Annotated[tuple[ShownDemonstration, ...], _NOTHING] = ()


_ANSWER = TypeAdapter(_WithoutPrompt)


class RecordLog:
    """The records of one task in a run's folder: `samples_<task>.jsonl`.

    During the run, each record is appended and flushed as soon as its completion is finished. At the end, the file is
    replaced by one in the order of the data set, with scores. An incomplete last line, left by a killed run, is dropped
    on opening.
    """

    def __init__(self, path: Path):
        """Open the log and read the records of an earlier run.

        Raises:
            DataError: If a line is not a record, unless it is an incomplete last line.
        """
        self.path = path
        self.records: dict[str, Record] = {}
        if path.exists():
            size = 0
            for number, line in _read_lines(path):
                if not line.endswith(b"\n"):
                    os.truncate(path, size)
                    break
                record = _parse(path, number, line)
                self.records[record.example_id] = record
                size += len(line)
        self._file = path.open("a", encoding="utf-8", newline="\n")
        self._held = HeldFile.at(path)

    def append(self, record: Record) -> None:
        """Append one finished record and flush it to the file.

        Raises:
            DataError: If a number in it is not finite.
            IclEvalError: If the file was removed, moved or replaced.
            OSError: If the record cannot be written. The error names the file.
        """
        line = _format_line(record)
        self._held.require_in_place()
        self.records[record.example_id] = record
        with naming_file(self.path):
            self._file.write(line)
            self._file.flush()

    def take(self, example_ids: Iterable[str]) -> Iterator[Record]:
        """Yield the records of examples in this order, and let go of each."""
        return map(self.records.pop, example_ids)

    def finish(self, records: Iterable[Record]) -> None:
        """Replace the file's content by these records atomically.

        Raises:
            IclEvalError: If the file was removed, moved or replaced.
            OSError: If the records cannot be written. The error names the file.
        """
        self._held.require_in_place()
        write_whole(map(_format_line, records), self.path)
        self._file.close()

    def close(self) -> None:
        """Close the file."""
        with naming_file(self.path):  # closing retries a write that failed on a full disk
            self._file.close()


def clusters_of(records: Sequence[Record]) -> tuple[str, ...] | None:
    """Return the cluster of each record; None if a record has none."""
    clusters = tuple(record.cluster for record in records if record.cluster is not None)
    return clusters if len(clusters) == len(records) else None


def stream_records(path: Path, prompts: bool = True) -> Iterator[Record]:
    """Yield the records of a finished task, one line at a time.

    Args:
        path: The file.
        prompts: Whether records have their prompts and demonstrations, most of the time and memory of reading.

    Raises:
        DataError: If a line is not a record.
    """
    reader = _RECORD if prompts else _ANSWER
    return (_parse(path, number, line, reader) for number, line in _read_lines(path))


def _read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        yield from enumerate(file, start=1)


_fields: dict[type, tuple[str, ...]] = {}
"""Names of the fields of a record and of each of its parts, by their class."""


def list_fields(value: Any) -> dict[str, Any]:
    """Return the fields of a record or of one of its parts; `asdict` also copies their contents and is slower."""
    kind = type(value)
    if kind not in _fields:
        _fields[kind] = tuple(each.name for each in fields(kind))
    return {name: getattr(value, name) for name in _fields[kind]}


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=list_fields)


def _format_line(record: Record) -> str:
    try:
        return _ENCODER.encode(list_fields(record)) + "\n"
    except ValueError:
        place = find_not_finite(asdict(record))
        raise DataError(
            f"{record.example_id}: the record cannot be written ({place}, which is not a finite number)"
        ) from None


def _parse(path: Path, number: int, line: bytes, reader: TypeAdapter[Any] = _RECORD) -> Record:
    try:
        record: Record = reader.validate_json(line.rstrip(b"\r\n"))
        return record
    except ValidationError as error:
        raise DataError(f"{path}:{number}: not a record ({describe_mistake(error, 'the line')})") from None


def describe_mistake(error: ValidationError, whole: str = "the file") -> str:
    """Return the first validation error on one line, with the field's path or, without one, the name of the whole."""
    first: Any = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"
