"""Tables of plain values, independent of how they are rendered.

The terminal, exported files and notebooks show the same rows. Each analysis defines its own table:
`draws.draws_table`, `shot_curve.curve_table`, `variance.variance_table`, `variance.spread_table`,
`prompts.prompts_table`, `influence.influence_table`, `leave_one_out.leave_one_out_table`,
`order_probing.order_probing_table`, `comparison.difference_table`, `studies.study_table`.
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
    """A table with a name that can serve as a file name."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[TableValue, ...], ...]
    """Values at full precision; None marks a missing number."""

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Whether each column holds only numbers."""
        values = [[row[index] for row in self.rows if row[index] is not None] for index in range(len(self.columns))]
        return tuple(bool(column) and not any(isinstance(value, str) for value in column) for column in values)

    def records(self) -> list[dict[str, Any]]:
        """Return each row as a dictionary by column."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def to_frame(self) -> "pandas.DataFrame":
        """Return the table as a data frame."""
        import pandas

        return pandas.DataFrame(list(self.rows), columns=list(self.columns))

    def to_html(self) -> str:
        """Return the table as HTML for a notebook, with rounded numbers."""
        return str(self.to_frame().to_html(index=False, float_format=format_score, na_rep=""))


def condition_keys(conditions: Iterable[Mapping[str, str]]) -> list[str]:
    """Return the option keys that need a column in a table of several analyses."""
    return list(dict.fromkeys(key for each in conditions for key in each))
