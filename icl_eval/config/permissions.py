"""Restrict what a config file added by the user may set.

A task, a template or an experiment may come from anyone. It chooses the questions and how they are asked. It cannot run
code, read environment variables, decide what is trusted, where prompts are sent or where results are written: only the
command line can.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra.plugins.config_source import ConfigSource
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from icl_eval.config.overrides import list_groups
from icl_eval.config.schema import (
    ModelConfig,
    RunConfig,
    TaskConfig,
    TemplateConfig,
    find_type,
    is_string,
    walk_leaves,
)
from icl_eval.config.setup import conf_dir
from icl_eval.errors import ConfigError
from icl_eval.formatting import format_value

TRUST_KEYS = {"trust_remote_code", "allow_pickle"}
_SERVER_KEYS = {"base_url", "api_key_env"}
"""The keys that say where prompts are sent, and which secret goes with them."""
_SCHEMAS = {"task": TaskConfig, "template": TemplateConfig, "model": ModelConfig, "experiment": RunConfig}
_SWEEP = (("hydra", "mode"), ("hydra", "sweeper", "params"))
"""The keys that make an experiment a sweep. An experiment may set no other keys of Hydra."""
KEYWORDS = ("_global_", "_group_", "_name_")
"""Keywords that Hydra expands in a package, and therefore in the path of a file that declares none."""
_INTERPOLATION = re.compile(r"\$\{(?!\.*[\w.\[\]-]+\}|packaged_data:[^${}]*\})[^}]*\}?")
"""Any interpolation other than the value of another key or a path in the packaged data."""
_HEADER_SIZE = 512
"""The number of characters at the start of a file that Hydra searches for a package."""


def require_permitted(folder: Path, path: Path) -> None:
    """Reject a file that sets what only the command line may set, or has strings that YAML reads as other types.

    Files that cannot be parsed are skipped: Hydra reports them if they are chosen.

    Args:
        folder: The user's config folder.
        path: A file in one of its groups.

    Raises:
        ConfigError: If the file is rejected. The message names the file and the key.
    """
    group = path.relative_to(folder).parent.as_posix()
    if group.split("/")[0] == "hydra":
        raise ConfigError(f"{path}: Hydra's own settings can only be set on the command line (hydra.…=…)")
    try:
        content, header = _load(path)
    except (yaml.YAMLError, ValueError):
        return
    _require_package(path, group, header)
    if not isinstance(content, Mapping):
        return
    for keys, value in walk_leaves(content):
        _require_leaf(path, group, keys, value)
    _require_strings(path, group, content)
    defaults = content.get("defaults")
    for default in defaults if isinstance(defaults, list) else []:
        _require_default(path, default)


def _load(path: Path) -> tuple[Any, str | None]:
    """Return the content of a file and the package declared in its header, read as Hydra reads them."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise ConfigError(f"{path}: must be a mapping from keys to values") from None
    return content, ConfigSource._get_header_dict(path.read_text(encoding="utf-8")[:_HEADER_SIZE])["package"]


def _join_keys(keys: tuple[str | int, ...]) -> str:
    return ".".join(map(str, keys))


def _require_package(path: Path, group: str, package: str | None) -> None:
    """Reject a package outside the file's own group; an experiment may set keys of all groups."""
    own = group.split("/")[0]
    if package is None or (own == "experiment" and package == "_global_") or package == "_group_":
        return
    if own == "experiment" or package.split(".")[0] != own or any(keyword in package for keyword in KEYWORDS):
        allowed = {"experiment": "_global_", "task": "task.NAME"}.get(own, own)
        raise ConfigError(f"{path}: '@package {package}': a file in {own}/ must have the package {allowed}")


def _require_leaf(path: Path, group: str, keys: tuple[str | int, ...], value: Any) -> None:
    place = _join_keys(keys)
    swept = keys[:3] == _SWEEP[1] and len(keys) > 3
    if isinstance(value, str) and (match := _INTERPOLATION.search(value)):
        raise ConfigError(
            f"{path}: {place}: {match[0]}: an interpolation may only refer to another key, such as ${{seed}}"
        )
    words = set(re.findall(r"\w+", f"{place} {value}" if swept else place))  # a value in `params` can be a mapping
    if words & TRUST_KEYS:
        raise ConfigError(f"{path}: {place}: trust can only be granted on the command line")
    if words & _SERVER_KEYS and "engine" in words | set(group.split("/")):
        raise ConfigError(f"{path}: {place}: where prompts are sent can only be set on the command line")
    if group.split("/")[0] != "experiment":
        return
    if keys[0] == "output":
        raise ConfigError(f"{path}: {place}: the output path can only be set on the command line")
    reaches_hydra = keys[0] == "hydra" and not swept and keys != _SWEEP[0]
    if reaches_hydra or (swept and not re.fullmatch(r"(?!hydra\b)[^\W\d][\w.]*", str(keys[3]))):
        allowed = "hydra.mode and hydra.sweeper.params (with keys to sweep)"
        raise ConfigError(f"{path}: {place}: the only settings of Hydra that an experiment may set are {allowed}")


def _require_default(path: Path, default: Any) -> None:
    """Reject a defaults entry outside the known groups, or one that sets what only the command line may set."""
    own = set(list_groups(conf_dir())) - {"hydra"}
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
        for each in (choice, *(name if isinstance(name, list) else [name])):
            if not isinstance(each, str | None):
                wrong = f"YAML reads this as {format_value(each)}, not as the name of a config; put it in quotes"
                raise ConfigError(f"{path}: defaults: {wrong}")


def _require_strings(path: Path, group: str, content: Mapping[Any, Any]) -> None:
    """Reject values that YAML reads as a number, a bool or null where a string is expected."""
    schema = _SCHEMAS.get(group.split("/")[0])
    if schema is None:
        return
    for keys, value in walk_leaves(content):
        kind = find_type(schema, keys)
        if is_string(kind) and not isinstance(value, str) and not (value is None and kind is not str):
            raise ConfigError(
                f"{path}: {_join_keys(keys)}: YAML reads this as {format_value(value)}, not as a string; "
                "put it in quotes"
            )
    for keys, mapping in _walk_mappings(content):
        if not mapping and find_type(schema, keys) == dict[str, str]:
            raise ConfigError(f"{path}: {_join_keys(keys)}: an empty mapping has no effect; leave it out")


def _walk_mappings(
    value: Any, keys: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Mapping[Any, Any]]]:
    if isinstance(value, Mapping):
        yield keys, value
        for key, item in value.items():
            yield from _walk_mappings(item, (*keys, key))
