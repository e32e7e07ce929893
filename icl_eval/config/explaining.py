"""Rewrite Hydra's errors as one line that says what was given and what is allowed."""

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
from icl_eval.config.setup import conf_dir
from icl_eval.errors import ConfigError
from icl_eval.formatting import describe_unknown_key, format_value

_NOISE = re.compile(
    r"\s*(full_key:.*|object_type=.*|reference_type=.*|See https?:\S+.*|To append to your config use .*|"
    r"Available options in '.*':|Config search path:.*|provider=.*|Set the environment variable .*)"
)
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", type(None): "null"}
_NAMELESS = "a task's file must start with the line '# @package task.NAME'"
_EXTRAS = {
    "hydra/launcher=joblib": "parallel",
    "hydra/launcher=submitit_local": "submitit",
    "hydra/launcher=submitit_slurm": "submitit",
}
"""The extras that install configs of other packages."""
_NO_CHOICE = "Unexpected type for root: NoneType"
"""What Hydra says of an option of a group in which nothing is chosen."""
_OF_A_TASK = [f"task.{field.name}" for field in fields(TaskConfig)]


@contextmanager
def explaining_errors(words: Sequence[str]) -> Iterator[None]:
    """Turn the errors that Hydra, OmegaConf and PyYAML raise while composing into a one-line `ConfigError`.

    Hydra raises plain Python errors for some mistakes (`task=null`, `placement.x=1`).

    Args:
        words: The arguments of the command, added to messages that do not quote them.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException, MarkedYAMLError) as error:
        raise ConfigError(explain(error)) from error
    except RecursionError as error:
        raise ConfigError(f"a config's defaults list includes itself (arguments: {' '.join(words)})") from error
    except (AssertionError, AttributeError, ValueError) as error:
        if str(error) == _NO_CHOICE and (key := _find_without_choice(words)):
            group = key.rpartition(".")[0]
            raise ConfigError(f"{key}: nothing is chosen for {group}, of which this is an option") from error
        raise ConfigError(f"{explain(error)} (arguments: {' '.join(words)})") from error


def _find_without_choice(words: Sequence[str]) -> str | None:
    """Return the first key that is an option of a group in which nothing is chosen by default."""
    groups = "|".join(path.parent.name for path in conf_dir().glob("*/null.yaml"))
    option = re.compile(rf"({groups}|task\.[^.]+\.(template|postprocessing|likelihood))\.[^.]+")
    keys = (word.lstrip("+~").partition("=")[0] for word in words)
    return next(filter(option.fullmatch, keys), None)


def explain(error: BaseException) -> str:
    """Return a one-line message for an error that Hydra, OmegaConf or PyYAML raised while composing."""
    text = str(error)
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark
        where = f"{mark.name}:{mark.line + 1}:{mark.column + 1}: " if mark else ""
        return f"{where}not YAML ({error.problem})"
    if match := re.match(r"In '(.+)': \w+ raised while composing config", text):
        sentence = _explain_key(error.__context__)
        return sentence if _NAMELESS in sentence else f"{match[1]}.yaml: {sentence}"
    cause = error.__cause__ or error
    if isinstance(cause, ConfigKeyError | ConfigAttributeError | ValidationError) and cause.full_key:
        return _explain_key(cause)
    if isinstance(error, OverrideParseException):
        reason = "contains a character that must be quoted" if text.startswith("Lexer") else _join_lines(text)
        key = str(error.override).partition("=")[0]
        return f"{error.override}: {reason} (put a string in two pairs of quotes: {key}='\"…\"')"
    if isinstance(error, MissingConfigException) and "/" in str(error.missing_cfg_file):
        return _explain_missing(error, text)
    if isinstance(error, OmegaConfBaseException):
        return _explain_key(error)
    return _explain_override(text, cause)


def _explain_override(text: str, cause: BaseException) -> str:
    """Return a message about an override that cannot be applied, or any other error."""
    if match := re.match(r"Could not override '([^@']+)'\.\s+No match in the defaults list", text):
        return f"unknown key '{match[1]}': this command has no such option"
    if match := re.match(r"Error merging override (.+)", text):
        return f"{match[1]}: {_join_lines(str(cause))}"
    return _join_lines(f"{text}\n{cause}")


def _explain_missing(error: MissingConfigException, text: str) -> str:
    """Return a message about the choice of a config that does not exist."""
    path = str(error.missing_cfg_file)
    group = path.rpartition("/")[0] if path.startswith("hydra/") else path.partition("/")[0]
    name = path.removeprefix(f"{group}/")
    known = error.options if error.options and "/" not in name else _list_options(group, text)
    extra = _EXTRAS.get(f"{group}={name}")
    advice = f"; pip install 'icl-eval[{extra}]'" if extra else ""
    if group == "model":
        advice = f"; a folder, a file or a name on the hub is given as model.source={name}"
    return f"{group}={name}: there is no such {group} (known: {', '.join(sorted(known))}{advice})"


def _explain_key(error: BaseException | None) -> str:
    """Return a message about the key that OmegaConf rejects."""
    if isinstance(error, ConfigTypeError) or str(error).startswith("Merge error: "):  # as of a list with a schema
        return "must be a mapping from keys to values"
    if not isinstance(error, OmegaConfBaseException) or not error.full_key:
        return _join_lines(str(error))
    key = str(error.full_key)
    if ".".join(key.split(".")[:2]) in _OF_A_TASK:
        return f"{key}: {_NAMELESS}"
    if isinstance(error, ConfigKeyError | ConfigAttributeError):
        return _explain_unknown_key(error)
    if error.parent_node is None and error.ref_type is None and "." not in key:  # as of `+task.math.fields.cluster=x`
        return f"unknown key 'task.{key}': the task '{key}' is not chosen"
    if error.key is None:  # a whole mapping is null
        return f"{key}=null: must be a mapping from keys to values"
    if type(error) is ValidationError:
        return f"{key}={_format_value(error)}: must be {_describe_type(_find_hint(error))}"
    return f"{key}: {_join_lines(str(error))}"


def _format_value(error: OmegaConfBaseException) -> str:
    """Return the rejected value; a value from a file is wrapped in a node."""
    return format_value(str(error.value) if isinstance(error.value, Node) else error.value)


def _find_hint(error: OmegaConfBaseException) -> Any:
    """Return the type of the key in the schema."""
    if is_dataclass(error.object_type):
        return typing.get_type_hints(error.object_type)[str(error.key)]
    return typing.get_args(error.ref_type)[1]


def _describe_type(hint: Any) -> str:
    """Return a type in words, such as "a whole number or null"."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(_describe_type(one) for one in typing.get_args(hint))
    if isinstance(hint, EnumType):
        return " or ".join(hint.__members__)
    return _KINDS.get(hint, "a list" if typing.get_origin(hint) is list else "a mapping from keys to values")


def _explain_unknown_key(error: ConfigKeyError | ConfigAttributeError) -> str:
    """Return a message about a key that its parent does not have."""
    key = str(error.full_key)
    prefix = key.removesuffix(str(error.key))
    known = [f"{prefix}{name}" for name in error.parent_node or () if name not in ("_target_", "hydra")]
    sentence = describe_unknown_key(key, known)
    if prefix == "decoding.options." or typing.get_args(error.ref_type)[1:] == (str,):
        return f"{sentence}; to add a new key, prefix it with a plus sign: +{key}=…"
    return sentence


def _list_options(group: str, text: str) -> set[str]:
    """Return the options of a group from the folders that Hydra's message names."""
    folders = re.findall(r"path=file://(.+)", text)
    return {path.stem for folder in folders for path in (Path(folder) / group).glob("*.yaml")}


def _join_lines(text: str) -> str:
    lines = (line.strip() for line in text.splitlines() if not _NOISE.fullmatch(line))
    return " ".join(dict.fromkeys(line for line in lines if line))
