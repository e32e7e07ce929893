"""Overrides: what a user's `key=value` says, put right or refused before Hydra composes anything from it."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, Quote, QuotedString, Sweep
from hydra.errors import HydraException

from icl_eval.config.schema import Texts, is_string, leaves, takes_text, type_of
from icl_eval.errors import ConfigError
from icl_eval.formatting import format_value

_GROUPS_THAT_ADD_UP = ("task", "metrics", "experiment")
"""Groups of which a list can be chosen; of any other, Hydra would lay one over the other without a word."""
_NULL = re.compile(r"(?<![^=,(])\s*null\s*(?![^,)])")
"""As the name of a config, which Hydra takes as a string alone."""
SWEEP_FLAGS = ("-m", "--multirun")
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_BACKSLASHES = re.compile(rf"({_QUOTED.pattern})|(\\+)([()\[\]{{}}:=,\s]?)", re.DOTALL)
"""Outside quotes, with the character after them if Hydra has a use for it."""
_CHOICE = re.compile(rf"(?:{_QUOTED.pattern}|\\.|[^,])+", re.DOTALL)
_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\([nt])")
_ESCAPED = {"n": "\n", "t": "\t"}
_MAX_CELLS = 10_000
"""Of a sweep; Hydra composes all of them before the first begins."""
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
    """Return the folders of configs that the words of a command line add to ours.

    Raises:
        HydraException: When a word is not in Hydra's grammar.
        ConfigError: When a place is no folder.
    """
    folders: list[str] = []
    for word in words:
        if word.startswith("--config-dir="):
            folders.append(word.partition("=")[2])
        elif word.lstrip("+").startswith("hydra.searchpath="):
            value = _parse(word).value()
            folders += map(str, value) if isinstance(value, list) else []
    places = [folder.removeprefix("file://") for folder in folders]
    for place in places:
        if "://" in place:
            raise ConfigError(f"hydra.searchpath: {place}: configs are read from folders")
    return list(dict.fromkeys(map(Path, places)))


def read_overrides(words: Sequence[str], schema: type, folders: Sequence[Path]) -> list[str]:
    r"""Return the words of a command line in Hydra's grammar, with each string as it was typed.

    Outside quotes a backslash is a backslash, as Hydra's escapes are not wanted in prompts; between double quotes `\n`
    and `\t` become a line break and a tab, as in YAML. In a key that takes a string `${…}` is no interpolation.

    Args:
        words: Overrides, and flags, which stay as they are.
        schema: Of the configuration that they change.
        folders: Where configs are, ours first and then the user's.

    Raises:
        HydraException: When an override is not in Hydra's grammar.
        ConfigError: When a value is none that its key can have.
    """
    sweeps = not set(SWEEP_FLAGS).isdisjoint(words)
    return [_read(word, schema, folders, sweeps) if is_override(word) else word for word in words]


def require_distinct_cells(params: Mapping[str, Any] | None, overrides: Sequence[str]) -> None:
    """Refuse a sweep of no cells, of cells that are the same, and of more than anybody waits for.

    Args:
        params: What an experiment sweeps.
        overrides: What was typed, which counts more.

    Raises:
        ConfigError: Naming the key.
    """
    typed = [_parse(word) for word in overrides]
    preset = [_parse(f"{key}={value}") for key, value in (params or {}).items()]
    swept = {each.get_key_element(): each for each in (*preset, *typed) if each.is_discrete_sweep()}
    for key, times in Counter(each.get_key_element() for each in typed).items():
        if key in swept and times > 1:
            raise ConfigError(f"{key}: is given {times} times")
    # What a pattern matches is known to Hydra alone, and is distinct.
    sizes = [
        _count_distinct(key, override) for key, override in swept.items() if not isinstance(override.value(), Glob)
    ]
    if math.prod(sizes) > _MAX_CELLS:
        raise ConfigError(f"{', '.join(swept)}: more than {_MAX_CELLS} cells, which is the most that a sweep may have")


def _count_distinct(key: str, override: Override) -> int:
    values = list(islice(override.sweep_string_iterator(), _MAX_CELLS + 1))
    word = override.input_line or key
    if not values:
        raise ConfigError(f"{word}: a sweep of no values")
    value, times = Counter(values).most_common(1)[0]
    if times > 1:
        raise ConfigError(f"{word}: {value} is there {times} times, and its cells would be the same")
    return len(values)


def quoted(text: str) -> str:
    """Return a string in quotes, so that Hydra's grammar and interpolation take it as it is."""
    literal = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    return str(QuotedString(literal, Quote.single).with_quotes())


