"""Rearrange the arguments of `icl-eval` for Hydra or reject them, and print messages to stderr."""

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path

from icl_eval.config.overrides import SWEEP_FLAGS
from icl_eval.errors import ConfigError
from icl_eval.formatting import escape_controls, join_lines

_FOLDER_FLAG = "--config-dir"
_FLAGS = {
    **dict.fromkeys(("-h", "--help", "--hydra-help", "--version", "-r", "--run", "-i", "--info"), ""),
    **dict.fromkeys(("-c", "--cfg", _FOLDER_FLAG, "-sc", "--shell-completion", *SWEEP_FLAGS), ""),
    **dict.fromkeys(("-p", "--package", "--resolve"), "--cfg"),
}
"""Hydra's flags that are allowed, each with the flag that it requires, if any.

The others choose a configuration other than the command's (`--config-name`) or load a pickle (`--experimental-rerun`).
They are rejected here because argparse would accept any prefix of them.
"""

_HELP = {"-h", "--help", "--hydra-help"}


def put_flags_first(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with flags first, as argparse requires, and `--config-dir` joined to its value."""
    words: list[str] = []
    for word in arguments:
        if words and words[-1] == _FOLDER_FLAG:
            words[-1] += f"={word}"
        else:
            words.append(re.sub("^-cd(=|$)", rf"{_FOLDER_FLAG}\1", word))
    return sorted(words, key=lambda word: word not in SWEEP_FLAGS and not word.startswith(f"{_FOLDER_FLAG}="))


def gather_folders(key: str, arguments: Sequence[str]) -> list[str]:
    """Return the arguments with all folders gathered into one option, so that Hydra can parse the rest.

    The name of a run's folder may contain `=`, but no option has a `/` before its `=`.

    Raises:
        ConfigError: If one of them does not exist, and no help is asked for.
    """
    is_wanted = Path.exists if key == "paths" else Path.is_dir
    folders: list[str] = []
    others: list[str] = []
    for previous, word in zip(["", *arguments], arguments, strict=False):
        is_free = bool(word) and not word.startswith("-") and previous not in _VALUES
        is_folder = is_free and (_passes(word, is_wanted) or "/" in word.partition("=")[0] or "=" not in word)
        (folders if is_folder else others).append(word)
    if not folders:
        return others
    for folder in folders:
        if not _passes(folder, Path.exists) and _HELP.isdisjoint(others):
            raise ConfigError(f"{folder}: no such {'file or folder' if key == 'paths' else 'folder'}")
    quoted = ",".join("'" + folder.replace("\\", "\\\\").replace("'", "\\'") + "'" for folder in folders)
    return [*others, f"{key}=[{quoted}]"]


def _passes(word: str, test: Callable[[Path], bool]) -> bool:
    try:
        return test(Path(word))
    except OSError:  # longer than a name can be
        return False


def reject_stray_words(arguments: Sequence[str], commands: Sequence[str], can_sweep: bool) -> None:
    """Reject arguments that Hydra would misunderstand or ignore.

    Args:
        arguments: The arguments after the command.
        commands: The names of all commands.
        can_sweep: Whether the command takes `-m`.

    Raises:
        ConfigError: If an argument is rejected. The message names it.
    """
    if not can_sweep and set(SWEEP_FLAGS) & set(arguments):
        raise ConfigError("-m: only evaluations can be swept")
    _reject_unknown_flags(arguments)
    words = [argument for argument in arguments if argument not in SWEEP_FLAGS]
    for word in words:
        if not word:
            raise ConfigError("'': an empty argument; must be a folder or key=value")
        if any("\ud800" <= character <= "\udfff" for character in word):  # Python's stand-ins for invalid bytes
            raise ConfigError(f"{word!r}: not valid UTF-8")
    for previous, word in zip(["", *words], words, strict=False):
        if word.isidentifier() and not previous.startswith("-"):
            known = ", ".join(commands)
            raise ConfigError(f"{word!r}: unknown command (known, as the first word: {known}; options are key=value)")


_VALUES = {
    **dict.fromkeys(("-c", "--cfg"), ("job", "hydra", "all")),
    **dict.fromkeys(("-sc", "--shell-completion"), ("install=…", "uninstall=…")),
    **dict.fromkeys(("-p", "--package"), ("a package such as model", "task.qa")),
    **dict.fromkeys(("-i", "--info"), ("all", "config", "defaults", "plugins", "searchpath")),
    _FOLDER_FLAG: ("a folder",),
}
"""The values that a flag requires."""


def _reject_unknown_flags(arguments: Sequence[str]) -> None:
    given = [word.partition("=")[0] for word in arguments if word.startswith("-")]
    for flag in given:
        if flag not in _FLAGS:
            raise ConfigError(f"{flag}: unknown flag (known: {', '.join(_FLAGS)})")
        if _FLAGS[flag] and not {"-c", "--cfg"} & set(given):
            raise ConfigError(f"{flag}: has no effect without {_FLAGS[flag]}")
    for word, after in zip_longest(arguments, arguments[1:], fillvalue=""):
        flag, _, value = word.partition("=")
        if flag in _VALUES and not _accepts(flag, value if "=" in word else after):
            raise ConfigError(f"{flag}: must be followed by {' or '.join(_VALUES[flag])}")


def _accepts(flag: str, value: str) -> bool:
    """Return whether a flag accepts a value."""
    if flag in ("-c", "--cfg"):
        return value in _VALUES[flag]
    if flag in ("-sc", "--shell-completion"):
        return value.startswith(("install=", "uninstall=")) or (
            value.startswith("query=") and "COMP_LINE" in os.environ
        )
    if flag in ("-i", "--info"):
        return not value.isidentifier() or value in _VALUES[flag]
    return bool(value) and not value.startswith("-")


def require_direct(cell: Path, sweep: Path) -> None:
    """Reject a folder of a cell that is not directly inside the sweep's folder.

    Raises:
        ConfigError: If it is rejected.
    """
    if cell.parent.resolve() != sweep.resolve():
        raise ConfigError(f"hydra.sweep.subdir: must put each cell directly into {sweep}, not into {cell.absolute()}")


def say(sentence: str) -> None:
    """Print a sentence to stderr, on one line and with control characters escaped."""
    print(f"icl-eval: {escape_controls(join_lines(sentence))}", file=sys.stderr)


class LogFormatter(logging.Formatter):
    """Escapes control characters in log messages."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a log record as the string to print."""
        return escape_controls(super().format(record))
