"""Sandbox: Jinja from other people's files (templates, chat templates, expressions over rows), kept within bounds.

Jinja's own sandbox refuses what reaches outside, but not what never ends or fills the memory: nested loops, macros that
call themselves, `'a' * 10**9`, `'%999999999d' % 1`, a string that is added to itself again and again. Here

| what                                         | is at most                                  |
|----------------------------------------------|---------------------------------------------|
| one string that an operation makes           | `MAX_SIZE` characters                       |
| all strings of one rendering                 | `MAX_TOTAL` characters                      |
| a member of a list                           | counted as `MEMBER` characters              |
| the work of one rendering                    | `MAX_SECONDS` of processor time             |
| a whole number                               | `MAX_BITS` bits, where it is multiplied     |

The size of a result is bounded before it is made, from the sizes of what it is made of. What draws at random or prints
an address in memory is refused as well: a prompt is the same every time.
"""

import functools
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_SIZE = 20_000_000
MAX_TOTAL = 100_000_000
MAX_SECONDS = 1.0
MAX_BITS = 10_000
MEMBER = 20

_COUNTED = "each pass"  # no template can name a filter so
_READING_LISTS = frozenset(
    {"attr", "count", "d", "default", "dictsort", "first", "groupby", "items", "last", "length", "list", "map", "max"}
    | {"min", "reject", "rejectattr", "reverse", "select", "selectattr", "sort", "unique", _COUNTED}
)
"""Filters whose result is no larger than what they read, members of members not counted."""
_GROWING = frozenset(
    {"center", "expandtabs", "format", "format_map", "join", "ljust", "replace", "rjust", "strftime_now", "to_bytes"}
    | {"translate", "zfill"}
)
"""Methods and functions whose result can be larger than all that they read."""
_DIGITS = re.compile(r"\d{4,18}")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+>")


class _Generator(CodeGenerator):
    """Compiles `a ~ b` to a call that can refuse it."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 (Jinja's name)
        self.write("environment.concat_values((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox that bounds work and memory; see `bounded` for how to make one."""

    code_generator_class = _Generator
    intercepted_binops = frozenset({"+", "*", "**", "%"})
    total = 0
    deadline = 0.0

    def restart(self) -> None:
        """Begin a rendering: nothing is used up."""
        self.total, self.deadline = 0, time.thread_time() + MAX_SECONDS

    def spend(self, size: int = 0) -> None:
        """Count what has been made; raises SecurityError where a rendering makes or takes too much."""
        self.total += size
        if self.total > MAX_TOTAL:
            raise SecurityError(f"it makes strings of more than {MAX_TOTAL:,} characters")
        if time.thread_time() > self.deadline:
            raise SecurityError(f"it takes more than {MAX_SECONDS:g} s of processor time")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute `left operator right` where the result is not too large."""
        if operator == "+":
            self._allow(_length(left) + _length(right))
        elif operator == "%":
            values = right if isinstance(right, tuple) else [right]
            self._allow(self._product(left, values) if isinstance(left, str | bytes) else 0)
        else:
            self._allow_power(operator, left, right)
        return self._counted(super().call_binop(context, operator, left, right))

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what a template may call where the result is not too large."""
        self.spend()
        method = getattr(called, "__wrapped__", called)
        if getattr(method, "__name__", "") in _GROWING:
            self._allow(self._product(getattr(method, "__self__", ""), [*args, *kwargs.values()]))
        return self._counted(super().call(context, called, *args, **kwargs))

    def concat(self, parts: Iterable[str]) -> str:
        """Join the pieces of a text where it is not too large."""
        pieces = []
        size = 0
        for part in parts:
            size += len(part)
            self._allow(size)
            pieces.append(part)
        self.spend(size)
        return "".join(pieces)

    def concat_values(self, values: Iterable[Any]) -> str:
        """Join values as `~` does."""
        return self.concat(str(self.printed(value)) for value in values)

    def printed(self, value: Any) -> Any:
        """Return what is to become a part of the text; raises SecurityError for what no prompt can hold."""
        if isinstance(value, str | jinja2.Undefined):
            return value
        self._allow(self._size(value))
        return _without_address(str(value))

    def each_pass(self, values: Iterable[Any]) -> Iterator[Any]:
        """Yield the members of what a loop goes through, and count the passes."""
        for value in values:
            self.spend()
            yield value

    def filtered(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], values: list[Any]) -> Any:
        """Apply a filter or a test where the result is not too large.

        Args:
            name: What it is called.
            function: The filter, without the values.
            args: What it is called with.
            values: Those of `args`, and by name, that a template gives.
        """
        self.spend()
        if name in _READING_LISTS or not values:
            return self._counted(function(*args))
        self._allow(self._product(values[0], values[1:]))
        result = self._counted(function(*args))
        made = isinstance(result, str) and not isinstance(values[0], str)
        return _without_address(result) if made else result

    def _allow(self, size: int) -> None:
        if size > MAX_SIZE:
            raise SecurityError(f"it makes a string of more than {MAX_SIZE:,} characters, or a list as large")

    def _allow_power(self, operator: str, left: Any, right: Any) -> None:
        if isinstance(left, int) and isinstance(right, int):
            factors = right.bit_length() if operator == "*" else 0
            bits = left.bit_length() + factors if operator == "*" else left.bit_length() * abs(right)
            if bits > MAX_BITS:
                raise SecurityError(f"it makes a number of more than {MAX_BITS:,} bits")
        elif operator == "*":
            number = next((side for side in (left, right) if isinstance(side, int)), 0)
            self._allow((_length(left) + _length(right)) * abs(number))

    def _product(self, subject: Any, values: Iterable[Any]) -> int:
        """Return a size that no method of `subject` with such arguments goes beyond."""
        sizes = [abs(value) if isinstance(value, int) else self._size(value) for value in values]
        if isinstance(subject, str):
            sizes += map(int, _DIGITS.findall(subject))  # the width in '%999999999d' and '{:999999999}'
        return (self._size(subject) + 1) * (max(sizes, default=0) + 1)

    def _size(self, value: Any) -> int:
        """Return how many characters a value has, those of its members and theirs included."""
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

    def _counted(self, result: Any) -> Any:
        self.spend(_length(result))
        return result

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        for loop in list(source.find_all(nodes.For)):
            loop.iter = nodes.Filter(loop.iter, _COUNTED, [], [], None, None, lineno=loop.lineno)
        source.set_environment(self)
        return super()._generate(source, *args, **kwargs)


