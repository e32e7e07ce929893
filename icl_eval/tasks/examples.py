r"""Examples: questions with their correct answers, and the mapping of rows to them.

A row of data becomes an `Example` through a mapping from field names to expressions over the columns of the row.
A new data set therefore needs configuration but no code:

    fields:                                        {"question": "2 + 2?", "answer": "so\n#### 4"}
      question: question                     ──▶   Example(inputs={"question": "2 + 2?"},
      references: answer.split('####')[1]|trim             references=("4",))
"""

import math
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Self, TypeVar

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from icl_eval.errors import ConfigError, DataError
from icl_eval.formatting import describe_error, find_lone_surrogate
from icl_eval.tasks.missing_values import mark_missing, refuse_missing
from icl_eval.tasks.rows import Row
from icl_eval.tasks.sandbox import bound_environment, compile_expression

_ENVIRONMENT = bound_environment(ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined))
refuse_missing(_ENVIRONMENT)

RESERVED_FIELDS = ("id", "references", "choices", "cluster")
"""Fields with a special meaning; every other field is an input that templates can show."""
_NAMES_OF_TEMPLATES = ("answer", "instruction", "labels", "style")
"""Names with a meaning of their own in templates."""


_NO_FIELDS: Mapping[str, str] = MappingProxyType({})
"""One object for all questions, of which there may be many."""


@dataclass(frozen=True, slots=True)
class Example:
    """One question with its correct answers; in a pool, a candidate demonstration."""

    id: str
    inputs: Mapping[str, str]
    """Input strings that templates can show, by field name; by convention the main one is `question`."""
    references: tuple[str, ...]
    """All correct answers; a demonstration shows the first. Empty for a demonstration without an answer."""
    choices: tuple[str, ...] = ()
    """Answers to choose from, at least one of them correct; empty if the task has no choices."""
    demonstration_fields: Mapping[str, str] = field(default_factory=lambda: _NO_FIELDS)
    """Strings that only a demonstration shows, such as a rationale, by field name; empty for a question. They belong to
    the target: leaks, duplicates and retrieval only look at `inputs`."""
    cluster: str | None = None
    """What the question has in common with others, such as its text or its rule, so that their results are not
    independent; None if the task names no clusters, and in a pool."""


