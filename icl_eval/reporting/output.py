"""Handle a standard output that is closed or cannot be written to."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from icl_eval.errors import OutputError


@contextmanager
def ignore_closed_output() -> Iterator[None]:
    """Print results that are already saved in files, ignoring a closed pipe.

    Raises:
        OutputError: When the output cannot be written for another reason.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        silence_output()
        if not isinstance(error, BrokenPipeError):
            raise OutputError(f"output cannot be written ({error.strerror})") from error


def silence_output() -> None:
    """Discard all further output, including what Python has buffered."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