def bounded(environment: jinja2.Environment) -> BoundedEnvironment:
    """Return an environment that does what another one does, within bounds."""
    own: BoundedEnvironment = object.__new__(BoundedEnvironment)
    own.__dict__.update(environment.overlay().__dict__)
    own.extensions = {name: extension.bind(own) for name, extension in environment.extensions.items()}
    own.optimized = False  # or constants are computed while the text is compiled
    own.globals = {**environment.globals, "lipsum": _refuse_chance}
    filters = {**environment.filters, "random": _refuse_chance, _COUNTED: lambda values: own.each_pass(values)}
    own.filters = {name: _bounded_filter(own, name, function) for name, function in filters.items()}
    own.tests = {name: _bounded_filter(own, name, function) for name, function in environment.tests.items()}
    own.finalize = jinja2.pass_eval_context(lambda _, value: own.printed(value))
    return own


def render(template: jinja2.Template, values: Mapping[str, Any]) -> str:
    """Render a template of a bounded environment.

    Raises:
        Exception: Of any kind, as a template is a program.
    """
    _environment_of(template).restart()
    text = template.render(values)
    require_whole(text)
    return text


def compile_expression(environment: BoundedEnvironment, expression: str) -> Callable[[Mapping[str, Any]], Any]:
    """Return an expression as a function of the values of its names; both raise exceptions of any kind."""
    compiled = environment.compile_expression(expression, undefined_to_none=False)

    def evaluate(values: Mapping[str, Any]) -> Any:
        environment.restart()
        return compiled(values)

    return evaluate


def require_whole(text: str) -> None:
    """Raise ValueError where a text has half a character in it, which no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"it has half a character ({text[error.start]!r}) in it") from None


def _environment_of(template: jinja2.Template) -> BoundedEnvironment:
    assert isinstance(template.environment, BoundedEnvironment)
    return template.environment


def _bounded_filter(environment: BoundedEnvironment, name: str, function: Any) -> Any:
    """Return a filter or a test within bounds, which Jinja gives what it gives the original."""
    passed = int(hasattr(function, "jinja_pass_arg"))  # a context before the values

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        values = [*args[passed:], *kwargs.values()]
        return environment.filtered(name, functools.partial(function, **kwargs), args, values)

    return call


def _refuse_chance(*_args: Any, **_kwargs: Any) -> Any:
    raise SecurityError("it draws at random, and a prompt must be the same every time")


def _without_address(text: str) -> str:
    if _ADDRESS.search(text):
        raise SecurityError(f"it prints an object of Python ({_ADDRESS.split(text)[0]}>)")
    return text


def _length(value: Any) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    return MEMBER * len(value) if isinstance(value, list | tuple | dict) else 0
