"""Collisions: whether one of the config files that a run is composed of silently takes the place of another."""

import typing
from collections.abc import Sequence
from pathlib import Path, PurePath

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from icl_eval.config.setup import conf_dir
from icl_eval.errors import ConfigError


def require_distinct_choices(has_own_files: bool) -> None:
    """Refuse tasks that have one name, and a metric that is chosen twice: Hydra would keep the last of them.

    Args:
        has_own_files: Whether the user has config files. Ours are distinct, unless several are chosen at once, and
            looking takes a fifth of a command's start.

    Raises:
        ConfigError: Naming both.
    """
    found = HydraConfig.get()
    overrides = typing.cast("dict[str, list[str]]", OmegaConf.to_container(found.overrides))  # `${…}` is not resolved
    if not has_own_files and not any(word.startswith("+") or "=[" in word for word in overrides["task"]):
        return
    loader = GlobalHydra.instance().config_loader()
    composed = loader.compute_defaults_list(
        found.job.config_name, [*overrides["hydra"], *overrides["task"]], RunMode.RUN
    ).defaults
    taken: dict[str, str] = {}
    for group in ("task", "metrics"):
        for default in composed:
            path = PurePath(str(default.config_path))
            if str(path.parent) != group or str(default.parent).startswith(f"{group}/"):  # a file may build on another
                continue
            key = str(default.package) if group == "task" else f"{default.package}.{path.name}"
            if key in taken:
                raise ConfigError(_collision(group, key, taken[key], path.name))
            taken[key] = path.name


def _collision(group: str, key: str, first: str, second: str) -> str:
    if first == second:
        return f"{group}: {first} is chosen twice, and there can be only one {key}"
    return (
        f"{group}: {first} and {second} are both called {key}, by the first line of their files; "
        f"leave one of them out, or begin its file with '# @package task.{second}'"
    )


def reject_packaged_names(folders: Sequence[Path]) -> None:
    """Refuse a user's configs that are called like packaged ones, or like each other: Hydra would take the first."""
    seen: dict[Path, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*/**/*.yaml")):
            name = path.relative_to(folder)
            if not (conf_dir() / name.parts[0]).is_dir():
                continue
            choice = f"{name.parent}={path.stem}"
            packaged = conf_dir() / name
            if packaged.exists() and not packaged.samefile(path):
                raise ConfigError(f"{path}: {choice} already names {packaged}, which would be taken; rename yours")
            other = seen.setdefault(name, path)
            if not other.samefile(path):
                raise ConfigError(f"{path}: {choice} already names {other}, which would be taken; rename one of them")
