"""Pack the rows of a page into elements that a script reads one by one, when they are looked at.

Prompts share most of their lines: a task contains little more text than its pool and its questions. Each distinct line
of an element is therefore stored once, and rows refer to texts by number:

    <script type="application/json" id="records-0-0">{"rows":[…],"texts":["Q: …"]}</script>

If the records of a page are many bytes, its elements are compressed. Rows are taken one at a time, and each element is
given away as soon as it is full, so that the memory needed does not grow with the number of rows.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

from markupsafe import Markup

from icl_eval.reporting.pages.rendering import embed_json, to_json
from icl_eval.runs.records import QuestionLikelihood, Record, SampledCompletion, ShownDemonstration, list_fields

MAX_PLAIN_BYTES = 4_000_000
"""Size of the records' files above which a page is compressed: some thousand questions with short prompts."""
BLOCK_CHARS = 250_000
"""Number of characters after which an element ends: a browser reads one in some milliseconds."""
BLOCK_ROWS = 1_000


_Row = TypeVar("_Row")


class TextTable:
    """A table that stores each distinct string once and refers to it by number."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.size = 0
        """Number of characters of all strings."""
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        """Return the number of a string, adding it to the table if necessary."""
        number = self._numbers.setdefault(text, len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
            self.size += len(text)
        return number

    def lines(self, text: str | None) -> list[int] | None:
        """Return the numbers of the lines of a text, whose concatenation is the text."""
        return None if text is None else [self.number(line) for line in text.splitlines(keepends=True)]


class BlockList(Generic[_Row]):
    """A list of rows in the elements of a page."""

    def __init__(self, name: str, compress: bool, pack: Callable[[_Row, TextTable], Any]):
        """Begin an empty list.

        Args:
            name: The beginning of the ids of its elements.
            compress: Whether its elements are compressed.
            pack: Returns a row as a value for JSON, with numbers in the table that it is given in place of texts.
        """
        self.blocks: list[tuple[str, int]] = []
        """The id and the number of rows of each element that was given away."""
        self.size = 0
        """The number of rows."""
        self._name, self._compress, self._pack = name, compress, pack
        self._begin()

    def add(self, value: _Row) -> Iterator[Markup]:
        """Add a row, and yield the element that it fills, if it fills one."""
        row = to_json(self._pack(value, self._table))
        self.size += 1
        self._rows.append(row)
        self._chars += len(row)
        if self._chars + self._table.size >= BLOCK_CHARS or len(self._rows) == BLOCK_ROWS:
            yield self._end()

    def finish(self) -> Iterator[Markup]:
        """Yield the element with the remaining rows, if there are any."""
        if self._rows:
            yield self._end()

    def _begin(self) -> None:
        self._rows: list[str] = []
        self._chars = 0
        self._table = TextTable()

    def _end(self) -> Markup:
        identifier = f"{self._name}-{len(self.blocks)}"
        self.blocks.append((identifier, len(self._rows)))
        text = f'{{"rows":[{",".join(self._rows)}],"texts":{to_json(self._table.texts)}}}'
        self._begin()
        return embed_json(identifier, text, self._compress)


def is_large(paths: Iterable[Path]) -> bool:
    """Return whether the elements of a page with the records of some files are compressed."""
    return sum(path.stat().st_size for path in paths) > MAX_PLAIN_BYTES


def pack_record(record: Record, table: TextTable) -> Mapping[str, Any]:
    """Return a record as in its file, with numbers in a table in place of texts that repeat.

    Each side of a prompt is a list of the numbers of its lines, and the id of a demonstration is a number. A
    demonstration is a list of the numbers of its id and target, and its similarity; a sample is a list of the numbers
    of its completion and its prediction, its number of tokens and its finish reason.
    """
    return list_fields(record) | {
        "encoder": table.lines(record.encoder),
        "decoder": table.lines(record.decoder),
        "demonstration_ids": [table.number(example_id) for example_id in record.demonstration_ids],
        "demonstrations": [_pack_demonstration(shown, table) for shown in record.demonstrations],
        "likelihood": None if record.likelihood is None else _pack_likelihood(record.likelihood, table),
        "samples": [_pack_sample(sample, table) for sample in record.samples],
    }


def _pack_likelihood(likelihood: QuestionLikelihood, table: TextTable) -> dict[str, Any]:
    packed, scored = asdict(likelihood), likelihood.channel
    if scored is not None:
        sides = {"encoder": table.lines(scored.encoder), "decoder": table.lines(scored.decoder)}
        packed["channel"] = {**sides, "question": scored.question}
    return packed


def _pack_sample(sample: SampledCompletion, table: TextTable) -> list[float | str | None]:
    return [table.number(sample.completion), table.number(sample.prediction), sample.tokens, sample.finish_reason]


def _pack_demonstration(shown: ShownDemonstration, table: TextTable) -> list[float | None]:
    target = None if shown.target is None else table.number(shown.target)
    return [table.number(shown.id), target, shown.similarity]
