"""Rows of data: reading JSON Lines, CSV, Parquet and hub data sets so that every row knows where it came from.

The readers for files are our own because they are strict: the JSON loader of `datasets` turns a column of
mixed types into re-quoted text without a word, and names neither file nor line when it does complain.
"""

import csv
import json
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_eval.errors import DataError
from icl_eval.formatting import describe_error

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_MAX_BYTES = 2 * 2**30
"""Of one file, and of what a Parquet file holds packed."""
_MAX_LINE_BYTES = 64 * 2**20
"""Of one line, and of one field of a CSV file."""
_BATCH_ROWS = 64
"""Of a Parquet file, unpacked at once: a few bytes can stand for any number of long rows."""

_HUB_TIMEOUT_S = 5.0
_BOM, _UTF16_BOMS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
_CARRIAGE_RETURN = "a carriage return (CR) within the line; lines must end in LF or CRLF, not in CR as on old Macs"


@dataclass(frozen=True)
class DataSource:
    """Where the rows of one split are."""

    path: str
    """A `.jsonl`, `.csv` or `.parquet` file, or a data set: a hub name or a local folder in the hub's layout."""
    name: str | None = None
    """The data set's configuration, where it has several (`main` for `gsm8k`). Not for files."""
    split: str | None = None
    """The data set's split (`train`, `test`, `validation[:100]`). Not for files."""
    max_rows: int = 1_000_000
    """How many rows there may be: more are refused before they are all read."""

    @property
    def is_file(self) -> bool:
        """Whether the rows are in one file."""
        return Path(self.path).suffix in _READERS


@dataclass(frozen=True)
class Row:
    """One row as it was found, before any field is mapped."""

    where: str
    """`data/qa/test.jsonl:7`, for messages."""
    values: Mapping[str, Any]


def read_rows(source: DataSource) -> list[Row]:
    """Read all rows of a source.

    Raises:
        DataError: With file and line, when something cannot be read, or when there is no row at all.
    """
    if source.is_file and (source.name or source.split):
        raise DataError(f"{source.path}: a file has no 'name' and no 'split'; they belong to data sets")
    read = _READERS[Path(source.path).suffix] if source.is_file else _read_dataset
    rows: list[Row] = []
    for row in read(source):
        if len(rows) == source.max_rows:
            raise _too_many(source)
        rows.append(row)
    if not rows:
        raise DataError(f"{source.path}: no rows in it")
    return rows


def _too_many(source: DataSource, found: int | None = None) -> DataError:
    found_rows = "" if found is None else f"{found} rows, "
    return DataError(
        f"{source.path}: {found_rows}more than max_rows={source.max_rows}; take a part of them, or raise 'max_rows', "
        "the key beside 'path'"
    )


def _require_file(path: str) -> None:
    """Refuse what cannot be read to its end, such as a device, or never begins, such as a pipe that nobody feeds."""
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # a path can hold a NUL
        raise DataError(f"{path}: cannot be read ({_reason(error)})") from None
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise DataError(f"{path}: {kind}, but rows are read from files")
    if found.st_size > _MAX_BYTES:
        raise DataError(f"{path}: {_size(found.st_size)}, but a file of rows may have {_size(_MAX_BYTES)}; split it")


def _lines(path: str) -> Iterator[tuple[int, str]]:
    _require_file(path)
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE_BYTES + 1), b""), start=1):
                yield number, _decoded(f"{path}:{number}", line.removeprefix(_BOM) if number == 1 else line)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({_reason(error)})") from None


def _decoded(where: str, line: bytes) -> str:
    if len(line) > _MAX_LINE_BYTES:
        raise DataError(f"{where}: longer than {_size(_MAX_LINE_BYTES)}, which is more than a line may have")
    try:
        text = line.removesuffix(b"\n").decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{line[error.start]:02x} at column {error.start + 1}"
        hint = "; UTF-16 is not read" if line.startswith(_UTF16_BOMS) else ""
        raise DataError(f"{where}: not UTF-8 ({byte}{hint})") from None
    if "\0" in text:
        raise DataError(f"{where}: a NUL at column {text.index(chr(0)) + 1}, which is in no text (UTF-16 is not read)")
    return text


def _read_jsonl(source: DataSource) -> Iterator[Row]:
    path = source.path
    for number, line in _lines(path):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            values = json.loads(line, object_pairs_hook=partial(_object, where))
        except ValueError as error:
            reason = _CARRIAGE_RETURN if "\r" in line.strip() else f"not JSON ({error})"
            raise DataError(f"{where}: {reason}") from None
        except RecursionError:
            raise DataError(f"{where}: not JSON that can be read (nested too deeply)") from None
        if not isinstance(values, dict):
            raise DataError(f"{where}: a {type(values).__name__}, but every line must be a JSON object")
        yield Row(where, values)