class Examples(tuple[Example, ...]):
    """The examples of a split, with what has been computed from all of them, which lasts as long as they do."""

    _computed: dict[str, tuple[Hashable, Any]]

    def __new__(cls, examples: Iterable[Example]) -> Self:
        """Hold examples in their order."""
        made = super().__new__(cls, examples)
        made._computed = {}
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Let copies begin without what has been computed."""
        return type(self), (tuple(self),)


Computed = TypeVar("Computed")


def compute_once(examples: Sequence[Example], kind: str, key: Hashable, compute: Callable[[], Computed]) -> Computed:
    """Return a value that only depends on some examples and on a key, computed if the last one had another key.

    Args:
        examples: The examples; for those that are no `Examples`, the value is computed each time.
        kind: What the value is; one is kept of each kind.
        key: What else it depends on.
        compute: Computes the value, which nobody changes.
    """
    if not isinstance(examples, Examples):
        return compute()
    known = examples._computed.get(kind)
    if known is None or known[0] != key:
        known = examples._computed[kind] = key, compute()
    found: Computed = known[1]
    return found


class FieldMapping:
    """Turns rows into examples by evaluating one expression per field.

    An expression is either the name of a column, which may contain spaces (`Question text`), or a sandboxed Jinja
    expression over the columns (`translation.en`, `a ~ ' ' ~ b`). `row` is the whole row
    (`row['Question text']|trim`).
    """

    def __init__(
        self, fields: Mapping[str, str], demonstration_fields: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Define a mapping.

        Args:
            fields: The expression of each field.
            demonstration_fields: The expressions of further fields, which only demonstrations have.

        Raises:
            ConfigError: If there are no references, or a field of demonstrations has the name of something else.
        """
        if "references" not in fields:
            raise ConfigError("fields: 'references' is missing; it must give the correct answers")
        taken = {*fields, *RESERVED_FIELDS, *_NAMES_OF_TEMPLATES}
        for name in demonstration_fields:
            if name in taken:
                raise ConfigError(
                    f"demonstration_fields.{name}: the name already has a meaning, like {', '.join(sorted(taken))}; "
                    "choose another"
                )
        self._inputs = [name for name in fields if name not in RESERVED_FIELDS]
        self._demonstrated = list(demonstration_fields)
        self._fields = {**fields, **demonstration_fields}
        self._expressions: dict[str, Callable[..., Any]] = {}

    def candidate(self, row: Row, default_id: str) -> Example:
        """Build an example for the pool from one row, which needs no choices and no cluster.

        Raises:
            DataError: If a field is missing, empty or not a string; the message names file, line and field.
        """
        demonstrated = {name: self._text(row, name) for name in self._demonstrated}
        return replace(self._question(row, default_id), demonstration_fields=demonstrated)

    def example(self, row: Row, default_id: str) -> Example:
        """Build an example for evaluation from one row, which needs no fields of demonstrations.

        Raises:
            DataError: If a field is missing, empty or not a string; the message names file, line and field.
        """
        question = self._question(row, default_id)
        if "cluster" in self._fields:
            question = replace(question, cluster=self._name(row, "cluster"))
        if "choices" not in self._fields:
            return question
        return replace(question, choices=self._choices(row, question.references))

    def _question(self, row: Row, default_id: str) -> Example:
        inputs = {name: self._text(row, name) for name in self._inputs}
        references = self._value(row, "references")
        if isinstance(references, str):
            references = [references]
        if not isinstance(references, Sequence) or not references:
            raise DataError(f"{row.where}: {self._describe('references')} is {_name_kind(references)}, {_WANTED}")
        for reference in references:
            self._require_text(row, "references", reference)
        return Example(self._id(row, default_id), inputs, tuple(dict.fromkeys(references)))

    def _choices(self, row: Row, references: Sequence[str]) -> tuple[str, ...]:
        choices = self._value(row, "choices")
        where = f"{row.where}: {self._describe('choices')}"
        if not isinstance(choices, list | tuple) or len(choices) < 2:
            raise DataError(f"{where} is {_name_kind(choices)}, but must be a list of two or more strings")
        answers: dict[str, str] = {}
        for choice in choices:
            answer = self._require_text(row, "choices", choice).strip()
            if answer in answers:
                raise DataError(f"{where} contains {_describe_repeat(answers[answer], choice)}")
            answers[answer] = choice
        if not set(choices) & set(references):
            raise DataError(f"{where} contains no reference: none of {list(references)} is in {list(choices)}")
        return tuple(choices)

    def _id(self, row: Row, default_id: str) -> str:
        if self._fields.get("id", "id") == "id" and "id" not in row.values:
            return default_id
        return self._name(row, "id")

    def _name(self, row: Row, field: str) -> str:
        """Return a string that names something; it may be given as a whole number."""
        value = self._value(row, field) if field in self._fields else row.values[field]
        return str(value) if type(value) is int else self._require_text(row, field, value)

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
                    str(part)  # using a StrictUndefined raises an error that names what is missing
        except Exception as error:  # a user-written expression can raise anything
            has = ", ".join(map(str, row.values))
            reason = describe_error(error)
            raise DataError(f"{row.where}: {self._describe(name)}: {reason} (the row has: {has})") from None
        return value

    def _compile(self, row: Row, name: str) -> Callable[..., Any]:
        try:
            return compile_expression(_ENVIRONMENT, self._fields[name])
        except Exception as error:  # not only errors of Jinja: deep nesting raises RecursionError
            key = "demonstration_fields" if name in self._demonstrated else "fields"
            raise ConfigError(
                f"{key}.{name}: {self._fields[name]!r} is neither a column (the row has: "
                f"{', '.join(map(str, row.values))}) nor an expression ({error})"
            ) from None

    def _require_text(self, row: Row, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise DataError(f"{row.where}: {self._describe(name)} is {_name_kind(value)}, {_WANTED}")
        if not value.strip():
            raise DataError(f"{row.where}: {self._describe(name)} is empty")
        if found := find_lone_surrogate(value):
            raise DataError(f"{row.where}: {self._describe(name)} contains {found}")
        return value

    def _describe(self, name: str) -> str:
        expression = self._fields.get(name, name)
        return f"field '{name}'" if expression == name else f"field '{name}' ({expression})"


_WANTED = "but must be a string (references: a string or a list of strings)"


def normalize(text: str) -> str:
    """Normalize a string for comparison: Unicode NFKC, case folding, runs of whitespace collapsed to one space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _describe_repeat(choice: str, other: str) -> str:
    if choice == other:
        return f"{choice!r} twice"
    return f"{choice!r} and {other!r}, which differ only in leading or trailing whitespace"


def _name_kind(value: object) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", dict: "an object"}
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if callable(value):
        name = getattr(value, "__name__", "")
        return f"the method '{name}', not a key of that name (which is written ['{name}'])"
    return names.get(type(value), f"a {type(value).__name__}")
