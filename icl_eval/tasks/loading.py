"""Tasks: the examples of both splits with what prompts say about them, from files, data sets or rows in memory."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from icl_eval.errors import ConfigError, DataError
from icl_eval.tasks.examples import Example, Examples, FieldMapping
from icl_eval.tasks.kept_tasks import get_or_read
from icl_eval.tasks.rows import DataSource, Row, read_rows

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_VALUES = ("false", "inf", "nan", "null", "true")
"""Words that are values in Hydra's grammar, not names."""


@dataclass(frozen=True, repr=False)
class Task:
    """A named task with its demonstration pool and its test examples."""

    name: str
    instruction: str
    labels: Mapping[str, str]
    """Labels of questions and answers in a prompt: `{"question": "English", "answer": "Spanish"}`."""
    pool: tuple[Example, ...]
    examples: tuple[Example, ...]
    content_hash: str
    """Digest of the examples of both splits, independent of where they are stored."""

    def __repr__(self) -> str:
        return f"<Task {self.name}: {len(self.pool)} examples in the pool, {len(self.examples)} to evaluate>"

    @property
    def num_examples(self) -> int:
        """The number of examples of both splits."""
        return len(self.pool) + len(self.examples)

    @property
    def demonstration_fields(self) -> tuple[str, ...]:
        """The names of the fields that only demonstrations have."""
        return tuple(self.pool[0].demonstration_fields) if self.pool else ()

    @classmethod
    def of_rows(
        cls,
        name: str,
        pool: Iterable[Mapping[str, Any]],
        test: Iterable[Mapping[str, Any]],
        *,
        fields: Mapping[str, str] = MappingProxyType({"question": "question", "references": "references"}),
        demonstration_fields: Mapping[str, str] = MappingProxyType({}),
        instruction: str = "",
        labels: Mapping[str, str] = MappingProxyType({"question": "Question", "answer": "Answer"}),
    ) -> "Task":
        """Build a task from rows in memory.

        >>> rows = [{"country": "France", "capital": "Paris"}, {"country": "Italy", "capital": "Rome"}]
        >>> fields = {"question": "country", "references": "capital"}
        >>> task = icl_eval.Task.of_rows("capitals", pool=rows[:1], test=rows[1:], fields=fields)
        >>> task.examples[0].references
        ('Rome',)

        Args:
            name: The name of the task in options, files and reports: English letters, digits, `_` and `-`, beginning
                with a letter.
            pool: The rows that demonstrations are selected from, each a mapping from columns to values.
            test: The rows to evaluate.
            fields: A column or a Jinja expression over the columns for each field. `references` is required,
                `choices` provides the answers for `likelihood=choices`, and `cluster` says which questions of the test
                set belong together.
            demonstration_fields: The same for fields that only demonstrations show, such as a rationale; only the rows
                of the pool need their columns.
            instruction: The instruction that templates show.
            labels: The labels that templates put before questions and answers; those that are left out are
                `Question` and `Answer`, and an empty one shows none.

        Raises:
            ConfigError: If the expression of a field is invalid, or an argument is of another kind.
            DataError: If a row does not fit the fields; the message names the row.
        """
        mappings = {"fields": fields, "demonstration_fields": demonstration_fields, "labels": labels}
        _check_kinds(name, instruction, mappings)
        pool_rows, test_rows = _rows_in_memory(name, "pool", pool), _rows_in_memory(name, "test", test)
        mapping = FieldMapping(fields, demonstration_fields)
        return _build_task(name, instruction, labels, pool_rows, test_rows, mapping)


def load_task(
    name: str,
    *,
    instruction: str,
    labels: Mapping[str, str],
    pool: DataSource,
    test: DataSource,
    fields: Mapping[str, str],
    demonstration_fields: Mapping[str, str] = MappingProxyType({}),
) -> Task:
    """Read both splits of a task from their sources, or return it as a cell before this one has read it.

    Raises:
        DataError: If a file or row does not fit the task.
        ConfigError: If the expression of a field is invalid.
    """
    mapping = FieldMapping(fields, demonstration_fields)

    def read() -> Task:
        return _build_task(name, instruction, labels, read_rows(pool), read_rows(test), mapping)

    mappings = (tuple(each.items()) for each in (labels, fields, demonstration_fields))
    return get_or_read((name, instruction, pool, test, *mappings), read)


def _build_task(
    name: str,
    instruction: str,
    labels: Mapping[str, str],
    pool: Sequence[Row],
    test: Sequence[Row],
    mapping: FieldMapping,
) -> Task:
    candidates = _build_examples(mapping.candidate, pool, "pool")
    examples = _build_examples(mapping.example, test, "test")
    return Task(name, instruction, labels, candidates, examples, _hash(candidates, examples))


def _check_kinds(name: object, instruction: object, mappings: Mapping[str, object]) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.lower() in _VALUES:
        raise ConfigError(
            f"name={name!r}: the name of a task must consist of English letters, digits, '_' and '-' and begin with a "
            f"letter, and must not be one of {', '.join(_VALUES)}"
        )
    if not isinstance(instruction, str):
        raise ConfigError(f"instruction={instruction!r}: must be a string")
    for key, mapping in mappings.items():
        if not isinstance(mapping, Mapping) or not all(isinstance(each, str) for each in mapping.values()):
            raise ConfigError(f"{key}={mapping!r}: must be a mapping from names to strings")


def _rows_in_memory(name: str, split: str, rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    if not isinstance(rows, Iterable):
        raise DataError(f"{name}: {split} is a {type(rows).__name__}, but must be a list of rows")
    numbered = [Row(f"{name}: row {number} of {split}", values) for number, values in enumerate(rows)]
    for row in numbered:
        if not isinstance(row.values, Mapping):
            raise DataError(
                f"{row.where}: a {type(row.values).__name__}, but every row must be a mapping from columns to values "
                "(for a data frame, pass frame.to_dict('records'))"
            )
        for column in row.values:
            if not isinstance(column, str):
                raise DataError(f"{row.where}: the name of the column {column!r} must be a string")
    if not numbered:
        raise DataError(f"{name}: no rows in {split}")
    return numbered


def _build_examples(build: Callable[[Row, str], Example], rows: Sequence[Row], split: str) -> Examples:
    examples: dict[str, Example] = {}
    places: dict[str, str] = {}
    for number, row in enumerate(rows):
        example = build(row, f"{split}-{number}")
        if example.id in examples:
            raise DataError(f"{row.where}: id {example.id!r} is already the id of {places[example.id]}")
        examples[example.id] = example
        places[example.id] = row.where
    return Examples(examples.values())


def _hash(*splits: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for examples in splits:
        digest.update(f"{len(examples)}\n".encode())
        for example in examples:
            content = {name: getattr(example, name) for name in Example.__slots__}
            del content["cluster"]  # decides no record, only how far scores can be off
            if not example.demonstration_fields:
                del content["demonstration_fields"]  # so that older folders of runs still fit their data
            digest.update(json.dumps(content, sort_keys=True).encode())
    return digest.hexdigest()[:16]
