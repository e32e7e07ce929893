"""What the tables of sweeps and of comparisons have in common."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.table import Table

from icl_eval.formatting import format_interval, format_score

Show = Callable[[Mapping[str, Any]], str]
"""Formats the cell of one column from a row of plain values."""


def open_table(title: str, texts: Iterable[str], numbers: Iterable[str]) -> Table:
    """Return a table without rows, with columns of text on the left and of numbers on the right."""
    table = Table(title=title, title_justify="left")
    for column in texts:
        table.add_column(column, overflow="fold")
    for column in numbers:
        table.add_column(column, justify="right")
    return table


def format_ends(row: Mapping[str, Any], low: str, high: str, number: Callable[[float], str] = format_score) -> str:
    """Return an interval whose ends are two columns of a row; nothing if it has none."""
    return format_interval(None if row[low] is None else (row[low], row[high]), number)
