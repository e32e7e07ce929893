"""Detect config files of a run that would silently replace one another."""

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
    """Reject two tasks with the same name and a metric chosen twice: Hydra would keep only the last one.

    Args:
        has_own_files: Whether the user has config files. Packaged files never collide unless several are chosen at
            once, and the check takes a fifth of a command's startup time.

    Raises:
        ConfigError: If two choices collide. The message names both.
    """
    hydra = HydraConfig.get()
    overrides = typing.cast("dict[str, list[str]]", OmegaConf.to_container(hydra.overrides))  # `${…}` is not resolved
    if not has_own_files and not any(word.startswith("+") or "=[" in word for word in overrides["task"]):
        return
    loader = GlobalHydra.instance().config_loader()
    composed = loader.compute_defaults_list(
        hydra.job.config_name, [*overrides["hydra"], *overrides["task"]], RunMode.RUN
    ).defaults
    taken: dict[str, str] = {}
    for group in ("task", "metrics"):
        for default in composed:
            path = PurePath(str(default.config_path))
            if str(path.parent) != group or str(default.parent).startswith(f"{group}/"):  # a file may extend another
                continue
            key = str(default.package) if group == "task" else f"{default.package}.{path.name}"
            if key in taken:
                raise ConfigError(_describe_collision(group, key, taken[key], path.name))
            taken[key] = path.name


def _describe_collision(group: str, key: str, first: str, second: str) -> str:
    if first == second:
        return f"{group}: {first} is chosen twice, but there can be only one {key}"
    return (
        f"{group}: {first} and {second} both declare the package {key} in the first line of their files; "
        f"leave one of them out, or start its file with '# @package task.{second}'"
    )


def reject_packaged_names(folders: Sequence[Path]) -> None:
    """Reject user configs that share a name with a packaged one or with each other: Hydra would take the first."""
    seen: dict[Path, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*/**/*.yaml")):
            name = path.relative_to(folder)
            if not (conf_dir() / name.parts[0]).is_dir():
                continue
            choice = f"{name.parent}={path.stem}"
            packaged = conf_dir() / name
            if packaged.exists() and not packaged.samefile(path):
                raise ConfigError(f"{path}: {choice} already names {packaged}, which would be used; rename your file")
            other = seen.setdefault(name, path)
            if not other.samefile(path):
                raise ConfigError(f"{path}: {choice} already names {other}, which would be used; rename one of them")
