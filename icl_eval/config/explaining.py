"""Hydra's error messages, each as one line that says what was given and what exists."""

import re
import types
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from enum import EnumType
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import Node
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    ConfigTypeError,
    OmegaConfBaseException,
    ValidationError,
)
from yaml import MarkedYAMLError

from icl_eval.config.schema import TaskConfig
from icl_eval.errors import ConfigError
from icl_eval.formatting import describe_unknown_key, format_value

_NOISE = re.compile(
    r"\s*(full_key:.*|object_type=.*|reference_type=.*|See https?:\S+.*|To append to your config use .*|"
    r"Available options in '.*':|Config search path:.*|provider=.*|Set the environment variable .*)"
)
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
_NAMELESS = "the file of a task has to begin with the line '# @package task.NAME'"
_OF_A_TASK = [f"task.{field.name}" for field in fields(TaskConfig)]


@contextmanager
def explained(words: Sequence[str]) -> Iterator[None]:
    """Turn what Hydra, OmegaConf and the reader of YAML raise while composing into a `ConfigError` of one line.

    Hydra has no error class of its own for some mistakes (`task=null`, `placement.x=1`).

    Args:
        words: What was given, for messages that do not say it.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException, MarkedYAMLError) as error:
        raise ConfigError(explain(error)) from error
    except RecursionError as error:
        raise ConfigError(f"the defaults of a config lead back to itself (given: {' '.join(words)})") from error
    except (AssertionError, AttributeError, ValueError) as error:
        raise ConfigError(f"{explain(error)} (given: {' '.join(words)})") from error


def explain(error: BaseException) -> str:
    """Return one line for an error that Hydra, OmegaConf or the reader of YAML raised while composing."""
    text = str(error)
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark
        where = f"{mark.name}:{mark.line + 1}:{mark.column + 1}: " if mark else ""
        return f"{where}not YAML ({error.problem})"
    if found := re.match(r"In '(.+)': \w+ raised while composing config", text):
        sentence = _about_key(error.__context__)
        return sentence if _NAMELESS in sentence else f"{found[1]}.yaml: {sentence}"
    cause = error.__cause__ or error
    if isinstance(cause, ConfigKeyError | ConfigAttributeError | ValidationError) and cause.full_key:
        return _about_key(cause)
    if isinstance(error, OverrideParseException):
        reason = "Hydra does not know a character" if text.startswith("Lexer") else _one_line(text)
        key = str(error.override).partition("=")[0]
        return f"{error.override}: {reason} (a text goes in two pairs of quotes: {key}='\"…\"')"
    if isinstance(error, MissingConfigException) and "/" in str(error.missing_cfg_file):
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        known = error.options or _options(group, text)
        return f"{group}={name}: there is no such {group} (known: {', '.join(sorted(known))})"
    if found := re.match(r"Error merging override (.+)", text):
        return f"{found[1]}: {_one_line(str(cause))}"
    if isinstance(error, OmegaConfBaseException):
        return _about_key(error)
    return _one_line(f"{text}\n{cause}")


def _about_key(error: BaseException | None) -> str:
    """Return the sentence about the key that OmegaConf refuses."""
    if isinstance(error, ConfigTypeError):
        return "must hold a mapping, from keys to values"
    if not isinstance(error, OmegaConfBaseException) or not error.full_key:
        return _one_line(str(error))
    key = str(error.full_key)
    if ".".join(key.split(".")[:2]) in _OF_A_TASK:
        return f"{key}: {_NAMELESS}"
    if isinstance(error, ConfigKeyError | ConfigAttributeError):
        return _unknown(error)
    if error.key is None:  # a whole mapping that is null
        return f"{key}=null: must be a mapping, from keys to values"
    if type(error) is ValidationError:
        return f"{key}={_value(error)}: must be {_kind(_hint(error))}"
    return f"{key}: {_one_line(str(error))}"


def _value(error: OmegaConfBaseException) -> str:
    """Return the value that is refused, which has become a node where it comes from a file."""
    return format_value(str(error.value) if isinstance(error.value, Node) else error.value)


def _hint(error: OmegaConfBaseException) -> Any:
    """Return the type that the schema gives a key."""
    if is_dataclass(error.object_type):
        return typing.get_type_hints(error.object_type)[str(error.key)]
    return typing.get_args(error.ref_type)[1]


def _kind(hint: Any) -> str:
    """Return what a value of a type is called."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(_kind(one) for one in typing.get_args(hint))
    if isinstance(hint, EnumType):
        return " or ".join(hint.__members__)
    return _KINDS.get(hint, "a list" if typing.get_origin(hint) is list else "a mapping, from keys to values")


def _unknown(error: ConfigKeyError | ConfigAttributeError) -> str:
    """Return the sentence about a key that its parent does not have."""
    key = str(error.full_key)
    prefix = key.removesuffix(str(error.key))
    known = [f"{prefix}{name}" for name in error.parent_node or () if name not in ("_target_", "hydra")]
    sentence = describe_unknown_key(key, known)
    if prefix == "decoding.options." or typing.get_args(error.ref_type)[1:] == (str,):
        return f"{sentence}; one that is not listed is added with a plus sign: +{key}=…"
    return sentence


def _options(group: str, text: str) -> set[str]:
    """Return a group's options; for a list of them Hydra says only which folders it has looked through."""
    folders = re.findall(r"path=file://(.+)", text)
    return {path.stem for folder in folders for path in (Path(folder) / group).glob("*.yaml")}


def _one_line(text: str) -> str:
    lines = (line.strip() for line in text.splitlines() if not _NOISE.fullmatch(line))
    return " ".join(dict.fromkeys(line for line in lines if line))
