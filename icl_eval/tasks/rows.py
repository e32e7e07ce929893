"""Rows of data: reading JSON Lines, CSV, Parquet and hub data sets, with the origin of every row.

Files are read by our own strict readers. The JSON loader of `datasets` silently converts a column of mixed types to
re-quoted strings, and its error messages name neither file nor line.
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
"""Maximum size of a file, and of the uncompressed contents of a Parquet file."""
_MAX_LINE_BYTES = 64 * 2**20
"""Maximum size of a line, and of a field in a CSV file."""
_BATCH_ROWS = 64
"""Number of Parquet rows decoded at once; few, because a small file can encode many long rows."""

_HUB_TIMEOUT_S = 5.0
_BOM, _UTF16_BOMS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
_CARRIAGE_RETURN = "a carriage return (CR) within the line; lines must end in LF or CRLF, not in CR as on old Macs"


@dataclass(frozen=True)
class DataSource:
    """The location of the rows of one split."""

    path: str
    """A `.jsonl`, `.csv` or `.parquet` file, or a data set: a hub name or a local folder in the hub's layout."""
    name: str | None = None
    """The configuration of a data set that has several (`main` for `gsm8k`); None for files."""
    split: str | None = None
    """The split of a data set (`train`, `test`, `validation[:100]`); None for files."""
    max_rows: int = 1_000_000
    """Maximum number of rows; reading stops with an error as soon as there are more."""

    @property
    def is_file(self) -> bool:
        """Whether the rows are in one file."""
        return Path(self.path).suffix in _READERS


@dataclass(frozen=True)
class Row:
    """One row of raw data, before its columns are mapped to fields."""

    where: str
    """Origin of the row for error messages, such as `data/qa/test.jsonl:7`."""
    values: Mapping[str, Any]


def read_rows(source: DataSource) -> list[Row]:
    """Read all rows of a source.

    Raises:
        DataError: If something cannot be read or there are no rows; the message names file and line.
    """
    if source.is_file and (source.name or source.split):
        raise DataError(f"{source.path}: 'name' and 'split' are only for data sets, not for files; leave them out")
    read = _READERS[Path(source.path).suffix] if source.is_file else _read_dataset
    rows: list[Row] = []
    for row in read(source):
        if len(rows) == source.max_rows:
            raise _too_many(source)
        rows.append(row)
    if not rows:
        raise DataError(f"{source.path}: contains no rows")
    return rows


def _too_many(source: DataSource, num_rows: int | None = None) -> DataError:
    count = "" if num_rows is None else f"{num_rows} rows, "
    return DataError(
        f"{source.path}: {count}more than max_rows={source.max_rows}; use a part of them, or raise 'max_rows', "
        "a key next to 'path'"
    )


def _require_file(path: str) -> None:
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
    _require_file(path)
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


def _read_jsonl(source: DataSource) -> Iterator[Row]:
    path = source.path
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
        yield Row(where, values)


def _build_object(where: str, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    _require_unique([name for name, _ in pairs], f"{where}: the key")
    return dict(pairs)


def _require_unique(names: Sequence[str], what: str) -> None:
    """Raise DataError for a repeated name: the parsers would silently keep only its last value."""
    if len(set(names)) < len(names):
        name = next(name for name, count in Counter(names).items() if count > 1)
        raise DataError(f"{what} {name!r} occurs more than once; each name must have one value")


def _read_csv(source: DataSource) -> Iterator[Row]:
    path = source.path
    csv.field_size_limit(_MAX_LINE_BYTES)  # process-wide; the default of 131,072 is too small for long documents
    reader = csv.DictReader((line + "\n" for _, line in _read_lines(path)), strict=True)
    try:
        _require_unique(reader.fieldnames or (), f"{path}:{reader.line_num}: the column")
        for values in reader:
            where = f"{path}:{reader.line_num}"
            if None in values or None in values.values():
                columns = len(reader.fieldnames or ())
                raise DataError(f"{where}: the number of values differs from the number of columns ({columns})")
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
                        f"{path}[{number}]: the rows up to here exceed {_format_size(_MAX_BYTES)} uncompressed; "
                        "split the file"
                    )
                yield Row(f"{path}[{number}]", values)
                number += 1
    except (
        OSError,
        ValueError,
        OverflowError,
        ArrowException,
    ) as error:  # ValueError and OverflowError: invalid UTF-8, dates out of range
        raise DataError(f"{path}[{number}]: cannot be read ({describe_error(error)})") from None


