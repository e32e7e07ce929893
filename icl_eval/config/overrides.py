"""Overrides: what a user's `key=value` says, put right or refused before Hydra composes anything from it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString, Sweep
from hydra.errors import HydraException

from icl_eval.config.schema import takes_text, takes_texts
from icl_eval.errors import ConfigError
from icl_eval.formatting import written

_GROUPS_THAT_ADD_UP = ("task", "metrics", "experiment")
"""Groups of which a list can be chosen; of any other, Hydra would lay one over the other without a word."""
SWEEP_FLAGS = ("-m", "--multirun")
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\([nt])")
_ESCAPED = {"n": "\n", "t": "\t"}
_FOLDERS_OF_RUNS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")


def is_override(word: str) -> bool:
    """Return whether a word of the command line changes the configuration, and is no flag nor what follows one."""
    return "=" in word and not word.startswith("-")


def is_sweep(word: str) -> bool:
    """Return whether an override has several values of which a sweep takes one at a time; False where it is invalid."""
    try:
        return _parse(word).is_sweep_override()
    except HydraException:
        return False


def added_folders(words: Sequence[str]) -> list[Path]:
    """Return the folders of configs that the words of a command line add to ours; raises HydraException."""
    folders = []
    for word in words:
        if word.startswith("--config-dir="):
            folders.append(word.partition("=")[2])
        elif word.startswith("hydra.searchpath="):
            value = _parse(word).value()
            folders += [place for place in value if isinstance(place, str)] if isinstance(value, list) else []
    return [Path(folder.removeprefix("file://")) for folder in folders]


def read_overrides(words: Sequence[str], schema: type, folders: Sequence[Path]) -> list[str]:
    r"""Return the words of a command line, with quotes around each text that Hydra would take for something else.

    Between double quotes `\n` and `\t` become a line break and a tab, as in YAML.

    Args:
        words: Overrides, and flags, which stay as they are.
        schema: Of the configuration that they change.
        folders: Where configs are, ours and the user's.

    Raises:
        HydraException: When an override is not in Hydra's grammar.
        ConfigError: When a value is none that its key can have.
    """
    sweeps = not set(SWEEP_FLAGS).isdisjoint(words)
    return [_read(word, schema, folders, sweeps) if is_override(word) else word for word in words]


def _read(word: str, schema: type, folders: Sequence[Path], sweeps: bool) -> str:
    key, _, text = word.partition("=")
    quoted = f"{key}={QuotedString(text, Quote.single).with_quotes()}"
    try:
        override = _parse(word)
    except HydraException:
        if takes_text(schema, key.lstrip("+")):
            return quoted
        raise
    name, value = override.key_or_group, override.value()
    if any((folder / name).is_dir() for folder in folders):
        _require_names(word, override, folders)
    elif takes_text(schema, name) and isinstance(value, int | float):
        return f"{key}='{text.strip()}'"
    elif takes_text(schema, name) and not sweeps and isinstance(value, dict | Sweep):
        return quoted
    elif takes_texts(schema, name) and isinstance(value, list):
        _require_texts(key, value)
    elif name in _FOLDERS_OF_RUNS and not value:
        raise ConfigError(f"{word}: must be the name of a folder")
    return _QUOTED.sub(_unescape, word)


def _unescape(quoted: re.Match[str]) -> str:
    return _ESCAPE.sub(lambda found: found[1] + _ESCAPED[found[2]], quoted[0]) if quoted[0][0] == '"' else quoted[0]


def _parse(word: str) -> Override:
    return OverridesParser.create().parse_overrides([word])[0]


def _require_names(word: str, override: Override, folders: Sequence[Path]) -> None:
    """Refuse a choice that is no config's name, nor a list of them where they add up."""
    value, group = override.value(), override.key_or_group
    choices = value.list if isinstance(value, ChoiceSweep) else [value]
    if override.is_delete() or isinstance(value, dict) or (override.is_sweep_override() and choices == [value]):
        return
    adds_up = group in _GROUPS_THAT_ADD_UP
    for choice in choices:
        names = choice if adds_up and isinstance(choice, list) else [choice]
        if not all(isinstance(name, str | QuotedString) for name in names):
            known = sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})
            also = f", or a list such as [{known[0]}]" if adds_up else ""
            raise ConfigError(f"{word}: must be one of {', '.join(known)}{also}")


def _require_texts(key: str, value: list[Any]) -> None:
    for text in value:
        if not isinstance(text, str):  # Hydra reads 1_000 as 1000
            raise ConfigError(
                f'{key}: {written(text)} in the list is no text; quote such texts: {key}=\'["1_000","1.10"]\''
            )
