"""Keep models in the user's cache folder; one process makes each model, once and completely.

A model is made in `KEY.partial` and renamed to `KEY` when it is complete, all under a lock. Neither two runs that start
at the same time nor a run that is killed halfway leave a broken folder.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from icl_eval.errors import ModelUnavailableError

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return `$ICL_EVAL_CACHE`, else `$XDG_CACHE_HOME/icl_eval`, else `~/.cache/icl_eval`."""
    if chosen := os.environ.get("ICL_EVAL_CACHE"):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "icl_eval"


def get_or_make(key: str, make: Callable[[Path], None]) -> Path:
    """Return the folder `key` of the cache, after calling `make` to fill it if it does not exist yet."""
    final = cache_folder() / key
    if final.is_dir():
        return final
    try:
        with _locked(final):
            if not final.is_dir():  # another run may have made it in the meantime
                _make_whole(final, make)
    except OSError as error:
        raise ModelUnavailableError(
            f"the cache folder {cache_folder()} cannot be written ({error.strerror or error}): "
            "set ICL_EVAL_CACHE to a writable folder with room for the model"
        ) from error
    return final


@contextmanager
def _locked(final: Path) -> Iterator[None]:
    final.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(final.with_name(f"{final.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("waiting for another run that is preparing %s", final)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make_whole(final: Path, make: Callable[[Path], None]) -> None:
    partial = final.with_name(f"{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
    partial.mkdir()
    try:
        make(partial)
        partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
