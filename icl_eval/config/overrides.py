"""Normalize or reject a user's `key=value` arguments before Hydra composes anything from them."""

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

from icl_eval.config.schema import Strings, find_type, is_string, takes_string, walk_leaves
from icl_eval.errors import ConfigError
from icl_eval.formatting import format_value

_GROUPS_THAT_ADD_UP = ("task", "metrics", "experiment")
"""Groups from which a list can be chosen. In any other group, Hydra would silently merge the choices."""
_PLAIN = re.compile("[A-Za-z_][A-Za-z0-9_]*")
SWEEP_FLAGS = ("-m", "--multirun")
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_BACKSLASHES = re.compile(rf"({_QUOTED.pattern})|(\\+)([()\[\]{{}}:=,\s]?)", re.DOTALL)
"""Backslashes outside quotes, with the next character if it has a meaning in Hydra's grammar."""
_CHOICE = re.compile(rf"(?:{_QUOTED.pattern}|\\.|[^,])+", re.DOTALL)
_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\([nt])")
_ESCAPED = {"n": "\n", "t": "\t"}
_MAX_CELLS = 10_000
"""Limit on the cells of a sweep. Hydra composes all of them before the first one starts."""
_FOLDERS_OF_RUNS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")


def is_override(word: str) -> bool:
    """Return whether an argument changes the configuration; flags and their values do not."""
    return "=" in word and not word.startswith("-")


def is_sweep(word: str) -> bool:
    """Return whether an override lists several values to sweep over; False if it is invalid."""
    try:
        return _parse(word).is_sweep_override()
    except HydraException:
        return False


def find_added_folders(words: Sequence[str]) -> list[Path]:
    """Return the config folders that the command line adds to the packaged one.

    Raises:
        HydraException: If an override does not follow Hydra's grammar.
        ConfigError: If a search path is not a folder.
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
            raise ConfigError(f"hydra.searchpath: {place}: must be a folder")
    return list(dict.fromkeys(map(Path, places)))


def normalize_overrides(words: Sequence[str], schema: type, folders: Sequence[Path]) -> list[str]:
    r"""Return command-line arguments in Hydra's grammar, with each string preserved as it was typed.

    Outside quotes a backslash is literal, because Hydra's escapes are not wanted in prompts. Inside double quotes, `\n`
    and `\t` become a line break and a tab, as in YAML. `${…}` is literal in a key that takes a string.

    Args:
        words: Overrides, and flags, which are left unchanged.
        schema: The schema of the configuration that they change.
        folders: The config folders: the packaged one first, then the user's.

    Raises:
        HydraException: If an override does not follow Hydra's grammar.
        ConfigError: If a key cannot take its value.
    """
    for word in words:
        key, _, value = word.partition("=")
        if key.lstrip("+") == "engine.base_url":
            _require_no_secret(value)
    sweeps = not set(SWEEP_FLAGS).isdisjoint(words)
    return [_read(word, schema, folders, sweeps) if is_override(word) else word for word in words]


def _require_no_secret(address: str) -> None:
    """Refuse an address with a password before Hydra writes it into files."""
    from icl_eval.decoding.engines.server.access import require_no_secret

    try:
        require_no_secret(address)
    except ConfigError as error:
        raise ConfigError(f"engine.{error}") from None


def require_distinct_cells(params: Mapping[str, Any] | None, overrides: Sequence[str]) -> None:
    """Reject a sweep that has no cells, duplicate cells, or too many cells.

    Args:
        params: The sweep of an experiment preset.
        overrides: The overrides on the command line, which take precedence.

    Raises:
        ConfigError: If the sweep is rejected. The message names the key.
    """
    typed = [_parse(word) for word in overrides]
    preset = [_parse(f"{key}={value}") for key, value in (params or {}).items()]
    swept = {each.get_key_element(): each for each in (*preset, *typed) if each.is_discrete_sweep()}
    for key, times in Counter(each.get_key_element() for each in typed).items():
        if key in swept and times > 1:
            raise ConfigError(f"{key}: given {times} times")
    # Only Hydra knows what a glob pattern matches; its matches are distinct.
    sizes = [
        _count_distinct(key, override) for key, override in swept.items() if not isinstance(override.value(), Glob)
    ]
    if math.prod(sizes) > _MAX_CELLS:
        raise ConfigError(f"{', '.join(swept)}: a sweep may have at most {_MAX_CELLS} cells")


def _count_distinct(key: str, override: Override) -> int:
    values = list(islice(override.sweep_string_iterator(), _MAX_CELLS + 1))
    word = override.input_line or key
    if not values:
        raise ConfigError(f"{word}: the sweep has no values")
    value, times = Counter(values).most_common(1)[0]
    if times > 1:
        raise ConfigError(f"{word}: {value} is listed {times} times; the values of a sweep must be distinct")
    return len(values)


def _quote(text: str) -> str:
    """Return a string in quotes, so that neither Hydra's grammar nor interpolation changes it."""
    return str(QuotedString(escape_interpolation(text), Quote.single).with_quotes())


