"""Mark the cells that a sweep has launched, so that one whose process dies is noticed.

The sweep marks a cell as queued. The process that computes it marks it as running, holds a lock meanwhile, and removes
the mark at the end. What is marked as running without a lock has died.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from icl_eval.runs.folders import is_in_use
from icl_eval.runs.reports import write_json

_ATTEMPT_FILE = ".attempt.json"
_LOCK_FILE = ".attempt.lock"


@dataclass(frozen=True)
class Attempt:
    """A launched cell that has not ended."""

    state: Literal["queued", "running", "skipped"]
    """A cell is skipped if another run is writing it."""
    pid: int | None = None
    host: str = ""
    job: str = ""
    """The job's id, which the launcher has chosen."""


_ATTEMPT = TypeAdapter(Attempt)


def queue_attempt(folder: Path) -> None:
    """Mark a cell as queued."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(asdict(Attempt("queued")), folder / _ATTEMPT_FILE)


@contextmanager
def attempting(folder: Path, job: str) -> Iterator[None]:
    """Mark a cell as running within a `with` block, if it is marked as queued.

    The mark stays if the block is left by an exception, such as the interruption of a job that the scheduler will start
    again.
    """
    path = folder / _ATTEMPT_FILE
    if not path.exists():
        yield
        return
    with FileLock(folder / _LOCK_FILE):
        write_json(asdict(Attempt("running", os.getpid(), socket.gethostname(), job)), path)
        yield
        if is_in_use(folder):
            write_json(asdict(Attempt("skipped")), path)
        else:
            path.unlink(missing_ok=True)


def read_attempt(folder: Path) -> Attempt | None:
    """Read the mark of a cell; None if the cell has ended."""
    try:
        return _ATTEMPT.validate_json((folder / _ATTEMPT_FILE).read_bytes())
    except FileNotFoundError:
        return None


def is_alive(folder: Path) -> bool:
    """Return whether a process is computing a cell that is marked as running."""
    try:
        with FileLock(folder / _LOCK_FILE).acquire(timeout=0):
            return False
    except Timeout:
        return True


def remove_attempt(folder: Path) -> None:
    """Remove the mark of a cell."""
    for name in (_ATTEMPT_FILE, _LOCK_FILE):
        (folder / name).unlink(missing_ok=True)
