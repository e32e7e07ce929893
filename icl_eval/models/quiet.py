"""Limit what transformers prints on the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_transformers(reports: bool = True) -> Iterator[None]:
    """Hide the progress bars of transformers and, unless `reports` is set, its warnings about weights, too."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    if not reports:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
