"""Words: what is typed after `icl-eval`, put into the order and the grammar that Hydra takes, or refused.

And the sentences that answer.
"""

import logging
import os
import re
import sys
from collections.abc import Sequence
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
"""Those of Hydra that we pass on, each with the one that it has no effect without.

Others choose another configuration than the command's (`--config-name`) or open a pickle (`--experimental-rerun`), and
argparse would take any beginning of them.
"""


def put_flags_first(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with flags before overrides, as argparse wants them, each in one word with its folder."""
    words: list[str] = []
    for word in arguments:
        if words and words[-1] == _FOLDER_FLAG:
            words[-1] += f"={word}"
        else:
            words.append(re.sub("^-cd(=|$)", rf"{_FOLDER_FLAG}\1", word))
    return sorted(words, key=lambda word: word not in SWEEP_FLAGS and not word.startswith(f"{_FOLDER_FLAG}="))


def gather_folders(key: str, arguments: Sequence[str]) -> list[str]:
    """Return the arguments with those that are folders made one option, so that the others keep Hydra's grammar.

    A run's folder may well have a `=` in its name, but there is no option with a `/` before it.
    """
    folders = [
        word
        for word in arguments
        if not word.startswith("-") and (Path(word).is_dir() or "/" in word.partition("=")[0] or "=" not in word)
    ]
    others = [word for word in arguments if word not in folders]
    if not folders:
        return others
    quoted = ",".join("'" + folder.replace("\\", "\\\\").replace("'", "\\'") + "'" for folder in folders)
    return [*others, f"{key}=[{quoted}]"]


def reject_stray_words(arguments: Sequence[str], commands: Sequence[str], can_sweep: bool) -> None:
    """Refuse what Hydra would take for a command of its own, or ignore.

    Args:
        arguments: What was typed after the command.
        commands: The names of all commands.
        can_sweep: Whether the command takes `-m`.

    Raises:
        ConfigError: Naming the word.
    """
    if not can_sweep and set(SWEEP_FLAGS) & set(arguments):
        raise ConfigError("-m: only evaluations can be swept")
    _reject_unknown_flags(arguments)
    words = [argument for argument in arguments if argument not in SWEEP_FLAGS]
    for word in words:
        if any("\ud800" <= character <= "\udfff" for character in word):  # how Python hands on other bytes
            raise ConfigError(f"{word!r}: is not UTF-8")
    for previous, word in zip(["", *words], words, strict=False):
        if word.isidentifier() and not previous.startswith("-"):
            known = ", ".join(commands)
            raise ConfigError(f"{word!r}: unknown command (known, as the first word: {known}; options are key=value)")


_VALUES = {
    **dict.fromkeys(("-c", "--cfg"), ("job", "hydra", "all")),
    **dict.fromkeys(("-sc", "--shell-completion"), ("install=…", "uninstall=…")),
    **dict.fromkeys(("-p", "--package"), ("model", "task.qa and the like")),
    **dict.fromkeys(("-i", "--info"), ("all", "config", "defaults", "plugins", "searchpath")),
    _FOLDER_FLAG: ("a folder",),
}
"""What must follow a flag."""


def _reject_unknown_flags(arguments: Sequence[str]) -> None:
    given = [word.partition("=")[0] for word in arguments if word.startswith("-")]
    for flag in given:
        if flag not in _FLAGS:
            raise ConfigError(f"{flag}: unknown flag (known: {', '.join(_FLAGS)})")
        if _FLAGS[flag] and not {"-c", "--cfg"} & set(given):
            raise ConfigError(f"{flag}: has no effect without {_FLAGS[flag]}")
    for word, after in zip(arguments, [*arguments[1:], ""], strict=True):
        flag, _, value = word.partition("=")
        if flag in _VALUES and not _follows(flag, value if "=" in word else after):
            raise ConfigError(f"{flag}: must be followed by {' or '.join(_VALUES[flag])}")


def _follows(flag: str, value: str) -> bool:
    """Return whether a value can stand after a flag."""
    if flag in ("-c", "--cfg"):
        return value in _VALUES[flag]
    if flag in ("-sc", "--shell-completion"):
        return value.startswith(("install=", "uninstall=")) or (
            value.startswith("query=") and "COMP_LINE" in os.environ
        )
    if flag in ("-i", "--info"):
        return not value.isidentifier() or value in _VALUES[flag]
    return bool(value) and not value.startswith("-")


def say(sentence: str) -> None:
    """Print a sentence on stderr, in one line and without control characters."""
    print(f"icl-eval: {escape_controls(join_lines(sentence))}", file=sys.stderr)


class LogFormatter(logging.Formatter):
    """Writes out the control characters of what is logged."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as it is printed."""
        return escape_controls(super().format(record))
