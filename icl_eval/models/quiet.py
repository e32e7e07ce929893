"""Limit what transformers prints on the terminal."""

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
    from transformers.utils import logging

    with _LOCK:
        if not _OPEN:
            _FOUND.update(verbosity=logging.get_verbosity(), bars=logging.is_progress_bar_enabled())
        _OPEN.append(reports)
        logging.disable_progress_bar()
        if not reports:
            logging.set_verbosity_error()
    try:
        yield
    finally:
        with _LOCK:
            _OPEN.remove(reports)
            if all(_OPEN):
                logging.set_verbosity(_FOUND["verbosity"])
            if not _OPEN and _FOUND["bars"]:
                logging.enable_progress_bar()
