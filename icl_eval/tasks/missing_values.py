"""Missing values: what an expression over a row must not take for a value.

Python writes a null as the word `None`, `int` makes 0 of what is no number, and -1 is a list's last place. Each of them
turns a row without an answer into one with a wrong answer, so here each of them is an error, unless the expression says
what stands in a null's place: `a or 'none'`, `a if a else 'none'`, `a is none`, `a|default('none')`.
"""

# ruff: noqa: N802  # visitors are called by the names of the nodes

import math
from collections.abc import Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.filters import do_float, do_int
from jinja2.runtime import Undefined
from jinja2.visitor import NodeTransformer

_OR_NONE, _KNOWN_PARTS, _USABLE = "or none", "known parts", "usable value"
_SOUGHT, _PICK, _BOUND = "sought value", "picked value", "checked bound"
"""Names of filters that no expression can have written: they have spaces in them."""
_FINDERS = ("index", "find", "rindex", "rfind")
_TESTS_OF_MISSING = ("none", "defined", "undefined")


class MissingValue(jinja2.StrictUndefined):
    """A null or a NaN of a row; every use of it is an error but the question whether it is one."""

    __slots__ = ()
    __repr__ = Undefined._fail_with_undefined_error  # a list writes its parts so

    def __eq__(self, other: object) -> bool:  # type: ignore[override]  # the one of the superclass never returns
        """Return whether it is compared with `none`; to compare it with anything else is an error."""
        if other is not None:
            self._fail_with_undefined_error()
        return True

    def __ne__(self, other: object) -> bool:  # type: ignore[override]
        """Return the opposite of equality."""
        return not self == other

    __hash__ = jinja2.StrictUndefined.__hash__  # type: ignore[assignment]  # a class that defines equality loses it


def mark_missing(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's values with `MissingValue` in place of each null and NaN, also within lists and objects."""
    return {name: _marked(name, value) for name, value in values.items()}


def _marked(name: str, value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        kind = "null" if value is None else "NaN"
        return MissingValue(hint=f"{name!r} is {kind}; say what stands in its place: {name} or '…'")
    if isinstance(value, bytes):
        return jinja2.StrictUndefined(hint=f"{name!r} is bytes, which are no text")
    if isinstance(value, Mapping):
        return {key: _marked(name, part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(name, part) for part in value]
    return value


def refuse_missing(environment: jinja2.Environment) -> None:
    """Make an environment's expressions refuse missing values, what is no number, and places that no list has."""
    environment.code_generator_class = type("_Checking", (_Code, environment.code_generator_class), {})
    environment.tests["none"] = lambda value: value is None or isinstance(value, MissingValue)
    environment.filters |= {"int": _int, "float": _float, _OR_NONE: _or_none, _KNOWN_PARTS: _known_parts}
    environment.filters |= {_USABLE: _usable, _SOUGHT: _sought, _PICK: _pick, _BOUND: _bound}


class _Code(CodeGenerator):
    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:
        super().visit_Template(_Strict().visit(node), frame)


class _Strict(NodeTransformer):
    """Puts a filter around each part of an expression that asks what a value is, or where in a list to look."""

    def visit_Or(self, node: nodes.Or) -> nodes.Node:
        """Let the left side be missing: the right side stands in its place."""
        self.generic_visit(node)
        return nodes.Or(_filtered(node.left, _OR_NONE), node.right, lineno=node.lineno)

    def visit_CondExpr(self, node: nodes.CondExpr) -> nodes.Node:
        """Let the condition be missing where the value itself is shown otherwise (`a if a else 'none'`)."""
        is_shown = node.test in (node.expr1, nodes.Not(node.expr2))
        self.generic_visit(node)
        if is_shown and isinstance(node.test, nodes.Not):
            node.test.node = _filtered(node.test.node, _OR_NONE)
        elif is_shown:
            node.test = _filtered(node.test, _OR_NONE)
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        """Let `select` leave out what is missing."""
        self.generic_visit(node)
        if node.name == "select" and node.node is not None and not node.args:
            node.node = _filtered(node.node, _KNOWN_PARTS)
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        """Refuse to test what is missing for anything but that."""
        self.generic_visit(node)
        if node.name not in _TESTS_OF_MISSING:
            node.node = _filtered(node.node, _USABLE)
        return node

    def visit_Call(self, node: nodes.Call) -> nodes.Node:
        """Refuse to look for nothing, which is found at the beginning of every string (`'ABCD'.index(label)`)."""
        self.generic_visit(node)
        if isinstance(node.node, nodes.Getattr) and node.node.attr in _FINDERS:
            node.args = [_filtered(argument, _SOUGHT) for argument in node.args[:1]] + node.args[1:]
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        """Check places that a row's values decide; those that are written in the expression are meant."""
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice) or _is_constant(node.arg):
            return node
        return _filtered(node.node, _PICK, node.arg)

    def visit_Slice(self, node: nodes.Slice) -> nodes.Node:
        """Check bounds that a row's values decide."""
        self.generic_visit(node)
        bounds = (
            bound if bound is None or _is_constant(bound) else _filtered(bound, _BOUND)
            for bound in (node.start, node.stop, node.step)
        )
        return nodes.Slice(*bounds, lineno=node.lineno)


def _filtered(node: nodes.Expr, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno, environment=node.environment)


def _is_constant(node: nodes.Expr) -> bool:
    try:
        node.as_const()
    except nodes.Impossible:
        return False
    return True


def _or_none(value: Any) -> Any:
    return None if isinstance(value, MissingValue) else value


def _known_parts(values: Any) -> Any:
    return [part for part in values if not isinstance(part, MissingValue)]


def _usable(value: Any) -> Any:
    if isinstance(value, Undefined):
        str(value)  # says what is missing
    return value


def _sought(value: Any) -> Any:
    if _usable(value) == "":
        raise jinja2.TemplateRuntimeError("an empty string is looked for, which is in every string")
    return value


@jinja2.pass_environment
def _pick(environment: jinja2.Environment, values: Any, key: Any) -> Any:
    if isinstance(values, list | tuple | str) and not (isinstance(key, int) and 0 <= key < len(values)):
        allowed = f"0 to {len(values) - 1}" if values else "none, it is empty"
        raise jinja2.TemplateRuntimeError(f"{key!r} is no place in a {type(values).__name__} (allowed: {allowed})")
    return environment.getitem(values, _usable(key))


def _bound(value: Any) -> Any:
    if isinstance(_usable(value), int) and value < 0:
        raise jinja2.TemplateRuntimeError(f"{value} is no place to begin or end at (allowed: 0 and more)")
    return value


def _int(value: Any, default: Any = None, base: int = 10) -> Any:
    """Return a whole number as Jinja's filter does, and without a default refuse what is none."""
    number = do_int(value, default, base)
    if default is None and (number is None or do_float(value, float(number)) != float(number)):
        raise jinja2.TemplateRuntimeError(f"{value!r} is no whole number")
    return number


def _float(value: Any, default: Any = None) -> Any:
    """Return a number as Jinja's filter does, and without a default refuse what is none."""
    number = do_float(value, default)
    if number is None:
        raise jinja2.TemplateRuntimeError(f"{value!r} is no number")
    return number
