"""Tables: what analyses say as columns and rows of plain values, whoever renders them.

The terminal, a paper and a notebook show the same rows. Each analysis says itself what its table is:
`shot_curve.curve_table`, `variance.variance_table`, `influence.influence_table`, `comparison.difference_table`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from icl_eval.formatting import format_score

if TYPE_CHECKING:
    import pandas

TableValue = str | float | int | None


@dataclass(frozen=True)
class PlainTable:
    """A table with a name that its files can have."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[TableValue, ...], ...]
    """Numbers are whole; None is a number that there is not."""

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Return for each column whether it holds numbers and nothing else."""
        values = [[row[index] for row in self.rows if row[index] is not None] for index in range(len(self.columns))]
        return tuple(bool(column) and not any(isinstance(value, str) for value in column) for column in values)

    def records(self) -> list[dict[str, Any]]:
        """Return each row as its values by column."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def to_frame(self) -> "pandas.DataFrame":
        """Return the table as a data frame."""
        import pandas

        return pandas.DataFrame(list(self.rows), columns=list(self.columns))

    def to_html(self) -> str:
        """Return the table as a notebook shows it, with rounded numbers."""
        return str(self.to_frame().to_html(index=False, float_format=format_score, na_rep=""))


def condition_keys(conditions: Iterable[Mapping[str, str]]) -> list[str]:
    """Return the options that need a column in a table of several analyses."""
    return list(dict.fromkeys(key for each in conditions for key in each))
