"""Missing values: making expressions over rows fail on nulls instead of silently using them.

Python formats a null as the string `None`, Jinja's `int` filter returns 0 for a string that is not a number, and -1 is
the index of a list's last member. Each of these would turn a row without an answer into a row with a wrong answer. Here
they are errors, unless the expression handles the null explicitly: `a or 'none'`, `a if a else 'none'`, `a is none`,
`a|default('none')`.
"""

# ruff: noqa: N802  # Jinja calls visitors by the class names of the nodes

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
"""Names of internal filters; the spaces keep expressions from naming them."""
_FINDERS = ("index", "find", "rindex", "rfind")
_TESTS_OF_MISSING = ("none", "defined", "undefined")


class MissingValue(jinja2.StrictUndefined):
    """A null or NaN in a row; every use is an error, except testing whether it is missing."""

    __slots__ = ()
    __repr__ = Undefined._fail_with_undefined_error  # used when a list that contains it is formatted

    def __eq__(self, other: object) -> bool:  # type: ignore[override]  # the superclass method never returns
        """Return True for a comparison with `none`; fail for any other comparison."""
        if other is not None:
            self._fail_with_undefined_error()
        return True

    def __ne__(self, other: object) -> bool:  # type: ignore[override]
        """Return the negation of equality."""
        return not self == other

    __hash__ = jinja2.StrictUndefined.__hash__  # type: ignore[assignment]  # defining __eq__ removes __hash__


def mark_missing(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a row with each null and NaN replaced by `MissingValue`, also within lists and objects."""
    return {name: _mark(name, value) for name, value in values.items()}


def _mark(name: str, value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        kind = "null" if value is None else "NaN"
        return MissingValue(hint=f"{name!r} is {kind}; give a replacement: {name} or '…'")
    if isinstance(value, bytes):
        return jinja2.StrictUndefined(hint=f"{name!r} is bytes, not a string")
    if isinstance(value, Mapping):
        return {key: _mark(name, part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_mark(name, part) for part in value]
    return value


def refuse_missing(environment: jinja2.Environment) -> None:
    """Make the expressions of an environment reject missing values, invalid numbers and out-of-range indices."""
    environment.code_generator_class = type("_Checking", (_Code, environment.code_generator_class), {})
    environment.tests["none"] = lambda value: value is None or isinstance(value, MissingValue)
    environment.filters |= {"int": _int, "float": _float, _OR_NONE: _none_if_missing, _KNOWN_PARTS: _drop_missing}
    environment.filters |= {_USABLE: _require_value, _SOUGHT: _require_sought, _PICK: _pick, _BOUND: _require_bound}


class _Code(CodeGenerator):
    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:
        super().visit_Template(_Strict().visit(node), frame)


class _Strict(NodeTransformer):
    """Wraps tests, searches and indices in an expression in filters that check their operands."""

    def visit_Or(self, node: nodes.Or) -> nodes.Node:
        """Allow the left side to be missing: the right side replaces it."""
        self.generic_visit(node)
        return nodes.Or(_wrap_in_filter(node.left, _OR_NONE), node.right, lineno=node.lineno)

    def visit_CondExpr(self, node: nodes.CondExpr) -> nodes.Node:
        """Allow the condition to be missing if it is also the result (`a if a else 'none'`)."""
        is_shown = node.test in (node.expr1, nodes.Not(node.expr2))
        self.generic_visit(node)
        if is_shown and isinstance(node.test, nodes.Not):
            node.test.node = _wrap_in_filter(node.test.node, _OR_NONE)
        elif is_shown:
            node.test = _wrap_in_filter(node.test, _OR_NONE)
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        """Make `select` without a test drop missing values."""
        self.generic_visit(node)
        if node.name == "select" and node.node is not None and not node.args:
            node.node = _wrap_in_filter(node.node, _KNOWN_PARTS)
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        """Reject every test of a missing value, except tests of whether it is missing."""
        self.generic_visit(node)
        if node.name not in _TESTS_OF_MISSING:
            node.node = _wrap_in_filter(node.node, _USABLE)
        return node

    def visit_Call(self, node: nodes.Call) -> nodes.Node:
        """Reject a search for an empty string, which every string contains at index 0 (`'ABCD'.index(label)`)."""
        self.generic_visit(node)
        if isinstance(node.node, nodes.Getattr) and node.node.attr in _FINDERS:
            node.args = [_wrap_in_filter(argument, _SOUGHT) for argument in node.args[:1]] + node.args[1:]
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        """Check indices that depend on the row; constant indices, such as -1, are intentional."""
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice) or _is_constant(node.arg):
            return node
        return _wrap_in_filter(node.node, _PICK, node.arg)

    def visit_Slice(self, node: nodes.Slice) -> nodes.Node:
        """Check slice bounds that depend on the row."""
        self.generic_visit(node)
        bounds = (
            bound if bound is None or _is_constant(bound) else _wrap_in_filter(bound, _BOUND)
            for bound in (node.start, node.stop, node.step)
        )
        return nodes.Slice(*bounds, lineno=node.lineno)


def _wrap_in_filter(node: nodes.Expr, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno, environment=node.environment)


def _is_constant(node: nodes.Expr) -> bool:
    try:
        node.as_const()
    except nodes.Impossible:
        return False
    return True


def _none_if_missing(value: Any) -> Any:
    return None if isinstance(value, MissingValue) else value


def _drop_missing(values: Any) -> Any:
    return [part for part in values if not isinstance(part, MissingValue)]


def _require_value(value: Any) -> Any:
    if isinstance(value, Undefined):
        str(value)  # raises an error that names what is missing
    return value


def _require_sought(value: Any) -> Any:
    if _require_value(value) == "":
        raise jinja2.TemplateRuntimeError("the search string is empty, and every string contains it")
    return value


@jinja2.pass_environment
def _pick(environment: jinja2.Environment, values: Any, key: Any) -> Any:
    if isinstance(values, list | tuple | str) and not (isinstance(key, int) and 0 <= key < len(values)):
        allowed = f"0 to {len(values) - 1}" if values else "none, it is empty"
        raise jinja2.TemplateRuntimeError(f"{key!r} is not a valid index (allowed: {allowed})")
    return environment.getitem(values, _require_value(key))


def _require_bound(value: Any) -> Any:
    if isinstance(_require_value(value), int) and value < 0:
        raise jinja2.TemplateRuntimeError(f"{value} is not a valid slice bound (allowed: 0 or more)")
    return value


def _int(value: Any, default: Any = None, base: int = 10) -> Any:
    """Convert to a whole number like Jinja's filter, but without a default reject values that are not one."""
    number = do_int(value, default, base)
    if default is None and not _is_whole(value, number, base):
        raise jinja2.TemplateRuntimeError(f"{value!r} is not a whole number")
    return number


def _is_whole(value: Any, number: int | None, base: int) -> bool:
    """Return whether a number is what a value stands for, and no part of it."""
    if isinstance(value, str) and base != 10:  # the filter reads what has no such digits as a decimal number
        try:
            return int(value, base) == number
        except ValueError:
            return False
    return number is not None and do_float(value, float(number)) == float(number)


def _float(value: Any, default: Any = None) -> Any:
    """Convert to a number like Jinja's filter, but without a default reject values that are not one."""
    number = do_float(value, default)
    if number is None:
        raise jinja2.TemplateRuntimeError(f"{value!r} is not a number")
    return number
