"""Find, read and lock run folders."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout

from icl_eval.errors import DataError, FolderInUseError
from icl_eval.formatting import describe_error, format_score
from icl_eval.runs.choices import flatten_options
from icl_eval.runs.records import Record, stream_records
from icl_eval.runs.reports import Report, read_report
from icl_eval.runs.writing import HeldFile, write_whole

FINGERPRINT_FILE = "fingerprint.json"
"""The file with the identity of a run."""
REPORT_FILE = "report.json"
PAGE_FILE = "report.html"
FAILURE_FILE = "error.json"
"""The file that a failed cell of a sweep writes instead of a report."""
_LOCK_FILE = ".lock"
_TIMEOUT = 0.2
"""Seconds to wait for a lock. The checks of `is_in_use` hold it for less than that."""
_SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The fastest loader of plain YAML; the one in C is missing where PyYAML was installed without its library."""

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run: its folder and its report."""

    folder: Path
    report: Report
    was_finished: bool = False
    """Whether an earlier start had finished it, so that nothing was computed."""

    def records(self, task: str) -> list[Record]:
        """Read the records of one of its tasks, in the order of the data set.

        Raises:
            DataError: If the run has no such task, or some of its records are missing.
        """
        return list(self.stream_records(task))

    def stream_records(self, task: str, prompts: bool = True) -> Iterator[Record]:
        """Yield the records of one of its tasks one at a time, in the order of the data set.

        Args:
            task: The name of the task.
            prompts: Whether records have their prompts and demonstrations, most of the time and memory of reading.

        Raises:
            DataError: If the run has no such task, or some of its records are missing, which shows at the end.
        """
        path = self.records_path(task)
        count = 0
        for record in stream_records(path, prompts):
            yield record
            count += 1
        expected = self.report.results[task].n
        if count != expected:
            raise DataError(f"{path}: has {count} records, but {self.folder / REPORT_FILE} reports {expected}")

    def records_path(self, task: str) -> Path:
        """Return the path of the file with the records of one of its tasks.

        Raises:
            DataError: If the run has no such task, or no such file.
        """
        if task not in self.report.results:
            known = ", ".join(self.report.results)
            raise DataError(f"{self.folder}: this run has no task {task!r} (it has: {known})")
        path = self.folder / name_records(task)
        if not path.exists():
            raise DataError(f"{path}: no such file, but {self.folder / REPORT_FILE} has scores for it")
        return path

    @property
    def finished(self) -> datetime:
        """When the run ended, in UTC: as the report says, or else when it was written."""
        if self.report.timing.finished is None:
            return datetime.fromtimestamp((self.folder / REPORT_FILE).stat().st_mtime, UTC)
        return datetime.fromisoformat(self.report.timing.finished)

    @property
    def options(self) -> dict[str, Any]:
        """The whole configuration as a flat mapping: `{"order": "random", "order.seed": 0, …}`."""
        return flatten_options(self.report.provenance.config)

    @property
    def overrides(self) -> tuple[str, ...]:
        """The overrides of the run, as `key=value`."""
        return self.report.provenance.overrides or read_overrides(self.folder)

    @property
    def scores(self) -> "pandas.DataFrame":
        """The scores as a data frame, with a row for each metric of each task.

        Columns are `task`, `n`, `metric`, `score`, `stderr`, `ci_low`, `ci_high`, `higher_is_better` and `signature`.
        """
        import pandas

        return pandas.DataFrame(self.score_rows())

    def score_rows(self) -> list[dict[str, Any]]:
        """Return the rows of `scores` as mappings."""
        return [
            {"task": task, "n": result.n, "metric": metric, **score.as_columns()}
            for task, result in self.report.results.items()
            for metric, score in result.metrics.items()
        ]

    def __repr__(self) -> str:
        scores = (
            f"{task} {metric} {format_score(score.score)}"
            for task, result in self.report.results.items()
            for metric, score in result.metrics.items()
        )
        return f"<Run {self.folder}: {', '.join(scores)}>"

    def _repr_html_(self) -> str:
        """Return the scores without their signatures, as a notebook shows them."""
        return str(self.scores.drop(columns="signature").to_html(index=False, float_format=format_score, na_rep=""))


def name_records(task: str) -> str:
    """Return the name of the file with the records of a task."""
    return f"samples_{task}.jsonl"


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file; raises OSError and yaml.YAMLError."""
    return yaml.load(path.read_bytes(), Loader=_SAFE_LOADER)


def read_overrides(folder: Path) -> tuple[str, ...]:
    """Read the overrides that Hydra saved in a run's folder; return an empty tuple if there is no such file.

    Raises:
        DataError: If the file is not a list of overrides.
    """
    path = folder / ".hydra" / "overrides.yaml"
    if not path.exists():
        return ()
    try:
        return tuple(map(str, read_yaml(path) or ()))
    except (OSError, TypeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: not a list of overrides ({describe_error(error)})") from None


def is_cell(folder: Path) -> bool:
    """Return whether Hydra ran in a folder as one cell of a sweep, whose `sweep.html` lies beside the folder."""
    path = folder / ".hydra" / "hydra.yaml"
    try:
        return bool(read_yaml(path)["hydra"]["mode"] == "MULTIRUN")
    except (OSError, LookupError, TypeError, yaml.YAMLError):
        return False


def write_overrides(folder: Path, overrides: Sequence[str]) -> None:
    """Write the file that `read_overrides` reads, unless Hydra has."""
    path = folder / ".hydra" / "overrides.yaml"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        write_whole(yaml.safe_dump(list(overrides)), path)


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        DataError: If the folder does not exist or contains no finished run.
    """
    path = folder / REPORT_FILE
    if not path.exists():
        reason = "contains no finished run (report.json is missing)" if folder.is_dir() else no_folder(folder)
        raise DataError(f"{folder}: {reason}")
    return Run(folder, read_report(path))


def no_folder(path: Path) -> str:
    """Return the phrase that says why a path is no folder."""
    return "is a file; must be a folder" if path.exists() else "no such folder"


def find_runs(root: Path) -> list[Run]:
    """Read all finished runs in a folder and its subfolders, sorted by path.

    A report that cannot be read is skipped with a warning that names it.

    Raises:
        DataError: If the folder does not exist.
    """
    if not root.is_dir():
        raise DataError(f"{root}: {no_folder(root)}")
    runs = []
    for path in sorted(root.rglob(REPORT_FILE)):
        with skipping_unreadable():
            runs.append(read_run(path.parent))
    return runs


@contextmanager
def locking(folder: Path, timeout: float = _TIMEOUT) -> Iterator[HeldFile]:
    """Lock a folder against other runs, and yield the lock file, which can tell whether the folder was moved.

    Args:
        folder: An existing folder.
        timeout: Seconds to wait for another run; -1 to wait indefinitely.

    Raises:
        FolderInUseError: If another run holds the lock.
    """
    path = folder / _LOCK_FILE
    try:
        lock = FileLock(path).acquire(timeout=timeout)
    except Timeout:
        raise FolderInUseError(f"{folder} is being written by another run") from None
    with lock:
        yield HeldFile.at(path)


def is_in_use(folder: Path) -> bool:
    """Return whether a run is writing into a folder."""
    if not (folder / _LOCK_FILE).exists():
        return False
    try:
        with FileLock(folder / _LOCK_FILE).acquire(timeout=0):
            return False
    except Timeout:
        return True


@contextmanager
def skipping_unreadable() -> Iterator[None]:
    """Turn a DataError into a warning, so that the remaining files are still read."""
    try:
        yield
    except DataError as error:
        logger.warning("%s; left out", error)
