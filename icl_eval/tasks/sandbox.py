"""Sandbox: running untrusted Jinja code (templates, chat templates, expressions over rows) with bounded resources.

Jinja's own sandbox blocks access to the outside, but not endless work or memory: nested loops, recursive macros,
`'a' * 10**9`, `'%999999999d' % 1`, a string that is repeatedly added to itself. Here

| resource                                     | limit                                       |
|----------------------------------------------|---------------------------------------------|
| one string that an operation creates         | `MAX_SIZE` characters                       |
| all strings of one rendering                 | `MAX_TOTAL` characters                      |
| a member of a list                           | counts as `MEMBER` characters               |
| the work of one rendering                    | `MAX_SECONDS` of processor time             |
| a whole number in a product or power         | `MAX_BITS` bits                             |
| the input of a filter that is slow           | `SLOW_FILTERS[name]` characters             |

The size of a result is bounded before it is computed, from the sizes of the operands. Random numbers and memory
addresses are refused too, because a prompt must be reproducible.
"""

import functools
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.filters import make_attrgetter
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from icl_eval.formatting import find_lone_surrogate

MAX_SIZE = 20_000_000
MAX_TOTAL = 100_000_000
MAX_SECONDS = 1.0
MAX_BITS = 10_000
MEMBER = 20
SLOW_FILTERS = {
    **dict.fromkeys(("groupby", "pprint", "sort", "title", "unique"), 1_000_000),
    **dict.fromkeys(("striptags", "urlize", "wordwrap"), 100_000),  # quadratic for some inputs
}
"""Filters whose single call can take longer than a whole rendering may, with the largest input that they accept."""

_COUNTED, _MEASURED = "each pass", "measured operand"  # the spaces keep templates from naming these filters
_READING_LISTS = frozenset(
    {"attr", "count", "d", "default", "dictsort", "first", "groupby", "items", "last", "length", "list", "map", "max"}
    | {"min", "reject", "rejectattr", "reverse", "select", "selectattr", "sort", "unique", _COUNTED, _MEASURED}
)
"""Filters whose result is no larger than their input, not counting nested members."""
_GROWING = frozenset(
    {"center", "expandtabs", "format", "format_map", "join", "ljust", "replace", "rjust", "strftime_now", "to_bytes"}
    | {"translate", "zfill"}
)
"""Methods and functions whose result can be larger than all of their inputs."""
_SEARCHING_BACKWARDS = frozenset({"rfind", "rindex", "rpartition", "rsplit"})
"""Methods whose time can be the product of the lengths of both strings."""
_DIGITS = re.compile(r"\d{4,18}")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+>")


