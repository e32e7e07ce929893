"""Rows of data: reading files and hub data sets, with the origin of every row."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import RLock
from typing import Any

from icl_eval.errors import DataError
from icl_eval.formatting import describe_error
from icl_eval.tasks.files import READERS, Rows, open_parquet, require_file, too_many_rows

_HUB_TIMEOUT_S = 5.0
_LOCK = RLock()
"""Held while settings of the library are changed, which all threads share."""


@dataclass(frozen=True)
class DataSource:
    """The location of the rows of one split."""

    path: str
    """A `.jsonl`, `.csv` or `.parquet` file, or a data set: a hub name or a local folder in the hub's layout."""
    name: str | None = None
    """The configuration of a data set that has several (`main` for `gsm8k`); None for files."""
    split: str | None = None
    """The split of a data set (`train`, `test`, `validation[:100]`); None for files."""
    revision: str | None = None
    """The version of a data set of the hub: a commit, a tag or a branch; None for the newest."""
    max_rows: int = 1_000_000
    """Maximum number of rows; reading stops with an error as soon as there are more."""

    @property
    def is_file(self) -> bool:
        """Whether the rows are in one file."""
        return Path(self.path).suffix in READERS


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
    if source.is_file and (source.name or source.split or source.revision):
        raise DataError(
            f"{source.path}: 'name', 'split' and 'revision' are only for data sets, not for files; leave them out"
        )
    read = READERS[Path(source.path).suffix](source.path, source.max_rows) if source.is_file else _read_dataset(source)
    rows: list[Row] = []
    for where, values in read:
        if len(rows) == source.max_rows:
            raise too_many_rows(source.path, source.max_rows)
        rows.append(Row(where, values))
    if not rows:
        raise DataError(f"{source.path}: contains no rows")
    return rows


def _read_dataset(source: DataSource) -> Rows:
    folder = Path(source.path)
    if source.path and folder.exists() and not folder.is_dir():
        raise DataError(f"{source.path}: the name of a file of rows must end in .jsonl, .csv or .parquet")
    if source.split is None:
        raise DataError(
            f"{source.path}: 'split' is missing (a path that does not end in .jsonl, .csv or .parquet is a data set, "
            "and a data set needs a split)"
        )
    with ExitStack() as stack:
        cache = None
        if folder.is_dir():
            _require_files(folder, source)
            # datasets 5.2 would find the rows of another folder of this name, or of this one before it changed
            cache = stack.enter_context(TemporaryDirectory())
        rows = _load_dataset(source, cache)
        if len(rows) > source.max_rows:
            raise too_many_rows(source.path, source.max_rows, len(rows))
        for number, values in enumerate(rows):
            yield f"{source.path}[{source.split}][{number}]", values


def _require_files(folder: Path, source: DataSource) -> None:
    """Raise DataError if the folder contains a file that the library could not finish reading."""
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".parquet":
            open_parquet(str(path), source.max_rows)
        elif path.exists() and not path.is_dir():
            require_file(str(path))


def _load_dataset(source: DataSource, cache: str | None) -> Any:
    import datasets

    is_folder = Path(source.path).is_dir()
    revision = None if is_folder else source.revision  # a folder has only the version that it contains
    with asking_hub(None if is_folder else source.path) as explain:
        try:
            return datasets.load_dataset(
                source.path, name=source.name, split=source.split, revision=revision, cache_dir=cache
            )
        except Exception as error:  # the library can raise anything
            hint = "" if is_folder else "; give a .jsonl, .csv or .parquet file, or a local folder in the hub's layout"
            raise DataError(f"data set {source.path!r} cannot be loaded: {explain(error)}{hint}") from None


@contextmanager
def asking_hub(name: str | None) -> Iterator[Callable[[BaseException], str]]:
    """Let data sets load from the hub if it responds, and otherwise only from the cache, without minutes of retries.

    Args:
        name: A data set of the hub, to see whether it responds; None if the hub is not needed.

    Yields:
        A function that describes an error of the library: its innermost cause is the informative one.
    """
    import datasets

    def explain(error: BaseException) -> str:
        while error.__cause__ is not None:
            error = error.__cause__
        reason = describe_error(error)
        if hub_error is not None and "OfflineModeIsEnabled" in reason:  # the library reports our offline flag
            return f"it is not in the cache, and the hub cannot be reached ({describe_error(hub_error)})"
        return reason

    with _LOCK:
        offline, shows_bars = datasets.config.HF_HUB_OFFLINE, not datasets.are_progress_bars_disabled()
        hub_error = None if name is None or offline else _find_hub_error(name)
        datasets.disable_progress_bars()
        if hub_error is not None:
            datasets.config.HF_HUB_OFFLINE = True
        try:
            yield explain
        finally:
            datasets.config.HF_HUB_OFFLINE = offline
            if shows_bars:
                datasets.enable_progress_bars()


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