def _object(where: str, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    _require_different([name for name, _ in pairs], f"{where}: the key")
    return dict(pairs)


def _require_different(names: Sequence[str], what: str) -> None:
    """Refuse names of which one is there twice: the parsers would keep its last value and forget the others."""
    if len(set(names)) < len(names):
        name = next(name for name, count in Counter(names).items() if count > 1)
        raise DataError(f"{what} {name!r} is there more than once; each name must have one value")


def _read_csv(source: DataSource) -> Iterator[Row]:
    path = source.path
    csv.field_size_limit(_MAX_LINE_BYTES)  # of the whole process; 131,072 is what it begins with, and texts are longer
    reader = csv.DictReader((line + "\n" for _, line in _lines(path)), strict=True)
    try:
        _require_different(reader.fieldnames or (), f"{path}:{reader.line_num}: the column")
        for values in reader:
            where = f"{path}:{reader.line_num}"
            if None in values or None in values.values():
                columns = len(reader.fieldnames or ())
                raise DataError(f"{where}: not as many values as the header has columns ({columns})")
            yield Row(where, values)
    except csv.Error as error:
        reason = _CARRIAGE_RETURN if "new-line character" in str(error) else f"not CSV ({error})"
        raise DataError(f"{path}:{reader.reader.line_num}: {reason}") from None


def _read_parquet(source: DataSource) -> Iterator[Row]:
    from pyarrow import ArrowException

    path = source.path
    file = _open_parquet(source)
    number = unpacked = 0
    try:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            for values in batch.to_pylist():
                unpacked += _num_bytes(values)
                if unpacked > _MAX_BYTES:
                    raise DataError(
                        f"{path}[{number}]: up to here more than {_size(_MAX_BYTES)}, unpacked; split the file"
                    )
                yield Row(f"{path}[{number}]", values)
                number += 1
    except (
        OSError,
        ValueError,
        OverflowError,
        ArrowException,
    ) as error:  # also text that is none, dates of no calendar
        raise DataError(f"{path}[{number}]: cannot be read ({describe_error(error)})") from None


def _num_bytes(value: Any) -> int:
    """Return about how much memory a value takes; Arrow's own count leaves out that a dictionary's texts repeat."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_num_bytes, value.values()))
    return sum(map(_num_bytes, value)) if isinstance(value, list) else 8


def _open_parquet(source: DataSource) -> "ParquetFile":
    """Open a file after a look at what it says of its size."""
    from pyarrow import ArrowException, parquet

    _require_file(source.path)
    try:
        file = parquet.ParquetFile(source.path)
    except (OSError, ValueError, ArrowException) as error:
        raise DataError(f"{source.path}: not Parquet ({describe_error(error)})") from None
    found = file.metadata
    _require_different(file.schema_arrow.names, f"{source.path}: the column")
    if found.num_rows > source.max_rows:
        raise _too_many(source, found.num_rows)
    unpacked = sum(found.row_group(number).total_byte_size for number in range(found.num_row_groups))
    if unpacked > _MAX_BYTES:
        raise DataError(f"{source.path}: {_size(unpacked)} unpacked, more than {_size(_MAX_BYTES)}; split the file")
    return file


_READERS = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}


def _size(number: int) -> str:
    return f"{number / 2**30:.3g} GiB" if number >= 2**30 else f"{number / 2**20:.3g} MiB"


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or describe_error(error)


def _read_dataset(source: DataSource) -> Iterator[Row]:
    folder = Path(source.path)
    if source.path and folder.exists() and not folder.is_dir():
        raise DataError(f"{source.path}: a file of rows has a name that ends in .jsonl, .csv or .parquet")
    if source.split is None:
        raise DataError(
            f"{source.path}: 'split' is missing (a path that does not end in .jsonl, .csv or .parquet is taken "
            "for a data set, and a data set needs one)"
        )
    if folder.is_dir():
        _require_files(folder, source)
    rows = _load_dataset(source)
    if len(rows) > source.max_rows:
        raise _too_many(source, len(rows))
    for number, values in enumerate(rows):
        yield Row(f"{source.path}[{source.split}][{number}]", values)


def _require_files(folder: Path, source: DataSource) -> None:
    """Refuse a folder with a file in it that the library would not come to the end of."""
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".parquet":
            _open_parquet(replace(source, path=str(path)))
        elif path.exists() and not path.is_dir():
            _require_file(str(path))


def _load_dataset(source: DataSource) -> Any:
    import datasets

    datasets.disable_progress_bars()
    is_folder = Path(source.path).is_dir()
    offline = datasets.config.HF_HUB_OFFLINE
    silence = None if is_folder or offline else _why_the_hub_is_silent(source.path)
    if silence is not None:
        datasets.config.HF_HUB_OFFLINE = True  # it looks into its cache alone; else it would retry for half a minute
    try:
        return datasets.load_dataset(source.path, name=source.name, split=source.split)
    except Exception as error:  # the library raises every kind; the useful text is in the innermost cause
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = describe_error(cause)
        if silence is not None and "OfflineModeIsEnabled" in reason:  # it only knows that we told it not to ask
            reason = f"it is not in the cache, and the hub cannot be reached ({describe_error(silence)})"
        hint = "" if is_folder else "; give a .jsonl, .csv or .parquet file, or a local folder in the hub's layout"
        raise DataError(f"data set {source.path!r} cannot be loaded: {reason}{hint}") from None
    finally:
        datasets.config.HF_HUB_OFFLINE = offline


def _why_the_hub_is_silent(name: str) -> Exception | None:
    """Return what keeps the hub from answering, such as a proxy that refuses; None where it answers."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        HfApi().dataset_info(name, timeout=_HUB_TIMEOUT_S)
    except RepositoryNotFoundError:
        return None  # it did answer, and the library will say what is wrong with the name
    except Exception as error:  # connection errors are of whichever HTTP library the hub's client uses
        return error
    return None
