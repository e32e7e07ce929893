"""Consent: what a task file of the user may contain unless Python is allowed to run.

A YAML file of lm-evaluation-harness can call Python in several ways: `!function`, a `class`, code of the hub, and Jinja
that the library renders outside a sandbox. Files inside the library itself are part of what the user installed.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2 import nodes

from icl_eval.errors import ConfigError, DataError

_CODE_KEYS = {"class", "unsafe_code", "hf_evaluate", "use_prompt", "trust_remote_code", "custom_dataset"}
"""Keys by which a file names code."""
_HIDDEN = re.compile(r"__[A-Za-z]")
_GLOBALS = {"self", "lipsum", "cycler", "joiner", "namespace"}
"""Objects of Jinja through which Python can be reached."""
_FORMATS = {"format", "format_map"}
"""Methods of strings that read attributes."""
_STATEMENTS = (nodes.Macro, nodes.CallBlock, nodes.Import, nodes.FromImport, nodes.Include, nodes.Extends, nodes.Block)
_READING_FILTERS = {"attr", "map", "selectattr", "rejectattr", "groupby", "sum", "sort", "unique", "min", "max"}
"""Filters that can read an attribute by name."""


class _Function(str):
    """What `!function` names."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no type hints
    """A safe loader that keeps the name behind `!function` as a string of its own kind."""


_Loader.add_constructor("!function", lambda loader, node: _Function(loader.construct_scalar(node)))


def require_consent(path: Path, key: str) -> None:
    """Check that a task file, with the files that it includes, contains data only.

    Args:
        path: The file.
        key: The configuration key of the tasks' names, for the error message.

    Raises:
        ConfigError: If it can run code; the message says where, and how to allow it.
        DataError: If it cannot be read.
    """
    for file, content in _read_with_includes(path.expanduser().resolve(), set()):
        for place, value in _walk(content, ""):
            if reason := _find_code(place, value):
                owner = key.rpartition(".")[0]
                raise ConfigError(
                    f"{file}: {place}: {reason}; allow it with {owner}.trust_remote_code=true if you trust the file"
                )


def _read_with_includes(path: Path, seen: set[Path]) -> Iterator[tuple[Path, Any]]:
    if path in seen or _is_packaged(path):
        return
    seen.add(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    yield path, content
    included = content.get("include", ()) if isinstance(content, dict) else ()
    for name in [included] if isinstance(included, str) else included:
        yield from _read_with_includes((path.parent / str(name)).resolve(), seen)


def _is_packaged(path: Path) -> bool:
    import lm_eval

    return path.is_relative_to(Path(lm_eval.__file__).parent)


def _walk(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield every key and every leaf of a file with its place."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _walk(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _walk(item, f"{place}[{number}]")
    else:
        yield place, value


def _find_code(place: str, value: Any) -> str | None:
    """Return by what a value could run code; None if it cannot."""
    if isinstance(value, _Function):
        return f"!function {value} runs Python"
    if place.rpartition(".")[2] in _CODE_KEYS and value not in (False, None):
        return f"{value!r} names code to run"
    if isinstance(value, str) and ("{{" in value or "{%" in value):
        return _find_unsafe_template(value)
    return None


def _find_unsafe_template(text: str) -> str | None:
    """Return why a template could reach Python outside a sandbox; None if it only reads the row.

    A single item whose name is computed (`choices[label]`) is harmless: from there every way on needs a hidden name.
    """
    try:
        tree = jinja2.Environment(autoescape=False).parse(text)
    except (jinja2.TemplateError, RecursionError) as error:
        return f"not a template ({error})"
    names = [node.name for node in tree.find_all(nodes.Name)] + [node.attr for node in tree.find_all(nodes.Getattr)]
    strings = [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
    suspicious = [name for name in names if name.startswith("_") or name in _GLOBALS | _FORMATS]
    suspicious += filter(_HIDDEN.search, strings)
    suspicious += [
        node.name for node in tree.find_all(nodes.Filter) if node.name in _READING_FILTERS and _has_names(node)
    ]
    suspicious += [type(node).__name__.lower() for kind in _STATEMENTS for node in tree.find_all(kind)]
    suspicious += ["recursive" for loop in tree.find_all(nodes.For) if loop.recursive]
    if suspicious:
        return f"the template uses {suspicious[0]!r}, and is not rendered in a sandbox"
    if sum(not isinstance(item.arg, nodes.Const | nodes.Slice) for item in tree.find_all(nodes.Getitem)) > 1:
        return "the template reads several items whose names are computed, and is not rendered in a sandbox"
    return None


def _has_names(call: nodes.Filter) -> bool:
    return bool(call.args or call.kwargs or call.dyn_args or call.dyn_kwargs)
