"""Turn operating system errors into one-line messages that name the file, with an exit code."""

import errno
import os
import sys
import traceback

from icl_eval.errors import IclEvalError, OutputError, UserError
from icl_eval.reporting.output import silence_output

_USERS = (
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG),
    *(errno.EROFS, errno.ELOOP),
)
"""Errors that the user can fix by choosing another path."""
_SAVERS = ("hydra.core.utils", "omegaconf.omegaconf")
"""Modules that save configurations through a local variable called `file`."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def summarize_error(error: BaseException) -> IclEvalError | None:
    """Return the one-line error to report; None if the error is unexpected and needs a traceback.

    An error without a file name comes from stdout: everything else that the package writes names its file.
    """
    if isinstance(error, IclEvalError):
        return error
    if not isinstance(error, OSError) or error.errno not in (*_USERS, *_FULL, errno.EPIPE):
        return None
    if file := error.filename or _file_of_hydra(error):
        kind = IclEvalError if error.errno in _FULL else UserError
        return kind(f"{file}: cannot be read or written ({error.strerror})")
    silence_output()
    return OutputError("" if error.errno == errno.EPIPE else f"output cannot be written ({error.strerror})")


def _file_of_hydra(error: BaseException) -> str | None:
    """Return the file to which Hydra was saving a configuration, because Hydra's error does not name it."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__") in _SAVERS and "file" in frame.f_locals:
            return str(frame.f_locals["file"].name)
    return None


def open_standard_files() -> None:
    """Open the null device for each closed standard stream, so that no other file gets its descriptor."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w"))
