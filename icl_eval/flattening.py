"""Flattening: a nested configuration as one mapping, keyed as Hydra's overrides are."""

from collections.abc import Iterator, Mapping
from typing import Any


def flatten(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Return `{"task.qa.stop": [...], ...}` for `{"task": {"qa": {"stop": [...]}}}`; an empty mapping stays a value."""
    return dict(_items(nested, ""))


def _items(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _items(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
