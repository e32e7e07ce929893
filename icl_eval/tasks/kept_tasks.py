"""Keep the tasks that have been read while a command runs, since the cells of a sweep read the same ones.

All cells then see the same data, even if a file changes in between. Outside of a command, nothing is kept.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

_MOST_EXAMPLES = 1_000_000
"""Limit on the examples of all tasks that are kept, which take about 1 kB each."""


class Readable(Protocol):
    """One or several tasks."""

    @property
    def num_examples(self) -> int:
        """The number of examples of all splits."""


Found = TypeVar("Found", bound=Readable)

_kept: OrderedDict[Hashable, Any] | None = None
"""Tasks by where they come from, those used least recently first; None if nothing is kept."""


def start_keeping_tasks() -> None:
    """Keep tasks from now on, in a process that does nothing but run cells."""
    global _kept
    if _kept is None:
        _kept = OrderedDict()


@contextmanager
def keeping_tasks() -> Iterator[None]:
    """Keep tasks within a `with` block."""
    global _kept
    _kept = OrderedDict()
    try:
        yield
    finally:
        _kept = None


def get_or_read(key: Hashable, read: Callable[[], Found]) -> Found:
    """Return what is kept under a key; if there is nothing, read it."""
    if _kept is None:
        return read()
    if key not in _kept:
        _kept[key] = read()
    found: Found = _kept[key]
    _kept.move_to_end(key)
    while sum(each.num_examples for each in _kept.values()) > _MOST_EXAMPLES:
        _kept.popitem(last=False)
    return found
