"""Hydra's error messages, each as one line that says what was given and what exists."""

import re
from pathlib import Path

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import MarkedYAMLError

from icl_eval.config import unknown_key

_NOISE = re.compile(
    r"\s*(full_key:.*|object_type=.*|reference_type=.*|See https?:\S+.*|To append to your config use .*|"
    r"Available options in '.*':|Config search path:.*|provider=.*|Set the environment variable .*)"
)


def explain(error: BaseException) -> str:
    """Return one line for an error that Hydra, OmegaConf or the reader of YAML raised while composing."""
    text = str(error)
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark
        where = f"{mark.name}:{mark.line + 1}:{mark.column + 1}: " if mark else ""
        return f"{where}not YAML ({error.problem})"
    cause = error.__cause__ or error
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.full_key:
        return _unknown(cause)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: {_one_line(text)}"
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {_one_line(text)}"
    if isinstance(error, MissingConfigException) and "/" in str(error.missing_cfg_file):
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        known = error.options or _options(group, text)
        return f"{group}={name}: there is no such {group} (known: {', '.join(sorted(known))})"
    if found := re.match(r"Error merging override (.+)", text):
        return f"{found[1]}: {_one_line(str(cause))}"
    return _one_line(f"{text}\n{cause}")


def _unknown(error: ConfigKeyError | ConfigAttributeError) -> str:
    """Return the sentence about a key that its parent does not have."""
    key = str(error.full_key)
    prefix = key.removesuffix(str(error.key))
    known = [f"{prefix}{name}" for name in error.parent_node or () if name not in ("_target_", "hydra")]
    return unknown_key(key, known)


def _options(group: str, text: str) -> set[str]:
    """Return a group's options; for a list of them Hydra says only which folders it has looked through."""
    folders = re.findall(r"path=file://(.+)", text)
    return {path.stem for folder in folders for path in (Path(folder) / group).glob("*.yaml")}


def _one_line(text: str) -> str:
    lines = (line.strip() for line in text.splitlines() if not _NOISE.fullmatch(line))
    return " ".join(dict.fromkeys(line for line in lines if line))
