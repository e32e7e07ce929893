"""The exceptions and warnings of `icl_eval`, each with a message of one readable sentence.

    IclEvalError                     the run itself failed                       exit code 1
     ├─ OutputError                  results could not be printed
     ├─ WorkerDiedError              the process that computed a cell of a sweep was killed
     └─ UserError                    the user asked for something impossible     exit code 2
         ├─ ConfigError              an option is unknown, has the wrong type or contradicts another one
         ├─ DataError                a data file is invalid; the message says where and what is expected
         ├─ ModelUnavailableError    weights cannot be found or fetched, or are not trusted
         ├─ PromptTooLongError       a prompt does not fit into the model's context
         └─ FingerprintMismatchError a run folder belongs to another configuration
             └─ FolderInUseError     another run is writing to the run folder

The command line prints only the message; a Python caller catches the type.
"""

import logging
from functools import cache

logger = logging.getLogger(__name__)


class IclEvalError(Exception):
    """Base class of all errors that `icl_eval` raises on purpose.

    >>> issubclass(icl_eval.UserError, icl_eval.IclEvalError)
    True
    """

    exit_code = 1


class OutputError(IclEvalError):
    """Standard output cannot be written to; the results are in their files."""


class WorkerDiedError(IclEvalError):
    """The process that computed a cell of a sweep was killed, or its machine failed."""


class UserError(IclEvalError):
    """Base class of errors that the user can fix, such as a wrong option or a damaged file.

    >>> try:
    ...     icl_eval.preview(num_fewshot=-1)
    ... except icl_eval.UserError as error:
    ...     print(error)
    num_fewshot=-1: must be 0 or more
    """

    exit_code = 2


class ConfigError(UserError):
    """An option is unknown, has the wrong type, or contradicts another one."""


class DataError(UserError):
    """A data file cannot be read, or one of its rows is not what the task expects."""


class ModelUnavailableError(UserError):
    """The weights cannot be found, fetched or read, or are not trusted."""


class PromptTooLongError(UserError):
    """A prompt and its completion do not fit into the model's context."""


class FingerprintMismatchError(UserError):
    """A run folder contains records of another configuration."""


class FolderInUseError(FingerprintMismatchError):
    """Another run is writing to the run folder."""


@cache
def warn_once(sentence: str) -> None:
    """Log a warning once in this process, not again in every cell of a sweep."""
    logger.warning(sentence)
