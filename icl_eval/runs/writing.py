"""Write files atomically, name them in errors, and detect when they are moved."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from icl_eval.errors import IclEvalError


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Add the file's name to operating system errors, which lack it when a write fails."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def write_whole(content: str, path: Path) -> None:
    """Write a text file atomically; see `write_parts`."""
    write_parts((content,), path)


def write_parts(parts: Iterable[str], path: Path) -> None:
    """Write a text file atomically, part by part; a failed write leaves no temporary file behind.

    Raises:
        OSError: If the file cannot be written. The error names the file.
    """
    temporary = path.with_name(path.name + ".tmp")
    with naming_file(path):
        try:
            with temporary.open("w", encoding="utf-8", newline="") as file:
                file.writelines(parts)
            temporary.replace(path)
        except BaseException:
            _remove(temporary)
            raise


def _remove(path: Path) -> None:
    """Remove a file if it exists, without raising an error that would hide the original one."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


@dataclass(frozen=True)
class HeldFile:
    """A file that this process keeps open, and that must not be moved or replaced."""

    path: Path
    identity: tuple[int, int]
    """Device and inode, which no new file can have while this one is open."""

    @classmethod
    def at(cls, path: Path) -> Self:
        """Return the file currently at a path."""
        return cls(path, _identify(path))

    def require_in_place(self) -> None:
        """Check that the file is still the one at its path.

        Raises:
            IclEvalError: If the file or one of its parent folders was removed, moved or replaced.
        """
        try:
            is_same = _identify(self.path) == self.identity
        except (FileNotFoundError, NotADirectoryError):
            is_same = False
        if not is_same:
            raise IclEvalError(
                f"{self.path} was removed, moved or replaced while this run was writing into {self.path.parent}; "
                "repeat the command to start again"
            )


def _identify(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
