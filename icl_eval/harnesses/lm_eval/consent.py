"""Consent: what a task file of the user may contain unless Python is allowed to run.

A YAML file of lm-evaluation-harness can call Python in several ways: `!function`, a `class`, code of the hub, and Jinja
that the library renders outside a sandbox. Files inside the library itself are part of what the user installed.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import jinja2
import yaml
from jinja2 import nodes
from jinja2.meta import find_undeclared_variables

from icl_eval.errors import ConfigError, DataError

_CODE_KEYS = {"class", "unsafe_code", "hf_evaluate", "use_prompt", "trust_remote_code", "custom_dataset"}
"""Keys by which a file names code."""
_OFF = ("false", "no", "off", "null", "~", "")
_HIDDEN = re.compile(r"__[A-Za-z]")
_GLOBALS = {"self", "lipsum", "cycler", "joiner", "namespace"}
"""Objects of Jinja through which Python can be reached."""
_METHODS = {
    *("capitalize", "count", "endswith", "find", "get", "index", "isdigit", "items", "join", "keys", "lower", "lstrip"),
    *("replace", "rfind", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper", "values"),
    "zfill",
}
"""Methods of strings, lists and mappings that a template may call; besides them, only `range`."""
_STATEMENTS = (nodes.Macro, nodes.CallBlock, nodes.Import, nodes.FromImport, nodes.Include, nodes.Extends, nodes.Block)
_READING_FILTERS = {"attr", "map", "selectattr", "rejectattr", "groupby", "sum", "sort", "unique", "min", "max"}
"""Filters that can read an attribute by name."""


Place = tuple[str, yaml.Node]
"""A scalar of a file: the keys that lead to it, and the node."""


def require_consent(path: Path, key: str) -> None:
    """Check that a task file, with the files that it includes, contains data only.

    Args:
        path: The file.
        key: The configuration key of the tasks' names, for the error message.

    Raises:
        ConfigError: If it can run code; the message says where, and how to allow it.
        DataError: If it cannot be read.
    """
    for file, root in _read_with_includes(path.expanduser().resolve(), set()):
        for place, node in _walk(root, "", set()):
            if reason := _find_code(place, node):
                owner = key.rpartition(".")[0]
                raise ConfigError(
                    f"{file}: {place}: {reason}; allow it with {owner}.trust_remote_code=true if you trust the file"
                )


def _read_with_includes(path: Path, seen: set[Path]) -> Iterator[tuple[Path, yaml.Node]]:
    if path in seen or _is_packaged(path):
        return
    seen.add(path)
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    if root is None:
        return
    yield path, root
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value == "include":
            names = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for name in names:
                yield from _read_with_includes((path.parent / str(name.value)).resolve(), seen)


def _is_packaged(path: Path) -> bool:
    import lm_eval

    return path.is_relative_to(Path(lm_eval.__file__).parent)


def _walk(node: yaml.Node, place: str, seen: set[int]) -> Iterator[Place]:
    """Yield every node of a file with its place, also keys, and what another entry replaces.

    The nodes are those that YAML composes, not the values that become of them: a function runs while they are made.
    """
    if id(node) in seen:
        return
    seen.add(id(node))
    yield place, node
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            yield from _walk(key, f"{place}.{name}" if place else name, seen)
            yield from _walk(value, f"{place}.{name}" if place else name, seen)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _walk(item, f"{place}[{number}]", seen)


def _find_code(place: str, node: yaml.Node) -> str | None:
    """Return by what a node could run code; None if it cannot."""
    if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.startswith("tag:yaml.org,2002:python"):
        return f"{node.tag} {node.value if isinstance(node, yaml.ScalarNode) else ''}".rstrip() + " runs Python"
    if not isinstance(node, yaml.ScalarNode):
        return None
    name = place.rpartition(".")[2]
    if name in _CODE_KEYS and node.value != name and node.value.lower() not in _OFF:
        return f"{node.value!r} names code to run"
    if "{{" in node.value or "{%" in node.value:
        return _find_unsafe_template(node.value)
    return None


def _find_unsafe_template(text: str) -> str | None:
    """Return why a template could reach Python outside a sandbox; None if it only reads the row.

    Everything on the way from a string to the interpreter has a hidden name, or is called. A name may be computed from
    the row alone, as in `choices[label]`, and no object may be called but by the methods of strings and containers.
    """
    try:
        tree = jinja2.Environment(autoescape=False).parse(text)
    except (jinja2.TemplateError, RecursionError) as error:
        return f"not a template ({error})"
    names = [node.name for node in tree.find_all(nodes.Name)] + [node.attr for node in tree.find_all(nodes.Getattr)]
    strings = [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
    suspicious = [name for name in names if name.startswith("_") or name in _GLOBALS]
    suspicious += filter(_HIDDEN.search, strings)
    filters = filter(_has_names, tree.find_all(nodes.Filter))
    suspicious += [node.name for node in filters if node.name in _READING_FILTERS]
    suspicious += [type(node).__name__.lower() for kind in _STATEMENTS for node in tree.find_all(kind)]
    suspicious += ["recursive" for loop in tree.find_all(nodes.For) if loop.recursive]
    suspicious += [_name_call(call) for call in tree.find_all(nodes.Call) if not _is_harmless(call)]
    if suspicious:
        return f"the template uses {suspicious[0]!r}, and is not rendered in a sandbox"
    computed = [item.arg for item in tree.find_all(nodes.Getitem) if not _is_written_out(item.arg)]
    columns = find_undeclared_variables(tree)
    if len(computed) > 1 or not all(isinstance(each, nodes.Name) and each.name in columns for each in computed):
        return "the template reads items whose names are computed, and is not rendered in a sandbox"
    return None


def _is_written_out(index: nodes.Node) -> bool:
    """Return whether the index of an item is a number, a string or a range in the template itself."""
    return isinstance(index, nodes.Const | nodes.Slice) or (
        isinstance(index, nodes.Neg) and isinstance(index.node, nodes.Const)
    )


def _is_harmless(call: nodes.Call) -> bool:
    called = call.node
    return (isinstance(called, nodes.Getattr) and called.attr in _METHODS) or (
        isinstance(called, nodes.Name) and called.name == "range"
    )


def _name_call(call: nodes.Call) -> str:
    called = call.node
    return f"{called.attr if isinstance(called, nodes.Getattr) else getattr(called, 'name', '…')}()"


def _has_names(call: nodes.Filter) -> bool:
    return bool(call.args or call.kwargs or call.dyn_args or call.dyn_kwargs)
