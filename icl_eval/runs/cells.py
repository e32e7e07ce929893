"""Read the runs of a sweep, and label each with the options that distinguish it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from icl_eval.errors import FingerprintMismatchError
from icl_eval.formatting import format_options
from icl_eval.runs.folders import FAILURE_FILE, REPORT_FILE, read_overrides, read_run, skipping_unreadable
from icl_eval.runs.options import find_varying_options
from icl_eval.runs.reports import Failure, MetricResult, RunInfo, TaskResult, read_failure


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: its results, or why it failed."""

    cell: str
    """The name of the run's folder inside the sweep's folder."""
    overrides: tuple[str, ...]
    run: RunInfo | None = None
    results: Mapping[str, TaskResult] | None = None
    error: Failure | None = None

    def score(self, task: str, metric: str) -> MetricResult | None:
        """Return the score of a task by a metric; None if there is none."""
        result = (self.results or {}).get(task)
        return result.metrics.get(metric) if result else None


def gather_cells(folder: Path) -> list[Cell]:
    """Return the results or the failure of each cell of a sweep, in the order of the cells' overrides.

    Cells that never started or were killed are not included. A cell that cannot be read is skipped with a warning that
    names the file. A finished run keeps its results even if a later attempt failed, unless that attempt found that the
    folder contains another run than the requested one.
    """
    cells: list[Cell] = []
    for path in folder.iterdir():
        with skipping_unreadable():
            cells += _read_cell(path)
    return sorted(cells, key=_natural_key)


def group_scores(cells: Sequence[Cell]) -> dict[tuple[str, str], list[MetricResult]]:
    """Return the scores of finished cells by task and metric."""
    scores: dict[tuple[str, str], list[MetricResult]] = {}
    for cell in cells:
        for task, result in (cell.results or {}).items():
            for metric, score in result.metrics.items():
                scores.setdefault((task, metric), []).append(score)
    return scores


def label_cells(cells: Sequence[Cell]) -> list[str]:
    """Return the options that distinguish each cell from the others, or the name of its folder if none do."""
    varying = find_varying_options([cell.overrides for cell in cells])
    labels = [format_options(options) for options in varying]
    alone = [label and labels.count(label) == 1 for label in labels]
    return [label if is_alone else cell.cell for label, is_alone, cell in zip(labels, alone, cells, strict=True)]


def _read_cell(folder: Path) -> Iterator[Cell]:
    failure = read_failure(folder / FAILURE_FILE) if (folder / FAILURE_FILE).exists() else None
    is_finished = (folder / REPORT_FILE).exists()
    if failure and not (is_finished and failure.error != FingerprintMismatchError.__name__):
        yield Cell(folder.name, read_overrides(folder), error=failure)
    elif is_finished:
        run = read_run(folder)
        yield Cell(folder.name, run.overrides, run.report.run, run.report.results)


def _natural_key(cell: Cell) -> list[tuple[int, str]]:
    """Return a sort key that puts `num_fewshot=8` before `num_fewshot=16`; long folder names are only digests."""
    text = " ".join([*cell.overrides, cell.cell])
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]
