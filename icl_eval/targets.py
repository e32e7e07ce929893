"""Build the object that a `_target_` names, with the other keys as its arguments.

Each key of a configuration can build the objects of one family only. The last part of a `_target_` names the class; the
modules before it are ignored, so that a configuration stays valid when code moves.
"""

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import import_module
from typing import Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from icl_eval.errors import ConfigError
from icl_eval.formatting import describe_unknown_key, format_value

Seed = typing.Annotated[int, Field(ge=0, lt=2**63)]
"""The type of a random seed."""


@dataclass(frozen=True)
class Family:
    """The classes that one key of a configuration can build."""

    module: str
    """The module with the classes; it is imported only to build one, since importing metrics takes seconds."""
    classes: Mapping[str, str]
    """Class names, by the name that a user writes to choose the class; of several names for one class, the first is
    that of the class without options."""
    places: Mapping[str, str] = field(default_factory=dict)
    """The modules inside `module` that define classes; a class that has none here is taken from `module` itself."""

    @property
    def description(self) -> str:
        """A phrase that lists the classes, for messages."""
        return f"a class of {self.module}: {', '.join(sorted(set(self.classes.values())))}"


def build(config: Mapping[str, Any], key: str, family: Family, optional: Mapping[str, Any] | None = None) -> Any:
    """Build the object that a `_target_` names, with the other keys as its arguments.

    Args:
        config: `_target_`, a class of the family, and its arguments. An argument whose type is a dataclass is built
            from a mapping of its fields.
        key: The key of the configuration, for messages.
        family: The classes that can be built here.
        optional: Arguments that are passed if the class accepts them, by the options of the run that they come from.

    Raises:
        ConfigError: If the target is not in the family, or an argument is unknown, missing, of the wrong type, or one
            that comes from the run.
    """
    class_name, arguments = _split(config, key, family)
    return _construct(_load(family, class_name), arguments, key, optional or {})


def build_named(choice: Any, key: str, family: Family) -> Any:
    """Build an object from the result of `name_target`; raises ConfigError, as `build` does."""
    arguments = dict(choice) if isinstance(choice, Mapping) else {}
    name = str(arguments.pop("name", None))
    if name not in family.classes:
        raise ConfigError(f"{key}={format_value(choice)}: its name must be one of {', '.join(sorted(family.classes))}")
    return _construct(_load(family, family.classes[name]), arguments, key, {})


def name_target(config: Any, key: str, family: Family) -> dict[str, Any]:
    """Return a configuration with the name of its choice instead of its `_target_`, without importing the class.

    Raises:
        ConfigError: If the target is not in the family.
    """
    return name_choice(family.classes, *_split(config, key, family))


def name_choice(classes: Mapping[str, str], class_name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a choice in the form that files store: its name and its options.

    Args:
        classes: Class names, by the name of the choice. If several names stand for one class, the name that ends with
            the value of an option is used, such as `numeric_flexible`; else the first of them.
        class_name: The class to build.
        options: Its arguments. An argument called `name` becomes part of the choice's name: `hub:rouge`.
    """
    names = [name for name, named in classes.items() if named == class_name]
    name = next((name for name in names if name.rpartition("_")[2] in options.values()), names[0])
    if "name" in options:
        name = f"{name}:{options['name']}"
    return {"name": name, **{option: value for option, value in options.items() if option != "name"}}


def _split(config: Any, key: str, family: Family) -> tuple[str, dict[str, Any]]:
    """Return the class name and the arguments in a configuration."""
    if not isinstance(config, Mapping):
        raise ConfigError(f"{key}={format_value(config)}: must be a mapping whose _target_ is {family.description}")
    if "_target_" not in config:
        raise ConfigError(f"{key}: has no _target_; it must be {family.description}")
    package, _, class_name = str(config["_target_"]).rpartition(".")
    if package.split(".")[0] != "icl_eval" or class_name not in family.classes.values():
        raise ConfigError(f"{key}._target_={format_value(config['_target_'])}: must be {family.description}")
    return class_name, {name: value for name, value in config.items() if name != "_target_"}


def _load(family: Family, class_name: str) -> Any:
    place = family.places.get(class_name)
    return getattr(import_module(f"{family.module}.{place}" if place else family.module), class_name)


def _construct(built_class: Any, arguments: dict[str, Any], key: str, optional: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(built_class.__init__, include_extras=True)
    hints.pop("return", None)
    for name, value in arguments.items():
        if name in optional and name in hints:
            raise ConfigError(f"{key}.{name}: comes from the run's own {name}; set that one, and leave this out")
        if name not in hints:
            allowed = [f"{key}.{hint}" for hint in hints if hint not in optional]
            raise ConfigError(describe_unknown_key(f"{key}.{name}", allowed))
        kind = _find_dataclass(hints[name])
        if kind is not None and isinstance(value, Mapping):
            arguments[name] = _construct(kind, dict(value), f"{key}.{name}", optional)
        elif kind is not None and value is not None:
            known = ", ".join(field.name for field in fields(kind))
            raise ConfigError(f"{key}.{name}={format_value(value)}: must be a mapping with the keys {known}")
        else:
            arguments[name] = _validate(f"{key}.{name}", value, hints[name])
    arguments |= {name: value for name, value in optional.items() if name in hints}
    try:
        return built_class(**arguments)
    except TypeError as error:
        raise ConfigError(f"{key}: {error}") from None
    except ConfigError as error:  # its message starts with the argument
        raise ConfigError(f"{key}.{error}") from None


def _find_dataclass(hint: Any) -> Any:
    """Return the dataclass that a type is, or may be besides None; None if it is another type."""
    return next((kind for kind in (hint, *typing.get_args(hint)) if is_dataclass(kind)), None)


def _validate(key: str, value: Any, hint: Any) -> Any:
    try:
        return TypeAdapter(hint, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError as error:
        shown = repr(value) if isinstance(value, str) and not value.isprintable() else format_value(value)
        raise ConfigError(f"{key}={shown}: {error.errors()[0]['msg']}") from None
