"""Embedding: records in the form in which a page holds them, so that ten thousand of them stay a few megabytes.

Prompts repeat one another: line for line, a task has little more text than its pool and its questions. So each line
is stored once, and a prompt is a list of numbers of lines; so are the demonstrations in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from icl_eval.runs.records import Record, ShownDemonstration


class TextTable:
    """Texts that are stored once and called by number."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        """Return the number of a text."""
        number = self._numbers.setdefault(text, len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
        return number

    def lines(self, text: str | None) -> list[int] | None:
        """Return the numbers of a text's lines, which joined are the text."""
        return None if text is None else [self.number(line) for line in text.splitlines(keepends=True)]


def embed_records(records: Sequence[Record]) -> dict[str, Any]:
    """Return `{"lines": […], "records": […]}`: records as in their file, with numbers of lines for what repeats.

    A prompt's side is a list of numbers, the id of a demonstration is one, and a demonstration is the numbers of its id
    and target with its similarity.
    """
    table = TextTable()
    names = [field.name for field in fields(Record)]
    return {"records": [_embed(record, names, table) for record in records], "lines": table.texts}


def _embed(record: Record, names: Sequence[str], table: TextTable) -> Mapping[str, Any]:
    values = {name: getattr(record, name) for name in names}  # not `asdict`, which copies: 20 times slower
    return values | {
        "encoder": table.lines(record.encoder),
        "decoder": table.lines(record.decoder),
        "demonstration_ids": [table.number(example_id) for example_id in record.demonstration_ids],
        "demonstrations": [_embed_demonstration(shown, table) for shown in record.demonstrations],
        "likelihood": None if record.likelihood is None else asdict(record.likelihood),
    }


def _embed_demonstration(shown: ShownDemonstration, table: TextTable) -> list[float | None]:
    target = None if shown.target is None else table.number(shown.target)
    return [table.number(shown.id), target, shown.similarity]
