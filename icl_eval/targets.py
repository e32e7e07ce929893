"""Targets: the object that a `_target_` names, built from the keys beside it."""

import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from importlib import import_module
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from icl_eval.errors import ConfigError
from icl_eval.numbers import unknown_key, written


def build(config: Mapping[str, Any], key: str, optional: Mapping[str, Any] | None = None) -> Any:
    """Build the object that a `_target_` names, with the other keys as its arguments.

    Args:
        config: `_target_`, a class inside `icl_eval`, and its arguments. An argument that is a dataclass of ours is
            built from a mapping of its fields.
        key: Where the configuration stands, for messages.
        optional: Arguments that are given where the class takes them.

    Raises:
        ConfigError: When the target is none of ours, or an argument is unknown, missing or of the wrong type.
    """
    arguments = {name: value for name, value in config.items() if name != "_target_"}
    return _construct(find_class(config, key), arguments, key, optional or {})


def find_class(config: Mapping[str, Any], key: str) -> Any:
    """Return the class that a `_target_` names; raises ConfigError when it is none of ours."""
    target = str(config.get("_target_", ""))
    if not target.startswith("icl_eval."):
        raise ConfigError(f"{key}._target_: {target!r}, but only classes inside 'icl_eval.' can be built")
    module, _, name = target.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}._target_: {target!r} does not exist ({error})") from None


def _construct(built_class: Any, arguments: dict[str, Any], key: str, optional: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(built_class.__init__)
    hints.pop("return", None)
    for name, value in arguments.items():
        if name not in hints:
            raise ConfigError(unknown_key(f"{key}.{name}", [f"{key}.{hint}" for hint in hints]))
        if is_dataclass(hints[name]) and isinstance(value, Mapping):
            arguments[name] = _construct(hints[name], dict(value), f"{key}.{name}", optional)
        else:
            arguments[name] = _checked(f"{key}.{name}", value, hints[name])
    arguments |= {name: value for name, value in optional.items() if name in hints}
    try:
        return built_class(**arguments)
    except TypeError as error:
        raise ConfigError(f"{key}: {error}") from None
    except ConfigError as error:  # about an argument, which the message begins with
        raise ConfigError(f"{key}.{error}") from None


def _checked(key: str, value: Any, hint: Any) -> Any:
    try:
        return TypeAdapter(hint, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"{key}={written(value)}: {error.errors()[0]['msg']}") from None