def escape_interpolation(text: str) -> str:
    """Return a string in which OmegaConf takes `${…}` literally."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def _read(word: str, schema: type, folders: Sequence[Path], sweeps: bool) -> str:
    key, _, text = word.partition("=")
    known = list_choices(folders, key.lstrip("+"))
    text = _quote_names(text, known)
    word = f"{key}={_BACKSLASHES.sub(_unescape, text)}"
    try:
        override = _parse(word)
    except HydraException:
        if takes_string(schema, key.lstrip("+")):
            return f"{key}={_quote(text)}"
        raise
    name, value = override.key_or_group, override.value()
    if name == "hydra":
        raise ConfigError(f"{key}: Hydra's settings must be set one by one (hydra.run.dir=…)")
    if any((folder / name).is_dir() for folder in folders):
        _require_names(word, override, folders, known)
    elif takes_string(schema, name) and not isinstance(value, list):
        is_quoted = _QUOTED.fullmatch(text.strip())
        word = f"{key}={_quote(str(value)) if is_quoted else _quote_as_typed(text, value, sweeps)}"
    elif isinstance(value, list | dict):
        word = f"{key}={_keep_strings(key, find_type(schema, name.split('.')), value, word.partition('=')[2])}"
    else:
        word = _read_plain(word, name, value)
    return word


def _read_plain(word: str, name: str, value: Any) -> str:
    """Keep the spaces around a string of a choice, such as `postprocessing.pattern`, and check the name of a folder."""
    if name in _FOLDERS_OF_RUNS and not value:
        raise ConfigError(f"{word}: must be the name of a folder")
    key, _, text = word.partition("=")
    has_spaces = isinstance(value, str) and text != text.strip() and "${" not in text
    return f"{key}={_quote(text)}" if has_spaces and not name.startswith("hydra.") else word


def _quote_names(text: str, names: Sequence[str]) -> str:
    """Quote the names of configs that Hydra would read as something else, such as `null`, `2024` and `nan`.

    Args:
        text: The value of a config group, as typed.
        names: The names of the group's configs.
    """
    special = "|".join(re.escape(name) for name in names if not _is_plain(name))
    if not special:
        return text
    pattern = re.compile(rf"({_QUOTED.pattern})|(?<![^\s=,(\[])({special})(?![^\s,)\]])", re.DOTALL)
    return pattern.sub(lambda match: match[1] or f"'{match[2]}'", text)


def _is_plain(name: str) -> bool:
    """Return whether Hydra reads a name without quotes as this string."""
    if _PLAIN.fullmatch(name) and name.lower() not in ("null", "true", "false", "nan", "inf"):
        return True
    try:
        return _parse(f"key={name}").value() == name
    except HydraException:
        return False


def _unescape(match: re.Match[str]) -> str:
    """Return a piece of a value escaped so that Hydra reads what was typed, with escapes in double quotes resolved."""
    quoted_text, backslashes, after = match[1], match[2], match[3]
    if quoted_text:
        is_double = quoted_text[0] == '"'
        return _ESCAPE.sub(lambda escape: escape[1] + _ESCAPED[escape[2]], quoted_text) if is_double else quoted_text
    keeps_together = after and len(backslashes) % 2  # `\,` separates nothing
    return 2 * backslashes + ("\\" if keeps_together else "") + after


def _quote_as_typed(text: str, value: Any, sweeps: bool) -> str:
    """Return a string value in quotes, exactly as typed; in a sweep, quote each of its values."""
    if value is None:
        return "null"
    if isinstance(value, QuotedString):
        return _quote(value.text)
    if not sweeps or not isinstance(value, Sweep):
        return _quote(text)
    choices = _CHOICE.findall(text)
    if not isinstance(value, ChoiceSweep) or not value.simple_form or len(choices) != len(value.list):
        return text
    return ",".join(
        _quote_as_typed(choice.strip(), one, False) for choice, one in zip(choices, value.list, strict=True)
    )


def _keep_strings(key: str, kind: Any, value: Any, text: str) -> str:
    """Return a list or mapping with its strings as typed; reject other values where a string is expected."""
    for keys, one in walk_leaves(value):
        place = find_type(kind, keys)
        if is_string(place) and not isinstance(one, str | QuotedString) and not (one is None and place is not str):
            example = '["1_000","1.10"]' if isinstance(value, list) else "{" + f'{keys[-1]}: "1.10"' + "}"
            raise ConfigError(f"{key}: {format_value(one)} is not a string; quote strings like it: {key}='{example}'")
    if kind == dict[str, str] and not value:
        raise ConfigError(f"{key}: an empty mapping has no effect; leave it out")
    if kind not in (dict[str, str], list[str], Strings):
        return text
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_quote_as_typed(one, one, False)}" for name, one in value.items()) + "}"
    return "[" + ",".join(_quote_as_typed(one, one, False) for one in value) + "]"


def _parse(word: str) -> Override:
    return OverridesParser.create().parse_overrides([word])[0]


def _require_names(word: str, override: Override, folders: Sequence[Path], known: Sequence[str]) -> None:
    """Reject a choice that is neither the name of a config nor, where the group allows it, a list of names."""
    value, group = override.value(), override.key_or_group
    if not (folders[0] / group).is_dir():
        raise ConfigError(f"{word}: there is no such group (known: {', '.join(list_groups(folders[0]))})")
    choices = value.list if isinstance(value, ChoiceSweep) else [value]
    if value == {} or (value == [] and group in ("metrics", "experiment")):
        raise ConfigError(f"{word}: has no effect; leave it out")
    if override.is_delete() or isinstance(value, dict) or (override.is_sweep_override() and choices == [value]):
        return
    adds_up = group in _GROUPS_THAT_ADD_UP
    for choice in choices:
        names = choice if adds_up and isinstance(choice, list) else [choice]
        if not all(isinstance(name, str | QuotedString) for name in names):
            also = f", or a list such as [{known[0]}]" if adds_up else ""
            raise ConfigError(f"{word}: must be one of {', '.join(known)}{also}")


def list_choices(folders: Sequence[Path], group: str) -> list[str]:
    """Return the names of a group's configs in some folders."""
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def list_groups(folder: Path) -> list[str]:
    """Return the names of the config groups in a folder."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir())
