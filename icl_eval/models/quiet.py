"""Limit what transformers and quantization libraries print on the terminal."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_LOCK = Lock()
_OPEN: list[bool] = []
"""The `reports` of every open block, since blocks of several threads overlap."""
_FOUND: dict[str, int] = {}
"""The settings before the first of them."""


@contextmanager
def quiet_transformers(reports: bool = True) -> Iterator[None]:
    """Hide the progress bars of transformers and, unless `reports` is set, its warnings about weights, too."""
    from transformers.utils import logging as library

    with _LOCK:
        if not _OPEN:
            _FOUND.update(verbosity=library.get_verbosity(), bars=library.is_progress_bar_enabled())
        _OPEN.append(reports)
        library.disable_progress_bar()
        if not reports:
            library.set_verbosity_error()
    try:
        yield
    finally:
        with _LOCK:
            _OPEN.remove(reports)
            if all(_OPEN):
                library.set_verbosity(_FOUND["verbosity"])
            if not _OPEN and _FOUND["bars"]:
                library.enable_progress_bar()


class Once(logging.Filter):
    """Lets each message of a logger pass once, where a library would repeat it in every layer."""

    def __init__(self) -> None:
        super().__init__()
        self._passed: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record has a new message."""
        message = record.getMessage()
        is_new = message not in self._passed
        self._passed.add(message)
        return is_new
