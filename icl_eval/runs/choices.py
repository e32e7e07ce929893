"""Convert the choices in a configuration to the form that a run's files store.

A configuration names a class (`_target_: icl_eval.demonstrations.RandomOrder`). A file names the choice as the user
writes it (`{"name": "random", "seed": 0}`), so that a folder stays readable when a class moves in the code.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

GROUPS = ("decoding", "placement", "demonstrations", "order", "control", "likelihood")
"""Keys with one choice each. So has `postprocessing`, and `metrics` has several, both in a run and in each task."""

_NAME_KEYS = {f"{group}.name" for group in (*GROUPS, "postprocessing", "template")}

Change = Callable[[str, str, Any], Any]
"""Converts a choice, given its group (`metrics`), its key (`task.qa.metrics.bleu`) and its current form."""


def map_choices(config: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """Return a configuration with every choice converted."""
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
    """Return the converted choices that runs and tasks have in common."""
    changed: dict[str, Any] = {}
    if config.get("postprocessing"):
        changed["postprocessing"] = change("postprocessing", f"{prefix}postprocessing", config["postprocessing"])
    if isinstance(config.get("metrics"), Mapping):
        changed["metrics"] = {
            name: change("metrics", f"{prefix}metrics.{name}", metric) for name, metric in config["metrics"].items()
        }
    return changed


def flatten_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as a flat mapping with the user's keys: `{"order": "random", "order.seed": 0}`."""
    return {key.removesuffix(".name") if key in _NAME_KEYS else key: value for key, value in flatten(config).items()}


def flatten(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Return `{"task.qa.stop": [...], ...}` for `{"task": {"qa": {"stop": [...]}}}`; empty mappings stay values."""
    return dict(_walk(nested, ""))


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _walk(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
