"""Choices: where a configuration picks one thing out of several, and how a run's files say which.

A configuration names a class (`_target_: icl_eval.demonstrations.RandomOrder`), a file the choice as a user writes it
(`{"name": "random", "seed": 0}`): where a class is in the code must not decide whether a folder can be read.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

GROUPS = ("decoding", "placement", "demonstrations", "order", "control", "likelihood")
"""Keys that hold one choice. `postprocessing` does too, and `metrics` some, in a run and in each task."""

_NAME_KEYS = {f"{group}.name" for group in (*GROUPS, "postprocessing", "template")}

Change = Callable[[str, str, Any], Any]
"""From a group such as `metrics`, the key of a choice in it (`task.qa.metrics.bleu`) and the choice to another form."""


def map_choices(config: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """Return a configuration with every choice in another form."""
    changed = {**config, **_map_scoring(config, "", change)}
    changed |= {group: change(group, group, config[group]) for group in GROUPS if config.get(group)}
    if isinstance(config.get("task"), Mapping):
        changed["task"] = {
            name: {**task, **_map_scoring(task, f"task.{name}.", change)}
            for name, task in config["task"].items()
            if isinstance(task, Mapping)
        }
    return changed


def _map_scoring(config: Mapping[str, Any], prefix: str, change: Change) -> dict[str, Any]:
    """Return what a run and a task choose alike."""
    changed: dict[str, Any] = {}
    if config.get("postprocessing"):
        changed["postprocessing"] = change("postprocessing", f"{prefix}postprocessing", config["postprocessing"])
    if isinstance(config.get("metrics"), Mapping):
        changed["metrics"] = {
            name: change("metrics", f"{prefix}metrics.{name}", metric) for name, metric in config["metrics"].items()
        }
    return changed


def flatten_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration flat, as a user writes it: `{"order": "random", "order.seed": 0}`."""
    return {key.removesuffix(".name") if key in _NAME_KEYS else key: value for key, value in flatten(config).items()}


def flatten(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Return `{"task.qa.stop": [...], ...}` for `{"task": {"qa": {"stop": [...]}}}`; an empty mapping stays a value."""
    return dict(_items(nested, ""))


def _items(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _items(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
