"""Cells: the runs of a sweep, what each of them came to, and what sets it apart from the others."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from icl_eval.errors import FingerprintMismatchError
from icl_eval.formatting import format_options
from icl_eval.runs.folders import FAILURE_FILE, REPORT_FILE, leaving_out, read_overrides, read_run
from icl_eval.runs.options import varying_options
from icl_eval.runs.reports import Failure, MetricResult, RunInfo, TaskResult, read_failure


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: what it found, or why it failed."""

    cell: str
    """The name of its folder, in the sweep's."""
    overrides: tuple[str, ...]
    run: RunInfo | None = None
    results: Mapping[str, TaskResult] | None = None
    error: Failure | None = None

    def score(self, task: str, metric: str) -> MetricResult | None:
        """Return one of its scores; None where it has none."""
        result = (self.results or {}).get(task)
        return result.metrics.get(metric) if result else None


def gather_cells(folder: Path) -> list[Cell]:
    """Return what each cell of a sweep came to, in the order of the cells' overrides.

    One that never began, or was killed, is no cell yet. One that cannot be read is left out with a warning that names
    the file. A finished run is what it found, also where it was later started again in vain; but not where a note says
    that it is another run than the one that was asked for.
    """
    cells: list[Cell] = []
    for path in folder.iterdir():
        with leaving_out():
            cells += _read_cell(path)
    return sorted(cells, key=_natural)


def group_scores(cells: Sequence[Cell]) -> dict[tuple[str, str], list[MetricResult]]:
    """Return the scores of finished cells by task and metric."""
    scores: dict[tuple[str, str], list[MetricResult]] = {}
    for cell in cells:
        for task, result in (cell.results or {}).items():
            for metric, score in result.metrics.items():
                scores.setdefault((task, metric), []).append(score)
    return scores


def label_cells(cells: Sequence[Cell]) -> list[str]:
    """Return what sets each cell apart from the others; its folder's name where nothing does."""
    varying = varying_options([cell.overrides for cell in cells])
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


def _natural(cell: Cell) -> list[tuple[int, str]]:
    """Sort key by which `num_fewshot=8` comes before `num_fewshot=16`; a long name shows only a digest of that."""
    text = " ".join([*cell.overrides, cell.cell])
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
