"""Print tables of runs and sweeps on stdout."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from icl_eval.formatting import count_noun, escape_controls, format_interval, format_score, mark_direction
from icl_eval.reporting.remarks import describe_draw, remarks
from icl_eval.runs.cells import Cell, group_scores, label_cells
from icl_eval.runs.folders import PAGE_FILE, REPORT_FILE, Run
from icl_eval.runs.reports import MetricResult, RunInfo


def print_report(run: Run) -> None:
    """Print the scores of a run."""
    report = run.report
    table = Table(
        title=" · ".join(_title(report.run)),
        title_justify="left",
    )
    for column in ("task", "n", "metric"):
        table.add_column(column)
    for column in ("score", "± stderr", "95 % interval"):
        table.add_column(column, justify="right")
    for name, n, metrics in report.rows:
        for row, (metric, score) in enumerate(metrics.items()):
            first = (name, str(n)) if row == 0 else ("", "")
            table.add_row(*first, metric, *_format_score(score), end_section=row == len(metrics) - 1)
    console = open_console()
    console.print(table)
    if draw := describe_draw(report.run):
        console.print(draw)
    for line in remarks(report):
        console.print(line, style="yellow")
    decoding = any(result.counts.completion_tokens for result in report.results.values())
    if decoding and (run.was_finished or report.timing.completion_tokens_per_second is None):
        console.print("all completions are from an earlier run: nothing was decoded", style="yellow")
    print_path(console, "report", run.folder / REPORT_FILE)
    print_path(console, "page", run.folder / PAGE_FILE)


def _title(run: RunInfo) -> Iterable[str]:
    yield run.model
    if run.form:
        yield run.form
    yield run.shots
    if run.control != "none":
        yield f"control {run.control}"
    yield f"template {run.template}"


def _format_score(result: MetricResult) -> tuple[str, str, str]:
    stderr = f"{result.stderr:.3g}" if result.stderr else ""  # 0 in older reports of 0 of n
    return (
        f"{format_score(result.score)}{mark_direction(result.higher_is_better)}",
        stderr,
        format_interval(result.ci95),
    )


def print_sweep(cells: Sequence[Cell], folder: Path) -> None:
    """Print the scores of a sweep: one row per cell, labelled with its options, and one column per task and metric."""
    columns = group_scores(cells)
    table = Table(title=count_noun(len(cells), "cell"), title_justify="left")
    table.add_column("cell")
    for task, metric in columns:
        table.add_column(f"{task}\n{metric}", justify="right")
    for label, cell in zip(label_cells(cells), cells, strict=True):
        table.add_row(label, *(_format_cell_score(cell, task, metric) for task, metric in columns))
    console = open_console()
    console.print(table)
    print_path(console, "sweep", folder / "sweep.json")
    print_path(console, "page", folder / "sweep.html")


def _format_cell_score(cell: Cell, task: str, metric: str) -> str:
    if cell.error:
        return "failed"
    result = cell.score(task, metric)
    if result is None:
        return ""
    stderr = f" ±{result.stderr:.2g}" if result.stderr else ""
    return f"{format_score(result.score)}{stderr}"


def from_here(path: Path) -> Path:
    """Return a path relative to the working directory if it is inside it, otherwise an absolute path."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def print_path(console: Console, name: str, path: Path) -> None:
    """Print a path with its name, without wrapping the line, so that it can be copied."""
    console.print(f"{name}: {from_here(path)}", soft_wrap=True)


class _Console(Console):
    """A console that escapes control characters and raises an error when its output is closed.

    Rich itself would end the process when its output is closed.
    """

    def on_broken_pipe(self) -> None:
        raise  # the error that is being handled

    def render_str(self, text: str, **options: Any) -> Text:
        """Render a string, escaping its control characters before its width is measured."""
        return super().render_str(escape_controls(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of a renderable, escaping control characters in strings that rich generated itself."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else escape_controls(text), style, control)


def open_console() -> Console:
    """Return a console on stdout that does not interpret markup or emoji codes in data and names."""
    console = _Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 160  # a pipe has no width, and 80 columns are too narrow for tables in a log file
    return console
