"""Hydra's error messages, each as one line that says what was given and what exists."""

import re
import typing
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from icl_eval.config import unknown_key

_NOISE = re.compile(
    r"\s*(full_key:.*|object_type=.*|reference_type=.*|See https?:\S+.*|To append to your config use .*|"
    r"Available options in '.*':|Config search path:.*|provider=.*|Set the environment variable .*)"
)


def explain(error: BaseException, schema: Any, config_dirs: Sequence[Path]) -> str:
    """Return one line for an error that Hydra or OmegaConf raised while composing.

    Args:
        error: What was raised.
        schema: The dataclass that the configuration has to obey.
        config_dirs: The folders in which config groups are looked for.
    """
    text = str(error) if error.__cause__ is None else f"{error}\n{error.__cause__}"
    if found := re.search(r"Could not override '([^']+)'", text):
        return _unknown(found[1], schema) or _one_line(text)
    if found := re.search(r"Key '([^']+)' not in '(\w+)'\s+full_key: (\S+)", text):
        return _unknown(found[3], schema) or _one_line(text)
    if found := re.search(r"Could not (?:load|find) '([^']+)/([^'/]+)'", text):
        group, name = found[1], found[2]
        return f"{group}={name}: there is no such {group} (known: {', '.join(_options(group, config_dirs))})"
    if found := re.search(r"Error merging override (\S+)\s+(.+)", text):
        return f"{found[1]}: {found[2]}"
    return _one_line(text)


def _unknown(key: str, schema: Any) -> str | None:
    """Return the sentence about an unknown key, where its neighbours are known."""
    *parents, _ = key.split(".")
    for parent in parents:
        hints = typing.get_type_hints(schema) if is_dataclass(schema) else {}
        is_mapping = typing.get_origin(schema) is dict
        schema = typing.get_args(schema)[1] if is_mapping else hints.get(parent)
    if not is_dataclass(schema):
        return None
    prefix = "".join(f"{parent}." for parent in parents)
    return unknown_key(key, [prefix + field.name for field in fields(schema)])


def _options(group: str, config_dirs: Sequence[Path]) -> list[str]:
    return sorted({path.stem for folder in config_dirs for path in (folder / group).glob("*.yaml")})


def _one_line(text: str) -> str:
    lines = (line.strip() for line in text.splitlines() if not _NOISE.fullmatch(line))
    return " ".join(dict.fromkeys(line for line in lines if line))
