"""Rows of data: reading JSON Lines, CSV, Parquet and hub data sets so that every row knows where it came from.

The readers for files are our own because they are strict: the JSON loader of `datasets` turns a column of
mixed types into re-quoted text without a word, and names neither file nor line when it does complain.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from icl_eval.errors import DataError

_HUB_TIMEOUT_S = 5.0
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
    if source.is_file:
        if source.name or source.split:
            raise DataError(f"{source.path}: a file has no 'name' and no 'split'; they belong to data sets")
        rows = list(_READERS[Path(source.path).suffix](source.path))
    else:
        rows = list(_read_dataset(source))
    if not rows:
        raise DataError(f"{source.path}: no rows in it")
    return rows


def _lines(path: str) -> Iterator[tuple[int, str]]:
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}:{number}: not UTF-8 (byte 0x{line[error.start]:02x} at column {error.start + 1})"
            ) from None


def _read_jsonl(path: str) -> Iterator[Row]:
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
        name = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{what} {name!r} is there more than once; each name must have one value")


def _read_csv(path: str) -> Iterator[Row]:
    text = [line + "\n" for _, line in _lines(path)]
    reader = csv.DictReader(text, strict=True)
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


def _read_parquet(path: str) -> Iterator[Row]:
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(path)
    except (OSError, ArrowException) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"not Parquet ({_one_line(error)})"
        raise DataError(f"{path}: {reason}") from None
    for number, values in enumerate(table.to_pylist()):
        yield Row(f"{path}[{number}]", values)


_READERS = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _read_dataset(source: DataSource) -> Iterator[Row]:
    if source.split is None:
        raise DataError(
            f"{source.path}: 'split' is missing (a path that does not end in .jsonl, .csv or .parquet is taken "
            "for a data set, and a data set needs one)"
        )
    for number, values in enumerate(_load_dataset(source)):
        yield Row(f"{source.path}[{source.split}][{number}]", values)


def _load_dataset(source: DataSource) -> Any:
    import datasets

    datasets.disable_progress_bars()
    is_folder = Path(source.path).is_dir()
    offline = datasets.config.HF_HUB_OFFLINE
    if not is_folder and not _hub_answers(source.path):
        datasets.config.HF_HUB_OFFLINE = True  # it looks into its cache alone; else it would retry for half a minute
    try:
        return datasets.load_dataset(source.path, name=source.name, split=source.split)
    except Exception as error:  # the library raises every kind; the useful text is in the innermost cause
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        hint = "" if is_folder else "; give a .jsonl, .csv or .parquet file, or a local folder in the hub's layout"
        raise DataError(f"data set {source.path!r} cannot be loaded: {_one_line(cause)}{hint}") from None
    finally:
        datasets.config.HF_HUB_OFFLINE = offline


def _hub_answers(name: str) -> bool:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        HfApi().dataset_info(name, timeout=_HUB_TIMEOUT_S)
    except RepositoryNotFoundError:
        return True  # it did, and the library will say what is wrong with the name
    except Exception:  # connection errors are of whichever HTTP library the hub's client uses
        return False
    return True
