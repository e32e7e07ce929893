"""Runs on disk: finding finished run folders again, and what each of them is made of."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_eval.errors import DataError
from icl_eval.runs.choices import flatten_options
from icl_eval.runs.records import Record, read_records
from icl_eval.runs.reports import Report, read_report

REPORT_FILE = "report.json"
FAILURE_FILE = "error.json"
"""What a cell of a sweep that failed leaves in place of a report."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and what it found."""

    folder: Path
    report: Report

    def records(self, task: str) -> list[Record]:
        """Read the records of one of its tasks, in the order of the data set.

        Raises:
            DataError: When they are not there, or not all of them are.
        """
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
def leaving_out() -> Iterator[None]:
    """Warn of something that cannot be read, where the rest can do without it."""
    try:
        yield
    except DataError as error:
        logger.warning("%s; left out", error)
