"""The standard output, where nobody reads it any more or its disk is full."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from icl_eval.errors import OutputError


@contextmanager
def finished() -> Iterator[None]:
    """Print what is in files already: a reader who has enough is no error, and the files do not fail with the output.

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
    """Let what is still printed go nowhere, and what Python holds back for the output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