class _Generator(CodeGenerator):
    """Compiles `a ~ b` to a call that checks the size of the result."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 (Jinja's name)
        self.write("environment.concat_values((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class _Spent(threading.local):
    """What the rendering in the current thread has used; several threads render with one environment."""

    total = 0
    deadline = 0.0


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox with bounded work and memory; `bound_environment` creates one."""

    code_generator_class = _Generator
    intercepted_binops = frozenset({"+", "*", "**", "%"})
    spent: _Spent

    def restart(self) -> None:
        """Reset the counters before a rendering."""
        self.spent.total, self.spent.deadline = 0, time.thread_time() + MAX_SECONDS

    def spend(self, size: int = 0) -> None:
        """Add to the characters created; raises SecurityError if the rendering exceeds a limit."""
        self.spent.total += size
        if self.spent.total > MAX_TOTAL:
            raise SecurityError(f"it creates strings of more than {MAX_TOTAL:,} characters in total")
        if time.thread_time() > self.spent.deadline:
            raise SecurityError(f"it takes more than {MAX_SECONDS:g} s of processor time")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute `left operator right` if the result is small enough."""
        if operator == "+":
            self._allow(_length(left) + _length(right))
        elif operator == "%":
            values = right if isinstance(right, tuple) else [right]
            self._allow(self._product(left, values) if isinstance(left, str | bytes) else 0)
        else:
            self._allow_power(operator, left, right)
        return self._count(super().call_binop(context, operator, left, right))

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function or method if the result is small enough."""
        self.spend()
        method = getattr(called, "__wrapped__", called)
        if getattr(method, "__name__", "") in _GROWING | _SEARCHING_BACKWARDS:
            self._allow(self._product(getattr(method, "__self__", ""), [*args, *kwargs.values()]))
        return self._count(super().call(context, called, *args, **kwargs))

    def concat(self, parts: Iterable[str]) -> str:
        """Join strings if the result is small enough."""
        pieces = []
        size = 0
        for part in parts:
            size += len(part)
            self._allow(size)
            pieces.append(part)
        self.spend(size)
        return "".join(pieces)

    def concat_values(self, values: Iterable[Any]) -> str:
        """Join values like the operator `~`."""
        return self.concat(str(self.format_value(value)) for value in values)

    def format_value(self, value: Any) -> Any:
        """Convert a value to a string for the output; raises SecurityError if it is too large or shows an address."""
        if isinstance(value, str | jinja2.Undefined):
            return value
        self._allow(self._size(value))
        return _refuse_address(str(value))

    def count_passes(self, values: Iterable[Any]) -> Iterator[Any]:
        """Yield the values of a loop, and check the limits in each iteration."""
        for value in values:
            self.spend()
            yield value

    def measure(self, value: Any) -> Any:
        """Return an operand of a comparison, which reads all nested members, if it is small enough."""
        if isinstance(value, list | tuple | dict):
            self._allow(self._size(value))
        return value

    def sum_values(self, values: Iterable[Any], attribute: str | int | None = None, start: Any = 0) -> Any:
        """Add values like the filter `sum`, and check the limits at each addition: a sum of lists copies them."""
        parts = values if attribute is None else map(make_attrgetter(self, attribute), values)
        for part in parts:
            self._allow(_length(start) + _length(part))
            start = self._count(start + part)
        return start

    def apply_filter(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], values: list[Any]) -> Any:
        """Apply a filter or a test if the result is small enough.

        Args:
            name: The name of the filter or test.
            function: The filter or test, with its keyword arguments bound.
            args: Its positional arguments.
            values: The positional and keyword arguments that come from the template.
        """
        self.spend()
        limit = SLOW_FILTERS.get(name, MAX_SIZE)
        if values and _length(values[0]) > limit:
            raise SecurityError(f"it applies {name} to more than {limit:,} characters")
        if name in _READING_LISTS or not values:
            return self._count(function(*args))
        self._allow(self._product(values[0], values[1:]))
        result = self._count(function(*args))
        converted = isinstance(result, str) and not isinstance(values[0], str)
        return _refuse_address(result) if converted else result

    def _allow(self, size: int) -> None:
        if size > MAX_SIZE:
            raise SecurityError(f"it creates a string of more than {MAX_SIZE:,} characters, or a list of that size")

    def _allow_power(self, operator: str, left: Any, right: Any) -> None:
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() + right.bit_length() if operator == "*" else left.bit_length() * abs(right)
            if bits > MAX_BITS:
                raise SecurityError(f"it creates a number of more than {MAX_BITS:,} bits")
        elif operator == "*":
            number = next((side for side in (left, right) if isinstance(side, int)), 0)
            self._allow((_length(left) + _length(right)) * abs(number))

    def _product(self, subject: Any, values: Iterable[Any]) -> int:
        """Return an upper bound on the result size of any method of `subject` with these arguments."""
        sizes = [abs(value) if isinstance(value, int) else self._size(value) for value in values]
        if isinstance(subject, str):
            sizes += map(int, _DIGITS.findall(subject))  # the width in '%999999999d' and '{:999999999}'
        return (self._size(subject) + 1) * (max(sizes, default=0) + 1)

    def _size(self, value: Any) -> int:
        """Return the number of characters in a value, including all nested members."""
        size, waiting = 0, [value]
        while waiting and size <= MAX_SIZE:
            self.spend()
            part = waiting.pop()
            size += _length(part) + 1
            if isinstance(part, Mapping):
                waiting += chain(part.keys(), part.values())
            elif isinstance(part, list | tuple):
                waiting += part
        return size

    def _count(self, result: Any) -> Any:
        self.spend(_length(result))
        return result

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        for loop in list(source.find_all(nodes.For)):
            loop.iter = nodes.Filter(loop.iter, _COUNTED, [], [], None, None, lineno=loop.lineno)
        for comparison in list(source.find_all(nodes.Compare)):
            sides: list[nodes.Compare | nodes.Operand] = [comparison, *comparison.ops]
            for side in sides:
                side.expr = nodes.Filter(side.expr, _MEASURED, [], [], None, None, lineno=comparison.lineno)
        source.set_environment(self)
        return super()._generate(source, *args, **kwargs)