def _read(word: str, schema: type, folders: Sequence[Path], sweeps: bool) -> str:
    key, _, text = word.partition("=")
    word = f"{key}={_BACKSLASHES.sub(_unescape, text)}"
    try:
        override = _parse(word)
    except HydraException:
        if takes_text(schema, key.lstrip("+")):
            return f"{key}={quoted(text)}"
        raise
    name, value = override.key_or_group, override.value()
    if name == "hydra":
        raise ConfigError(f"{key}: Hydra's settings are given one by one (hydra.run.dir=…)")
    if any((folder / name).is_dir() for folder in folders):
        word = _read_choice(word, override, folders)
    elif takes_text(schema, name) and not isinstance(value, list):
        is_quoted = _QUOTED.fullmatch(text.strip())
        word = f"{key}={quoted(str(value)) if is_quoted else _as_typed(text, value, sweeps)}"
    elif isinstance(value, list | dict):
        word = f"{key}={_with_strings(key, type_of(schema, name.split('.')), value, word.partition('=')[2])}"
    elif name in _FOLDERS_OF_RUNS and not value:
        raise ConfigError(f"{word}: must be the name of a folder")
    return word


def _read_choice(word: str, override: Override, folders: Sequence[Path]) -> str:
    """Return the choice of a config; `null` is the name of one where it is a group's default."""
    if (folders[0] / override.key_or_group / "null.yaml").exists():
        word = _NULL.sub("'null'", word)
        override = _parse(word)
    _require_names(word, override, folders)
    return word


def _unescape(found: re.Match[str]) -> str:
    """Return a piece of a value so that Hydra makes of it what was typed, with the two escapes in double quotes."""
    quoted_text, backslashes, after = found[1], found[2], found[3]
    if quoted_text:
        is_double = quoted_text[0] == '"'
        return _ESCAPE.sub(lambda escape: escape[1] + _ESCAPED[escape[2]], quoted_text) if is_double else quoted_text
    keeps_together = after and len(backslashes) % 2  # `\,` separates nothing
    return 2 * backslashes + ("\\" if keeps_together else "") + after


def _as_typed(text: str, value: Any, sweeps: bool) -> str:
    """Return the value of a key that takes a string; in a sweep, one of several."""
    if value is None:
        return "null"
    if isinstance(value, QuotedString):
        return quoted(value.text)
    if not sweeps or not isinstance(value, Sweep):
        return quoted(text)
    choices = _CHOICE.findall(text)
    if not isinstance(value, ChoiceSweep) or not value.simple_form or len(choices) != len(value.list):
        return text
    return ",".join(_as_typed(choice.strip(), one, False) for choice, one in zip(choices, value.list, strict=True))


def _with_strings(key: str, kind: Any, value: Any, text: str) -> str:
    """Return a list or a mapping with its strings as they were typed, and refuse others in their place."""
    for keys, one in leaves(value):
        place = type_of(kind, keys)
        if is_string(place) and not isinstance(one, str | QuotedString) and not (one is None and place is not str):
            example = '["1_000","1.10"]' if isinstance(value, list) else "{" + f'{keys[-1]}: "1.10"' + "}"
            raise ConfigError(f"{key}: {format_value(one)} in it is no string; quote such strings: {key}='{example}'")
    if kind == dict[str, str] and not value:
        raise ConfigError(f"{key}: an empty mapping changes nothing; leave it out")
    if kind not in (dict[str, str], list[str], Texts):
        return text
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_as_typed(one, one, False)}" for name, one in value.items()) + "}"
    return "[" + ",".join(_as_typed(one, one, False) for one in value) + "]"


def _parse(word: str) -> Override:
    return OverridesParser.create().parse_overrides([word])[0]


def _require_names(word: str, override: Override, folders: Sequence[Path]) -> None:
    """Refuse a choice that is no config's name, nor a list of them where they add up."""
    value, group = override.value(), override.key_or_group
    if not (folders[0] / group).is_dir():
        raise ConfigError(f"{word}: there is no such group (known: {', '.join(_groups(folders[0]))})")
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


def _groups(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())