def _num_bytes(value: Any) -> int:
    """Estimate the memory of a value; Arrow's own estimate counts the strings of a dictionary column only once."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_num_bytes, value.values()))
    return sum(map(_num_bytes, value)) if isinstance(value, list) else 8


def _open_parquet(source: DataSource) -> "ParquetFile":
    """Open a Parquet file and check the sizes that its metadata declares."""
    from pyarrow import ArrowException, parquet

    _require_file(source.path)
    try:
        file = parquet.ParquetFile(source.path)
    except (OSError, ValueError, ArrowException) as error:
        raise DataError(f"{source.path}: not Parquet ({describe_error(error)})") from None
    metadata = file.metadata
    _require_unique(file.schema_arrow.names, f"{source.path}: the column")
    if metadata.num_rows > source.max_rows:
        raise _too_many(source, metadata.num_rows)
    unpacked = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    if unpacked > _MAX_BYTES:
        size = f"{_format_size(unpacked)} uncompressed, more than {_format_size(_MAX_BYTES)}"
        raise DataError(f"{source.path}: {size}; split the file")
    return file


_READERS = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}


def _format_size(number: int) -> str:
    return f"{number / 2**30:.3g} GiB" if number >= 2**30 else f"{number / 2**20:.3g} MiB"


def _describe_read_error(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or describe_error(error)


def _read_dataset(source: DataSource) -> Iterator[Row]:
    folder = Path(source.path)
    if source.path and folder.exists() and not folder.is_dir():
        raise DataError(f"{source.path}: the name of a file of rows must end in .jsonl, .csv or .parquet")
    if source.split is None:
        raise DataError(
            f"{source.path}: 'split' is missing (a path that does not end in .jsonl, .csv or .parquet is a data set, "
            "and a data set needs a split)"
        )
    if folder.is_dir():
        _require_files(folder, source)
    rows = _load_dataset(source)
    if len(rows) > source.max_rows:
        raise _too_many(source, len(rows))
    for number, values in enumerate(rows):
        yield Row(f"{source.path}[{source.split}][{number}]", values)


def _require_files(folder: Path, source: DataSource) -> None:
    """Raise DataError if the folder contains a file that the library could not finish reading."""
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
    hub_error = None if is_folder or offline else _find_hub_error(source.path)
    if hub_error is not None:
        datasets.config.HF_HUB_OFFLINE = True  # use only the cache; otherwise the library retries for half a minute
    try:
        return datasets.load_dataset(source.path, name=source.name, split=source.split)
    except Exception as error:  # the library can raise anything; the innermost cause is the informative one
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = describe_error(cause)
        if hub_error is not None and "OfflineModeIsEnabled" in reason:  # the library reports our offline flag
            reason = f"it is not in the cache, and the hub cannot be reached ({describe_error(hub_error)})"
        hint = "" if is_folder else "; give a .jsonl, .csv or .parquet file, or a local folder in the hub's layout"
        raise DataError(f"data set {source.path!r} cannot be loaded: {reason}{hint}") from None
    finally:
        datasets.config.HF_HUB_OFFLINE = offline


def _find_hub_error(name: str) -> Exception | None:
    """Return the error that a request to the hub raises, such as a refusal by a proxy; None if the hub responds."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        HfApi().dataset_info(name, timeout=_HUB_TIMEOUT_S)
    except RepositoryNotFoundError:
        return None  # the hub responded; the library reports the wrong name
    except Exception as error:  # the class of a connection error depends on the HTTP library of the hub's client
        return error
    return None
