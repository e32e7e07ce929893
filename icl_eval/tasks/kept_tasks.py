"""Keep the tasks that have been read while a command runs, since the cells of a sweep read the same ones.

All cells then see the same data, even if a file changes in between. Outside of a command, nothing is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from icl_eval.tasks.loading import Task

_MOST_EXAMPLES = 1_000_000
"""Limit on the examples of all tasks that are kept, which take about 1 kB each."""

_kept: OrderedDict[Hashable, Task] | None = None
"""The tasks by where their data come from, the least recently used one first; None if nothing is kept."""


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


def get_or_read(key: Hashable, read: Callable[[], Task]) -> Task:
    """Return the task that is kept under a key; if there is none, read it."""
    if _kept is None:
        return read()
    if key not in _kept:
        _kept[key] = read()
    task = _kept[key]
    _kept.move_to_end(key)
    while sum(len(each.pool) + len(each.examples) for each in _kept.values()) > _MOST_EXAMPLES:
        _kept.popitem(last=False)
    return task
