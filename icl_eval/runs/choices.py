"""Convert the choices in a configuration to the form that a run's files store.

A configuration names a class (`_target_: icl_eval.demonstrations.RandomOrder`). A file names the choice as the user
writes it (`{"name": "random", "seed": 0}`), so that a folder stays readable when a class moves in the code.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

GROUPS = ("engine", "decoding", "placement", "demonstrations", "order", "control", "likelihood")
"""Keys of a run with one choice each."""

TASK_GROUPS = ("postprocessing", "likelihood")
"""Keys of each task with one choice, which the run may override. `metrics` has several choices in both."""

_NAME_KEYS = {f"{group}.name" for group in (*GROUPS, *TASK_GROUPS, "template")}

Change = Callable[[str, str, Any], Any]
"""Converts a choice, given its group (`metrics`), its key (`task.qa.metrics.bleu`) and its current form."""


def map_choices(config: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """Return a configuration with every choice converted."""
    changed = {**config, **_map_groups(config, (*GROUPS, "postprocessing"), "", change)}
    if isinstance(config.get("task"), Mapping):
        changed["task"] = {
            name: {**task, **_map_groups(task, TASK_GROUPS, f"task.{name}.", change)}
            for name, task in config["task"].items()
            if isinstance(task, Mapping)
        }
    return changed


def _map_groups(config: Mapping[str, Any], groups: Sequence[str], prefix: str, change: Change) -> dict[str, Any]:
    """Return the converted choices of a run or a task."""
    changed = {group: change(group, prefix + group, config[group]) for group in groups if config.get(group)}
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
