"""Owns what transformers may say on the terminal while it works for us."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_transformers(reports: bool = True) -> Iterator[None]:
    """Hide progress bars, which flash by and stay behind; without `reports`, warnings about weights as well."""
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
