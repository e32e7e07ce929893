"""The exceptions of `icl_eval`, all of them one readable sentence.

    IclEvalError                     the run itself failed                       exit code 1
     ├─ OutputError                  what was found could not be printed
     └─ UserError                    the user asked for something impossible     exit code 2
         ├─ ConfigError              an option: unknown, of the wrong type, or at odds with another
         ├─ DataError                a data file: where it is wrong and what was expected
         ├─ ModelUnavailableError    weights that cannot be found, fetched or trusted
         ├─ PromptTooLongError       a prompt that does not fit into the model
         └─ FingerprintMismatchError a run folder that belongs to another configuration
             └─ FolderInUseError     a run folder that another run is writing

The command line prints the sentence and nothing else; a Python caller catches the type.
"""


class IclEvalError(Exception):
    """Base class of everything `icl_eval` raises on purpose.

    >>> issubclass(icl_eval.UserError, icl_eval.IclEvalError)
    True
    """

    exit_code = 1


class OutputError(IclEvalError):
    """The standard output takes nothing; what was computed is in its files."""


class UserError(IclEvalError):
    """Base class of the errors that a user mends by asking for something else.

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
    """The weights cannot be found or fetched, or are of a kind that is not trusted."""


class PromptTooLongError(UserError):
    """A prompt and its completion do not fit into the model's context."""


class FingerprintMismatchError(UserError):
    """A run folder holds records of another configuration."""


class FolderInUseError(FingerprintMismatchError):
    """A run folder is being written by another run."""
