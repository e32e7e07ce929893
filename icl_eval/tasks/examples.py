r"""Tasks: what is asked, the right answers, and the pool that demonstrations are drawn from.

A row of data becomes an `Example` through a mapping from field names to expressions over the row's columns,
so that a data set is adapted by configuration and not by code:

    fields:                                        {"question": "2 + 2?", "answer": "so\n#### 4"}
      question: question                     ──▶   Example(inputs={"question": "2 + 2?"},
      references: answer.split('####')[1]|trim             references=("4",))
"""

import hashlib
import json
import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from icl_eval.errors import ConfigError, DataError
from icl_eval.formatting import describe_error
from icl_eval.tasks.missing_values import mark_missing, refuse_missing
from icl_eval.tasks.rows import DataSource, Row, read_rows
from icl_eval.tasks.sandbox import bounded, compile_expression

_ENVIRONMENT = bounded(ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined))
refuse_missing(_ENVIRONMENT)

RESERVED_FIELDS = ("id", "references", "choices")
"""Fields with a meaning of their own; every other field is an input that templates can show."""


@dataclass(frozen=True)
class Example:
    """One question with its right answers; in a pool, a demonstration to be."""

    id: str
    inputs: Mapping[str, str]
    """What a template can show, by field name; by convention the main text is `question`."""
    references: tuple[str, ...]
    """All right answers; the first is the one shown when the example is a demonstration. None of them where a
    demonstration is to be shown without its answer."""
    choices: tuple[str, ...] = ()
    """Answers to choose from, at least one of them right; empty where the task names none."""


@dataclass(frozen=True, repr=False)
class Task:
    """A named task with its demonstration pool and its test examples."""

    name: str
    instruction: str
    labels: Mapping[str, str]
    """What the two sides are called in a prompt: `{"question": "English", "answer": "Spanish"}`."""
    pool: tuple[Example, ...]
    examples: tuple[Example, ...]
    content_hash: str
    """Digest of the examples of both splits, wherever they are stored."""

    def __repr__(self) -> str:
        return f"<Task {self.name}: {len(self.pool)} examples in the pool, {len(self.examples)} to evaluate>"

    @classmethod
    def of_rows(
        cls,
        name: str,
        pool: Iterable[Mapping[str, Any]],
        test: Iterable[Mapping[str, Any]],
        *,
        fields: Mapping[str, str] = MappingProxyType({"question": "question", "references": "references"}),
        instruction: str = "",
        labels: Mapping[str, str] = MappingProxyType({"question": "Question", "answer": "Answer"}),
    ) -> "Task":
        """Return a task whose rows are in memory.

        >>> rows = [{"country": "France", "capital": "Paris"}, {"country": "Italy", "capital": "Rome"}]
        >>> fields = {"question": "country", "references": "capital"}
        >>> task = icl_eval.Task.of_rows("capitals", pool=rows[:1], test=rows[1:], fields=fields)
        >>> task.examples[0].references
        ('Rome',)

        Args:
            name: What prompts' files and reports call the task: letters, digits, `_`, `-` and `.`.
            pool: The rows that demonstrations are drawn from, each a mapping from columns to values.
            test: The rows to evaluate.
            fields: For each field a column, or a Jinja expression over the columns; `references` is needed, and
                `choices` gives the answers for `likelihood=choices`.
            instruction: What templates show as the instruction.
            labels: What templates call the two sides.

        Raises:
            ConfigError: When a field's expression is not valid.
            DataError: When a row is not what the fields expect; the message names it.
        """
        pool_rows, test_rows = _rows_in_memory(name, "pool", pool), _rows_in_memory(name, "test", test)
        return _build_task(name, instruction, labels, pool_rows, test_rows, FieldMapping(fields))


