"""Runs on disk: finding finished run folders again, and what each of them is made of."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout

from icl_eval.errors import DataError, FolderInUseError
from icl_eval.formatting import describe_error, format_score
from icl_eval.runs.choices import flatten_options
from icl_eval.runs.records import Record, read_records
from icl_eval.runs.reports import Report, read_report
from icl_eval.runs.writing import Held

REPORT_FILE = "report.json"
FAILURE_FILE = "error.json"
"""What a cell of a sweep that failed leaves in place of a report."""
_LOCK_FILE = ".lock"
_PATIENCE = 0.2
"""Seconds after which a lock is that of a run, and not of somebody who asks for one."""

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run: its folder and what it found."""

    folder: Path
    report: Report

    def records(self, task: str) -> list[Record]:
        """Read the records of one of its tasks, in the order of the data set.

        Raises:
            DataError: When the run has no such task, or its records are not all there.
        """
        if task not in self.report.results:
            known = ", ".join(self.report.results)
            raise DataError(f"{self.folder}: this run has no task {task!r} (it has: {known})")
        path = self.folder / f"samples_{task}.jsonl"
        if not path.exists():
            raise DataError(f"{path}: no such file, but {self.folder / REPORT_FILE} has scores of it")
        records = read_records(path)
        expected = self.report.results[task].n
        if len(records) != expected:
            raise DataError(f"{path}: {len(records)} records, but {self.folder / REPORT_FILE} is about {expected}")
        return records

    @property
    def options(self) -> dict[str, Any]:
        """The whole configuration, flat: `{"order": "random", "order.seed": 0, …}`."""
        return flatten_options(self.report.provenance.config)

    @property
    def overrides(self) -> tuple[str, ...]:
        """What was asked for, as `key=value`."""
        return self.report.provenance.overrides or read_overrides(self.folder)

    @property
    def scores(self) -> "pandas.DataFrame":
        """The scores as a data frame: a row for each metric of each task.

        Columns are `task`, `n`, `metric`, `score`, `stderr`, `ci_low`, `ci_high`, `higher_is_better` and `signature`.
        """
        import pandas

        return pandas.DataFrame(
            {"task": task, "n": result.n, "metric": metric, **found.as_columns()}
            for task, result in self.report.results.items()
            for metric, found in result.metrics.items()
        )

    def __repr__(self) -> str:
        scores = (
            f"{task} {metric} {format_score(found.score)}"
            for task, result in self.report.results.items()
            for metric, found in result.metrics.items()
        )
        return f"<Run {self.folder}: {', '.join(scores)}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the scores, without their signatures."""
        return str(self.scores.drop(columns="signature").to_html(index=False, float_format=format_score, na_rep=""))


def read_overrides(folder: Path) -> tuple[str, ...]:
    """Read the overrides that Hydra left in a run's folder; none where it left none.

    Raises:
        DataError: When the file holds something else.
    """
    path = folder / ".hydra" / "overrides.yaml"
    if not path.exists():
        return ()
    try:
        return tuple(map(str, yaml.safe_load(path.read_bytes()) or ()))
    except (OSError, TypeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: not a list of overrides ({describe_error(error)})") from None


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        DataError: When there is no finished run in it.
    """
    path = folder / REPORT_FILE
    if not path.exists():
        found = "no finished run in it (report.json is missing)" if folder.is_dir() else "no such folder"
        raise DataError(f"{folder}: {found}")
    return Run(folder, read_report(path))


def find_runs(root: Path) -> list[Run]:
    """Read all finished runs in a folder and below it, in the order of their names.

    A report that is none of ours is left out with a warning that names it.

    Raises:
        DataError: When there is no such folder.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    runs = []
    for path in sorted(root.rglob(REPORT_FILE)):
        with leaving_out():
            runs.append(read_run(path.parent))
    return runs


@contextmanager
def holding(folder: Path, patience: float = _PATIENCE) -> Iterator[Held]:
    """Keep other runs out of a folder; yield its lock, which also shows whether the folder is still in its place.

    Args:
        folder: Which has to exist.
        patience: How many seconds to wait for another run; -1 for as long as it takes.

    Raises:
        FolderInUseError: When another run holds it.
    """
    path = folder / _LOCK_FILE
    try:
        lock = FileLock(path).acquire(timeout=patience)
    except Timeout:
        raise FolderInUseError(f"{folder} is being written by another run") from None
    with lock:
        yield Held.at(path)


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
def leaving_out() -> Iterator[None]:
    """Warn of something that cannot be read, where the rest can do without it."""
    try:
        yield
    except DataError as error:
        logger.warning("%s; left out", error)
