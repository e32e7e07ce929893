"""Print the result of a comparison as a table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from icl_eval.analysis.comparison import Comparison, difference_table
from icl_eval.formatting import format_difference, format_p_value, format_score, mark_direction
from icl_eval.reporting.columns import Show, format_ends, open_table
from icl_eval.reporting.terminal import open_console, print_path


def print_comparison(comparison: Comparison) -> None:
    """Print how runs differ from a baseline, and which tasks and metrics were not compared."""
    console = open_console()
    print_path(console, "baseline", Path(comparison.baseline))
    console.print(_difference_table(comparison))
    for note in comparison.notes:
        console.print(note, style="yellow")
    for name in comparison.left_out:
        console.print(f"{name}: not compared, because not all of the runs have it", style="yellow")


def _name_population(row: Mapping[str, Any]) -> str:
    """Return what a test is about: the prompts of one draw, or several draws."""
    return "these prompts" if row["draws"] == 1 else f"{row['draws']} draws"


_DIFFERENCE_COLUMNS: Mapping[str, Show] = {
    "baseline": lambda row: format_score(row["baseline"]) + mark_direction(row["higher_is_better"]),
    "score": lambda row: format_score(row["score"]) + mark_direction(row["higher_is_better"]),
    "difference": lambda row: format_difference(row["difference"]),
    "95 % interval": lambda row: format_ends(row, "ci95 low", "ci95 high", format_difference),
    "p": lambda row: "" if row["p"] is None else format_p_value(row["p"]),
    "adjusted p": lambda row: "" if row["adjusted p"] is None else format_p_value(row["adjusted p"]),
    "about": _name_population,
    "better": lambda row: str(row["better"]),
    "worse": lambda row: str(row["worse"]),
}


def _difference_table(comparison: Comparison) -> Table:
    differences = difference_table(comparison.differences).records()
    num_tests = sum(row["p"] is not None for row in differences)
    populations = set(map(_name_population, differences))
    about = f", about {populations.pop()}" if len(populations) == 1 else ""
    title = f"differences from the baseline{about}; p adjusted for {num_tests} tests (Holm)"
    columns = {name: show for name, show in _DIFFERENCE_COLUMNS.items() if not about or name != "about"}
    table = open_table(title, ("run", "task", "metric"), columns)
    previous = None
    for difference, row in zip(comparison.differences, differences, strict=True):
        name = "" if difference.run == previous else row["run"]
        previous = difference.run
        table.add_row(name, row["task"], row["metric"], *(show(row) for show in columns.values()))
    return table
