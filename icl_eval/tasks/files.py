"""Files of rows: JSON Lines, CSV and Parquet, with the place of every row.

Our own readers are strict. The JSON loader of `datasets` silently converts a column of mixed types to re-quoted
strings, and its error messages name neither file nor line.
"""

import csv
import json
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_eval.errors import DataError
from icl_eval.formatting import describe_error

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_MAX_BYTES = 2 * 2**30
"""Maximum size of a file, and of the uncompressed contents of a Parquet file."""
_MAX_LINE_BYTES = 64 * 2**20
"""Maximum size of a line, and of a field in a CSV file."""
_BATCH_ROWS = 64
"""Number of Parquet rows decoded at once; few, because a small file can encode many long rows."""

_BOM, _UTF16_BOMS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
_CARRIAGE_RETURN = "a carriage return (CR) within the line; lines must end in LF or CRLF, not in CR as on old Macs"

Rows = Iterator[tuple[str, Mapping[str, Any]]]
"""The place of each row, such as `data/qa/test.jsonl:7`, and its values by column."""


def too_many_rows(path: str, max_rows: int, num_rows: int | None = None) -> DataError:
    """Return the error for more rows than are allowed; the number is None if reading stopped before the end."""
    count = "" if num_rows is None else f"{num_rows} rows, "
    return DataError(
        f"{path}: {count}more than max_rows={max_rows}; use a part of them, or raise 'max_rows', a key next to 'path'"
    )


def require_file(path: str) -> None:
    """Raise DataError unless the path is a regular file of allowed size; reading a pipe or a device may never end."""
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: the path contains a NUL
        raise DataError(f"{path}: cannot be read ({_describe_read_error(error)})") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise DataError(f"{path}: {kind}, but rows are read from files")
    if status.st_size > _MAX_BYTES:
        size = _format_size(status.st_size)
        raise DataError(f"{path}: {size}, but a file of rows may have at most {_format_size(_MAX_BYTES)}; split it")


def _read_lines(path: str) -> Iterator[tuple[int, str]]:
    require_file(path)
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE_BYTES + 1), b""), start=1):
                yield number, _decode(f"{path}:{number}", line.removeprefix(_BOM) if number == 1 else line)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({_describe_read_error(error)})") from None


def _decode(where: str, line: bytes) -> str:
    if len(line) > _MAX_LINE_BYTES:
        raise DataError(f"{where}: longer than {_format_size(_MAX_LINE_BYTES)}, the maximum for a line")
    try:
        text = line.removesuffix(b"\n").decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{line[error.start]:02x} at column {error.start + 1}"
        hint = "; UTF-16 is not supported" if line.startswith(_UTF16_BOMS) else ""
        raise DataError(f"{where}: not UTF-8 ({byte}{hint})") from None
    if "\0" in text:
        raise DataError(f"{where}: a NUL character at column {text.index(chr(0)) + 1} (UTF-16 is not supported)")
    return text


def _read_jsonl(path: str, max_rows: int) -> Rows:
    for number, line in _read_lines(path):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            values = json.loads(line, object_pairs_hook=partial(_build_object, where))
        except ValueError as error:
            reason = _CARRIAGE_RETURN if "\r" in line.strip() else f"not JSON ({error})"
            raise DataError(f"{where}: {reason}") from None
        except RecursionError:
            raise DataError(f"{where}: JSON that is nested too deeply to be read") from None
        if not isinstance(values, dict):
            raise DataError(f"{where}: a {type(values).__name__}, but every line must be a JSON object")
        yield where, values


def _build_object(where: str, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    _require_unique([name for name, _ in pairs], f"{where}: the key")
    return dict(pairs)


def _require_unique(names: Sequence[str], what: str) -> None:
    """Raise DataError for a repeated name: the parsers would silently keep only its last value."""
    if len(set(names)) < len(names):
        name = next(name for name, count in Counter(names).items() if count > 1)
        raise DataError(f"{what} {name!r} occurs more than once; each name must have one value")


def _read_csv(path: str, max_rows: int) -> Rows:
    # Process-wide, and never lowered; the default of 131,072 is too small for long documents.
    csv.field_size_limit(max(_MAX_LINE_BYTES, csv.field_size_limit()))
    reader = csv.DictReader((line + "\n" for _, line in _read_lines(path)), strict=True)
    try:
        _require_unique(reader.fieldnames or (), f"{path}:{reader.line_num}: the column")
        for values in reader:
            where = f"{path}:{reader.line_num}"
            if None in values or None in values.values():
                columns = len(reader.fieldnames or ())
                raise DataError(f"{where}: the number of values differs from the number of columns ({columns})")
            yield where, values
    except csv.Error as error:
        reason = _CARRIAGE_RETURN if "new-line character" in str(error) else f"not CSV ({error})"
        raise DataError(f"{path}:{reader.reader.line_num}: {reason}") from None


def _read_parquet(path: str, max_rows: int) -> Rows:
    from pyarrow import ArrowException

    file = open_parquet(path, max_rows)
    number = unpacked = 0
    try:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            for values in batch.to_pylist():
                unpacked += _num_bytes(values)
                if unpacked > _MAX_BYTES:
                    raise DataError(
                        f"{path}[{number}]: the rows up to here exceed {_format_size(_MAX_BYTES)} uncompressed; "
                        "split the file"
                    )
                yield f"{path}[{number}]", values
                number += 1
    except (OSError, ValueError, OverflowError, ArrowException) as error:  # also invalid UTF-8, dates out of range
        raise DataError(f"{path}[{number}]: cannot be read ({describe_error(error)})") from None


def _num_bytes(value: Any) -> int:
    """Estimate the memory of a value; Arrow's own estimate counts the strings of a dictionary column only once."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_num_bytes, value.values()))
    return sum(map(_num_bytes, value)) if isinstance(value, list) else 8


def open_parquet(path: str, max_rows: int) -> "ParquetFile":
    """Open a Parquet file; raise DataError if it is not one, or too large by the sizes in its metadata."""
    from pyarrow import ArrowException, parquet

    require_file(path)
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError, ArrowException) as error:
        raise DataError(f"{path}: not Parquet ({describe_error(error)})") from None
    metadata = file.metadata
    _require_unique(file.schema_arrow.names, f"{path}: the column")
    if metadata.num_rows > max_rows:
        raise too_many_rows(path, max_rows, metadata.num_rows)
    unpacked = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    if unpacked > _MAX_BYTES:
        size = f"{_format_size(unpacked)} uncompressed, more than {_format_size(_MAX_BYTES)}"
        raise DataError(f"{path}: {size}; split the file")
    return file


def _format_size(number: int) -> str:
    return f"{number / 2**30:.3g} GiB" if number >= 2**30 else f"{number / 2**20:.3g} MiB"


def _describe_read_error(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or describe_error(error)


READERS: Mapping[str, Callable[[str, int], Rows]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
"""The readers, by the suffix of a file. They take its path and the maximum number of rows, and raise DataError."""
