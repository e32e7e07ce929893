"""Write the page of a sweep, `sweep.html`: scores, joint analyses, and any two cells side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_eval.analysis.draws import ScoreOverDraws
from icl_eval.analysis.influence import InfluenceAnalysis
from icl_eval.analysis.leave_one_out import LeaveOneOutAnalysis
from icl_eval.analysis.sweeps import Sweep, read_sweep
from icl_eval.errors import IclEvalError
from icl_eval.formatting import format_options
from icl_eval.reporting.pages.answers import AnswerBlocks, pack_score
from icl_eval.reporting.pages.charts import CurveChart, curve_charts, stack_points, strip_x, variance_segments
from icl_eval.reporting.pages.pivots import Pivot, build_pivots
from icl_eval.reporting.pages.rendering import render_page, write_page
from icl_eval.reporting.pages.scales import Scale, metric_scale, nice_scale
from icl_eval.runs.cells import Cell, group_scores, label_cells
from icl_eval.runs.folders import read_run
from icl_eval.runs.options import find_varying_options


@dataclass(frozen=True)
class PivotSection:
    """The scores of all cells by one metric of one task: a figure beside a table."""

    pivot: Pivot
    chart: CurveChart | None
    """The shot curves; None if the number of demonstrations does not vary."""


def write_sweep_page(folder: Path) -> None:
    """Write the `sweep.html` of a sweep from `sweep.json` and the records of its cells."""
    sweep = read_sweep(folder)
    labels = label_cells(sweep.cells)
    finished = {label: folder / cell.cell for label, cell in zip(labels, sweep.cells, strict=True) if cell.results}

    def write(answers: AnswerBlocks, notes: Sequence[str]) -> None:
        write_page(render_sweep_page(folder.name, sweep, labels, answers, notes), folder / "sweep.html")

    notes = sweep.analysis.notes
    try:
        write(AnswerBlocks({label: read_run(path) for label, path in finished.items()}), notes)
    except IclEvalError as error:
        write(AnswerBlocks({}), [*notes, f"answers cannot be shown side by side: {error}"])


def render_sweep_page(
    name: str, sweep: Sweep, labels: Sequence[str], answers: AnswerBlocks, notes: Sequence[str]
) -> Iterator[str]:
    """Yield the pieces of a sweep's page.

    Args:
        name: Name of the sweep.
        sweep: The cells of the sweep and their analysis.
        labels: Display names of the cells.
        answers: Answers of the cells.
        notes: Notes on what could not be shown, and why.
    """
    return render_page(
        "sweep.html.j2",
        name=name,
        num_cells=len(sweep.cells),
        shared=_shared_overrides(sweep.cells),
        failures=[(label, cell.error.message) for label, cell in zip(labels, sweep.cells, strict=True) if cell.error],
        sections=_build_sections(sweep),
        cells=_describe_cells(sweep.cells, labels),
        draws=[(each, _draw_scale(each)) for each in sweep.analysis.draws],
        spreads=[(analysis, variance_segments(analysis)) for analysis in sweep.analysis.spreads],
        prompts=sweep.analysis.prompts,
        influences=[(analysis, _influence_scales(analysis)) for analysis in sweep.analysis.influence],
        left_out=[(analysis, _influence_scales(analysis)) for analysis in sweep.analysis.leave_one_out],
        probings=sweep.analysis.order_probing,
        behaviours=[(_name(each), each.behaviour) for each in sweep.analysis.leave_one_out if each.behaviour],
        strip_x=strip_x,
        stack_points=stack_points,
        notes=notes,
        answers=answers,
    )


def _build_sections(sweep: Sweep) -> list[PivotSection]:
    charts = {(chart.task, chart.metric): chart for chart in curve_charts(sweep.analysis.shot_curves)}
    return [PivotSection(pivot, charts.get((pivot.task, pivot.metric))) for pivot in build_pivots(sweep)]


def _describe_cells(cells: Sequence[Cell], labels: Sequence[str]) -> dict[str, Any]:
    """Return the list of cells in the form that `cells.js` reads."""
    columns = group_scores(cells)
    options = find_varying_options([cell.overrides for cell in cells])
    return {
        "columns": [
            {"title": f"{task} {metric}", "higher": scores[0].higher_is_better}
            for (task, metric), scores in columns.items()
        ],
        "cells": [
            {
                "label": label,
                "folder": cell.cell,
                "overrides": cell.overrides,
                "options": own,
                "error": cell.error and cell.error.message,
                "scores": [pack_score(cell.score(task, metric)) for task, metric in columns],
            }
            for label, cell, own in zip(labels, cells, options, strict=True)
        ],
    }


def _draw_scale(each: ScoreOverDraws) -> Scale:
    return metric_scale(each.metric, (each.mean, *each.ci95, *(each.new_draw or ())), whole=True)


def _name(analysis: LeaveOneOutAnalysis) -> str:
    return " · ".join(filter(None, (analysis.task, format_options(analysis.conditions, " · "))))


def _influence_scales(analysis: InfluenceAnalysis | LeaveOneOutAnalysis) -> dict[str, Scale]:
    """Return a scale for each measure, which covers zero and the effects of all demonstrations."""
    effects: dict[str, list[float]] = {}
    for demonstration in analysis.demonstrations:
        for measure, effect in demonstration.effects.items():
            effects.setdefault(measure, [0.0]).extend((effect.mean, *(effect.ci95 or ())))
    return {measure: nice_scale(values) for measure, values in effects.items()}


def _shared_overrides(cells: Sequence[Cell]) -> list[str]:
    first = cells[0].overrides if cells else ()
    return [override for override in first if all(override in cell.overrides for cell in cells)]
