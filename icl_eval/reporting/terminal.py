"""The terminal: tables of runs and sweeps on stdout."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from icl_eval.formatting import count_noun, escape_controls, format_interval, format_score
from icl_eval.reporting.remarks import remarks
from icl_eval.runs.cells import Cell, group_scores, label_cells
from icl_eval.runs.folders import Run
from icl_eval.runs.reports import MetricResult, RunInfo


def print_report(run: Run) -> None:
    """Print one run's scores."""
    report = run.report
    table = Table(
        title=" · ".join(_title(report.run)),
        title_justify="left",
    )
    for column in ("task", "n", "metric"):
        table.add_column(column)
    for column in ("score", "± stderr", "95 % interval"):
        table.add_column(column, justify="right")
    for name, result in report.results.items():
        for row, (metric, found) in enumerate(result.metrics.items()):
            first = (name, str(result.n)) if row == 0 else ("", "")
            table.add_row(*first, metric, *_numbers(found), end_section=row == len(result.metrics) - 1)
    console = open_console()
    console.print(table)
    for line in remarks(report):
        console.print(line, style="yellow")
    decoding = any(result.counts.completion_tokens for result in report.results.values())
    if decoding and report.timing.completion_tokens_per_second is None:
        console.print("all completions were there already: nothing was decoded", style="yellow")
    print_path(console, "report", run.folder / "report.json")
    print_path(console, "page", run.folder / "report.html")


def _title(run: RunInfo) -> Iterable[str]:
    yield run.model
    yield count_noun(run.num_fewshot, "demonstration")
    if run.control != "none":
        yield f"control {run.control}"
    yield f"template {run.template}"


def _numbers(found: MetricResult) -> tuple[str, str, str]:
    arrow = "" if found.higher_is_better else " ↓"
    stderr = "" if found.stderr is None else f"{found.stderr:.3g}"
    return f"{format_score(found.score)}{arrow}", stderr, format_interval(found.ci95)


def print_sweep(cells: Sequence[Cell], folder: Path) -> None:
    """Print a sweep's scores: a row for each cell, called what sets it apart, a column for each task's metric."""
    columns = group_scores(cells)
    table = Table(title=count_noun(len(cells), "cell"), title_justify="left")
    table.add_column("cell")
    for task, metric in columns:
        table.add_column(f"{task}\n{metric}", justify="right")
    for label, cell in zip(label_cells(cells), cells, strict=True):
        table.add_row(label, *(_cell_score(cell, task, metric) for task, metric in columns))
    console = open_console()
    console.print(table)
    print_path(console, "sweep", folder / "sweep.json")
    print_path(console, "page", folder / "sweep.html")


def _cell_score(cell: Cell, task: str, metric: str) -> str:
    if cell.error:
        return "failed"
    found = cell.score(task, metric)
    if found is None:
        return ""
    interval = "" if found.stderr is None else f" ±{found.stderr:.2g}"
    return f"{format_score(found.score)}{interval}"


def from_here(path: Path) -> Path:
    """Return a path as the user would write it."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def print_path(console: Console, name: str, path: Path) -> None:
    """Print where something is, never folded: it is there to be copied."""
    console.print(f"{name}: {from_here(path)}", soft_wrap=True)


class _Console(Console):
    """A console that writes out control characters, and leaves it to us what a closed output means.

    Rich itself ends the process when its output is closed.
    """

    def on_broken_pipe(self) -> None:
        raise  # the error that is being handled

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as it is laid out; it is written out before its width is measured."""
        return super().render_str(escape_controls(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the pieces of whatever is printed, of which some never were strings of ours."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else escape_controls(text), style, control)


def open_console() -> Console:
    """Return a console on stdout that shows strings as they are: what stands in data or names is no markup."""
    console = _Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 160  # a pipe has no width, and a table must not be folded to 80 columns in a log file
    return console