class FieldMapping:
    """Turns rows into examples by evaluating one expression a field.

    An expression is the name of a column, whatever it looks like (`Question text`), or else a Jinja expression over
    the columns in a sandbox (`translation.en`, `a ~ ' ' ~ b`); `row` is the whole row (`row['Question text']|trim`).
    """

    def __init__(self, fields: Mapping[str, str]):
        if "references" not in fields:
            raise ConfigError("fields: 'references' is missing; it says where the right answers are")
        self._fields = fields
        self._expressions: dict[str, Callable[..., Any]] = {}

    def without_choices(self) -> "FieldMapping":
        """Return the mapping for a pool, whose rows need no choices."""
        return FieldMapping({name: expression for name, expression in self._fields.items() if name != "choices"})

    def example(self, row: Row, default_id: str) -> Example:
        """Build the example of one row.

        Raises:
            DataError: Naming file, line and field, when a field is missing, empty or not text.
        """
        inputs = {name: self._text(row, name) for name in self._fields if name not in RESERVED_FIELDS}
        references = self._value(row, "references")
        if isinstance(references, str):
            references = [references]
        if not isinstance(references, Sequence) or not references:
            raise DataError(f"{row.where}: {self._describe('references')} is {_kind(references)}, {_WANTED}")
        for reference in references:
            self._require_text(row, "references", reference)
        choices = self._choices(row, references) if "choices" in self._fields else ()
        return Example(self._id(row, default_id), inputs, tuple(dict.fromkeys(references)), choices)

    def _choices(self, row: Row, references: Sequence[str]) -> tuple[str, ...]:
        choices = self._value(row, "choices")
        where = f"{row.where}: {self._describe('choices')}"
        if not isinstance(choices, list | tuple) or len(choices) < 2:
            raise DataError(f"{where} is {_kind(choices)}, but must be a list of two or more texts")
        answers: dict[str, str] = {}
        for choice in choices:
            answer = self._require_text(row, "choices", choice).strip()
            if answer in answers:
                raise DataError(f"{where} holds {_same(answers[answer], choice)}")
            answers[answer] = choice
        if not set(choices) & set(references):
            raise DataError(f"{where} holds no reference: {list(choices)} has none of {list(references)}")
        return tuple(choices)

    def _id(self, row: Row, default_id: str) -> str:
        if self._fields.get("id", "id") == "id" and "id" not in row.values:
            return default_id
        value = self._value(row, "id") if "id" in self._fields else row.values["id"]
        return str(value) if type(value) is int else self._require_text(row, "id", value)

    def _text(self, row: Row, name: str) -> str:
        return self._require_text(row, name, self._value(row, name))

    def _value(self, row: Row, name: str) -> Any:
        if self._fields[name] in row.values:
            return row.values[self._fields[name]]
        if name not in self._expressions:
            self._expressions[name] = self._compile(row, name)
        try:
            values = mark_missing(row.values)
            value = self._expressions[name]({"row": values, **values})
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, jinja2.Undefined):
                    str(part)  # StrictUndefined says what is missing when it is used
        except Exception as error:  # an expression runs user-written code: any of Python's errors is possible
            has = ", ".join(map(str, row.values))
            reason = describe_error(error)
            raise DataError(f"{row.where}: {self._describe(name)}: {reason} (the row has: {has})") from None
        return value

    def _compile(self, row: Row, name: str) -> Callable[..., Any]:
        try:
            return compile_expression(_ENVIRONMENT, self._fields[name])
        except Exception as error:  # what nests too deeply for Python is none of Jinja's errors
            raise ConfigError(
                f"fields.{name}: {self._fields[name]!r} is no column (the row has: {', '.join(map(str, row.values))}) "
                f"and no expression ({error})"
            ) from None

    def _require_text(self, row: Row, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise DataError(f"{row.where}: {self._describe(name)} is {_kind(value)}, {_WANTED}")
        if not value.strip():
            raise DataError(f"{row.where}: {self._describe(name)} is empty")
        try:
            value.encode()
        except UnicodeEncodeError as error:  # JSON can escape one half of a pair, and a tokenizer cannot read it
            half = value[error.start]
            raise DataError(f"{row.where}: {self._describe(name)} has half a character ({half!r}) in it") from None
        return value

    def _describe(self, name: str) -> str:
        expression = self._fields.get(name, name)
        return f"field '{name}'" if expression == name else f"field '{name}' ({expression})"


_WANTED = "but must be text (references: text or a list of texts)"


def load_task(
    name: str,
    *,
    instruction: str,
    labels: Mapping[str, str],
    pool: DataSource,
    test: DataSource,
    fields: Mapping[str, str],
) -> Task:
    """Read both splits of a task from their sources.

    Raises:
        DataError: When a file or row is not what the task expects.
        ConfigError: When a field's expression is not one.
    """
    return _build_task(name, instruction, labels, read_rows(pool), read_rows(test), FieldMapping(fields))


def _build_task(
    name: str,
    instruction: str,
    labels: Mapping[str, str],
    pool: Sequence[Row],
    test: Sequence[Row],
    mapping: "FieldMapping",
) -> Task:
    candidates = _examples(mapping.without_choices(), pool, "pool")
    examples = _examples(mapping, test, "test")
    return Task(name, instruction, labels, candidates, examples, _hash(candidates, examples))


def normalize(text: str) -> str:
    """Return a text after Unicode normalisation (NFKC), case folding and squeezing of white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _rows_in_memory(name: str, split: str, rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    found = [Row(f"{name}: row {number} of {split}", values) for number, values in enumerate(rows)]
    for row in found:
        if not isinstance(row.values, Mapping):
            raise DataError(
                f"{row.where}: a {type(row.values).__name__}, but every row must be a mapping from columns to values "
                "(of a data frame: frame.to_dict('records'))"
            )
    if not found:
        raise DataError(f"{name}: no rows in {split}")
    return found


def _examples(mapping: FieldMapping, rows: Sequence[Row], split: str) -> tuple[Example, ...]:
    examples: dict[str, Example] = {}
    places: dict[str, str] = {}
    for number, row in enumerate(rows):
        example = mapping.example(row, default_id=f"{split}-{number}")
        if example.id in examples:
            raise DataError(f"{row.where}: id {example.id!r} is already the id of {places[example.id]}")
        examples[example.id] = example
        places[example.id] = row.where
    return tuple(examples.values())


def _hash(*splits: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for examples in splits:
        digest.update(f"{len(examples)}\n".encode())
        for example in examples:
            digest.update(json.dumps(asdict(example), sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _same(choice: str, other: str) -> str:
    if choice == other:
        return f"{choice!r} twice"
    return f"{choice!r} and {other!r}, which differ in nothing but white space at their ends"


def _kind(value: object) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", dict: "an object"}
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    return names.get(type(value), f"a {type(value).__name__}")
