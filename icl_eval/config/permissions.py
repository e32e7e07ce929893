"""Permissions: what a file of configs that a user adds may say.

A task, a template or an experiment may come from anywhere. It chooses what is asked and how; it runs nothing, reads no
environment, and decides neither what is trusted nor where results go. All that is left to whoever types the command.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra.plugins.config_source import ConfigSource
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from icl_eval.config.schema import ModelConfig, RunConfig, TaskConfig, TemplateConfig, is_string, leaves, type_of
from icl_eval.config.setup import conf_dir
from icl_eval.errors import ConfigError
from icl_eval.formatting import format_value

TRUST_KEYS = {"trust_remote_code", "allow_pickle"}
_SCHEMAS = {"task": TaskConfig, "template": TemplateConfig, "model": ModelConfig, "experiment": RunConfig}
_SWEEP = (("hydra", "mode"), ("hydra", "sweeper", "params"))
"""What makes an experiment a sweep: all that it may say to Hydra."""
KEYWORDS = ("_global_", "_group_", "_name_")
"""What Hydra replaces in a package, and so in the path of a file without one."""
_INTERPOLATION = re.compile(r"\$\{(?!\.*[\w.\[\]-]+\}|packaged_data:[^${}]*\})[^}]*\}?")
"""All but the value of another key, and a path of the data that come with the package."""
_HEADER_SIZE = 512
"""As much of a file as Hydra looks through for a package."""


def require_permitted(folder: Path, path: Path) -> None:
    """Refuse a file that says what only the command line may, or a string that YAML takes for something else.

    What cannot be read is passed over: Hydra names it, where it is chosen.

    Args:
        folder: The user's folder of configs.
        path: A file in one of its groups.

    Raises:
        ConfigError: Naming the file and the key.
    """
    group = path.relative_to(folder).parent.as_posix()
    if group.split("/")[0] == "hydra":
        raise ConfigError(f"{path}: Hydra's own settings are taken from the command line alone (hydra.…=…)")
    try:
        content, header = _load(path)
    except (yaml.YAMLError, ValueError):
        return
    _require_package(path, group, header)
    if not isinstance(content, Mapping):
        return
    for keys, value in leaves(content):
        _require_leaf(path, group, keys, value)
    _require_strings(path, group, content)
    defaults = content.get("defaults")
    for default in defaults if isinstance(defaults, list) else []:
        _require_default(path, default)


def _load(path: Path) -> tuple[Any, str | None]:
    """Return what a file holds, and the package that its first lines name, as Hydra reads both."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise ConfigError(f"{path}: must hold a mapping, from keys to values") from None
    return content, ConfigSource._get_header_dict(path.read_text(encoding="utf-8")[:_HEADER_SIZE])["package"]


def _dotted(keys: tuple[str | int, ...]) -> str:
    return ".".join(map(str, keys))


def _require_package(path: Path, group: str, package: str | None) -> None:
    """Refuse a header by which a file reaches beyond its own group; an experiment is a preset of all groups."""
    own = group.split("/")[0]
    if package is None or (own == "experiment" and package == "_global_") or package == "_group_":
        return
    if own == "experiment" or package.split(".")[0] != own or any(keyword in package for keyword in KEYWORDS):
        allowed = {"experiment": "_global_", "task": "task.NAME"}.get(own, own)
        raise ConfigError(f"{path}: '@package {package}': the package of a file in {own}/ must be {allowed}")


def _require_leaf(path: Path, group: str, keys: tuple[str | int, ...], value: Any) -> None:
    place = _dotted(keys)
    swept = keys[:3] == _SWEEP[1] and len(keys) > 3
    if isinstance(value, str) and (found := _INTERPOLATION.search(value)):
        raise ConfigError(
            f"{path}: {place}: {found[0]}: only the value of another key, as in ${{seed}}, can be asked for"
        )
    named = set(re.findall(r"\w+", f"{place} {value}" if swept else place))  # a value in `params` can be a mapping
    if named & TRUST_KEYS:
        raise ConfigError(f"{path}: {place}: what is trusted is taken from the command line alone")
    if group.split("/")[0] != "experiment":
        return
    if keys[0] == "output":
        raise ConfigError(f"{path}: {place}: where results go is taken from the command line alone")
    reaches_hydra = keys[0] == "hydra" and not swept and keys != _SWEEP[0]
    if reaches_hydra or (swept and not re.fullmatch(r"(?!hydra\b)[^\W\d][\w.]*", str(keys[3]))):
        known = "hydra.mode and hydra.sweeper.params, which sweeps a key"
        raise ConfigError(f"{path}: {place}: of Hydra's own settings an experiment may give {known}")


def _require_default(path: Path, default: Any) -> None:
    """Refuse an entry of a defaults list that leads out of our groups, or into what is not a file's to decide."""
    own = {each.name for each in conf_dir().iterdir() if each.is_dir()} - {"hydra"}
    for choice, name in default.items() if isinstance(default, Mapping) else [(default, "")]:
        place, _, package = str(choice).split(" ")[-1].partition("@")  # after `override` and `optional`
        group = place if name != "" else place.rpartition("/")[0] or place[:1].replace("/", "//")
        steps = group.split("/")
        strays = ".." in f"{place}{name}" or "hydra" in steps or (steps[0] == "" != group and steps[1] not in own)
        words = set(re.findall(r"\w+", package))
        if strays or words & (TRUST_KEYS | {"hydra"}) or any(keyword in package for keyword in KEYWORDS):
            entry = f"{choice}: {format_value(name)}" if name != "" else choice
            known = ", ".join(sorted(own))
            raise ConfigError(f"{path}: defaults: {entry}: must be a config of one of the groups {known}")


def _require_strings(path: Path, group: str, content: Mapping[Any, Any]) -> None:
    """Refuse what YAML reads as a number, a truth or nothing, where a string is expected."""
    schema = _SCHEMAS.get(group.split("/")[0])
    if schema is None:
        return
    for keys, value in leaves(content):
        kind = type_of(schema, keys)
        if is_string(kind) and not isinstance(value, str) and not (value is None and kind is not str):
            raise ConfigError(
                f"{path}: {_dotted(keys)}: YAML reads {format_value(value)} here, which is no string; put it in quotes"
            )
    for keys, mapping in _mappings(content):
        if not mapping and type_of(schema, keys) == dict[str, str]:
            raise ConfigError(f"{path}: {_dotted(keys)}: an empty mapping changes nothing; leave it out")


def _mappings(
    value: Any, keys: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Mapping[Any, Any]]]:
    if isinstance(value, Mapping):
        yield keys, value
        for key, item in value.items():
            yield from _mappings(item, (*keys, key))