def bound_environment(environment: jinja2.Environment) -> BoundedEnvironment:
    """Return a copy of an environment with bounded work and memory."""
    own: BoundedEnvironment = object.__new__(BoundedEnvironment)
    own.__dict__.update(environment.overlay().__dict__)
    own.spent = _Spent()
    own.extensions = {name: extension.bind(own) for name, extension in environment.extensions.items()}
    own.optimized = False  # otherwise constant expressions are computed, unbounded, at compile time
    own.globals = {**environment.globals, "lipsum": _refuse_randomness}
    filters = {**environment.filters, "random": _refuse_randomness, _COUNTED: own.count_passes, _MEASURED: own.measure}
    filters["sum"] = own.sum_values
    own.filters = {name: _bound_filter(own, name, function) for name, function in filters.items()}
    own.tests = {name: _bound_filter(own, name, function) for name, function in environment.tests.items()}
    own.finalize = jinja2.pass_eval_context(lambda _, value: own.format_value(value))
    return own


def render(template: jinja2.Template, values: Mapping[str, Any]) -> str:
    """Render a template of a bounded environment.

    Raises:
        Exception: Of any class, because a template is a program.
    """
    _environment_of(template).restart()
    text = template.render(values)
    require_valid_unicode(text)
    return text


def compile_expression(environment: BoundedEnvironment, expression: str) -> Callable[[Mapping[str, Any]], Any]:
    """Compile an expression to a function of its variables; compiling and calling can raise any exception."""
    compiled = environment.compile_expression(expression, undefined_to_none=False)

    def evaluate(values: Mapping[str, Any]) -> Any:
        environment.restart()
        return compiled(values)

    return evaluate


def require_valid_unicode(text: str) -> None:
    """Raise ValueError if a string contains a lone surrogate, which tokenizers reject."""
    if found := find_lone_surrogate(text):
        raise ValueError(f"it contains {found}")


def _environment_of(template: jinja2.Template) -> BoundedEnvironment:
    assert isinstance(template.environment, BoundedEnvironment)
    return template.environment


def _bound_filter(environment: BoundedEnvironment, name: str, function: Any) -> Any:
    """Return a bounded version of a filter or test, which Jinja calls with the same arguments."""
    passed = int(hasattr(function, "jinja_pass_arg"))  # Jinja passes a context as the first argument

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        values = [*args[passed:], *kwargs.values()]
        return environment.apply_filter(name, functools.partial(function, **kwargs), args, values)

    return call


def _refuse_randomness(*_args: Any, **_kwargs: Any) -> Any:
    raise SecurityError("it uses random numbers, but a prompt must be reproducible")


def _refuse_address(text: str) -> str:
    if _ADDRESS.search(text):
        raise SecurityError(f"it prints a Python object ({_ADDRESS.split(text)[0]}>)")
    return text


def _length(value: Any) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    return MEMBER * len(value) if isinstance(value, list | tuple | dict) else 0
