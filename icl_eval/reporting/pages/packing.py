"""Pack records for embedding in a page, so that ten thousand of them take only a few megabytes.

Prompts share most of their lines: a task contains little more text than its pool and its questions. Each distinct line
is therefore stored once, and prompts and demonstrations refer to lines by number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from icl_eval.runs.records import QuestionLikelihood, Record, SampledCompletion, ShownDemonstration


class TextTable:
    """A table that stores each distinct string once and refers to it by number."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        """Return the number of a string, adding it to the table if necessary."""
        number = self._numbers.setdefault(text, len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
        return number

    def lines(self, text: str | None) -> list[int] | None:
        """Return the numbers of the lines of a text, whose concatenation is the text."""
        return None if text is None else [self.number(line) for line in text.splitlines(keepends=True)]


def embed_records(records: Sequence[Record]) -> dict[str, Any]:
    """Return `{"lines": […], "records": […]}`: the records as in their file, with repeated strings as line numbers.

    Each side of a prompt is a list of line numbers, and the id of a demonstration is a line number. A demonstration is
    a list of the line numbers of its id and target, and its similarity; a sample is a list of the line numbers of its
    completion and its prediction, its number of tokens and its finish reason.
    """
    table = TextTable()
    names = [field.name for field in fields(Record)]
    return {"records": [_embed(record, names, table) for record in records], "lines": table.texts}


def _embed(record: Record, names: Sequence[str], table: TextTable) -> Mapping[str, Any]:
    values = {name: getattr(record, name) for name in names}  # `asdict` copies and is 20 times slower
    return values | {
        "encoder": table.lines(record.encoder),
        "decoder": table.lines(record.decoder),
        "demonstration_ids": [table.number(example_id) for example_id in record.demonstration_ids],
        "demonstrations": [_embed_demonstration(shown, table) for shown in record.demonstrations],
        "likelihood": None if record.likelihood is None else _embed_likelihood(record.likelihood, table),
        "samples": [_embed_sample(sample, table) for sample in record.samples],
    }


def _embed_likelihood(likelihood: QuestionLikelihood, table: TextTable) -> dict[str, Any]:
    embedded, scored = asdict(likelihood), likelihood.channel
    if scored is not None:
        sides = {"encoder": table.lines(scored.encoder), "decoder": table.lines(scored.decoder)}
        embedded["channel"] = {**sides, "question": scored.question}
    return embedded


def _embed_sample(sample: SampledCompletion, table: TextTable) -> list[float | str | None]:
    return [table.number(sample.completion), table.number(sample.prediction), sample.tokens, sample.finish_reason]


def _embed_demonstration(shown: ShownDemonstration, table: TextTable) -> list[float | None]:
    target = None if shown.target is None else table.number(shown.target)
    return [table.number(shown.id), target, shown.similarity]
