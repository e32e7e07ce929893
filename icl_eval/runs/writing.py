"""Writing: files that are there whole or not at all, errors that name them, and folders that stay where they were."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from icl_eval.errors import IclEvalError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the operating system name the file: where a write fails, it names none."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def write_whole(content: str, path: Path) -> None:
    """Write a text file, at once or not at all; an error names the file and leaves nothing beside it.

    Raises:
        OSError: When it cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    with naming(path):
        try:
            temporary.write_text(content, encoding="utf-8", newline="")
            temporary.replace(path)
        except BaseException:
            _remove(temporary)
            raise


def _remove(path: Path) -> None:
    """Remove what may be there; the error that is under way says more than a second one would."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


@dataclass(frozen=True)
class Held:
    """A file that this process holds open, and that no other file may replace."""

    path: Path
    identity: tuple[int, int]
    """Device and inode, which no new file can get while this one is open."""

    @classmethod
    def at(cls, path: Path) -> Self:
        """Return the file that is at a path now."""
        return cls(path, _identity(path))

    def require_in_place(self) -> None:
        """Check that the file is still the one at its path.

        Raises:
            IclEvalError: When it, or a folder that it lies in, was removed, moved or replaced.
        """
        try:
            is_same = _identity(self.path) == self.identity
        except (FileNotFoundError, NotADirectoryError):
            is_same = False
        if not is_same:
            raise IclEvalError(
                f"{self.path} was removed, moved or replaced while this run was writing into {self.path.parent}; "
                "the same command starts it again"
            )


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
