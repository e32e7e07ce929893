"""Write the page of a sweep, `sweep.html`: scores, joint analyses, and any two cells side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_eval.analysis.draws import ScoreOverDraws
from icl_eval.analysis.influence import InfluenceAnalysis
from icl_eval.analysis.leave_one_out import LeaveOneOutAnalysis
from icl_eval.analysis.sweeps import Sweep, read_sweep
from icl_eval.errors import IclEvalError
from icl_eval.formatting import format_options
from icl_eval.reporting.pages.answers import gather_answers
from icl_eval.reporting.pages.charts import curve_charts, variance_segments
from icl_eval.reporting.pages.rendering import render_page, write_page
from icl_eval.reporting.pages.scales import Scale, metric_scale, nice_scale
from icl_eval.runs.cells import Cell, group_scores, label_cells
from icl_eval.runs.folders import read_run
from icl_eval.runs.reports import MetricResult


@dataclass(frozen=True)
class Column:
    """One metric of one task over all cells."""

    task: str
    metric: str
    higher_is_better: bool
    scale: Scale


def write_sweep_page(folder: Path) -> None:
    """Write the `sweep.html` of a sweep from `sweep.json` and the records of its cells."""
    sweep = read_sweep(folder)
    labels = label_cells(sweep.cells)
    finished = {label: folder / cell.cell for label, cell in zip(labels, sweep.cells, strict=True) if cell.results}
    notes = list(sweep.analysis.notes)
    try:
        answers = gather_answers({label: read_run(path) for label, path in finished.items()})
    except IclEvalError as error:
        answers = gather_answers({})
        notes.append(f"answers cannot be shown side by side: {error}")
    write_page(render_sweep_page(folder.name, sweep, labels, answers, notes), folder / "sweep.html")


def render_sweep_page(
    name: str, sweep: Sweep, labels: Sequence[str], answers: Mapping[str, Any], notes: Sequence[str]
) -> str:
    """Render the page of a sweep.

    Args:
        name: Name of the sweep.
        sweep: The cells of the sweep and their analysis.
        labels: Display names of the cells.
        answers: Answers of the cells, as returned by `gather_answers`.
        notes: Notes on what could not be shown, and why.
    """
    return render_page(
        "sweep.html.j2",
        name=name,
        cells=list(zip(labels, sweep.cells, strict=True)),
        shared=_shared_overrides(sweep.cells),
        columns=_score_columns(sweep.cells),
        draws=[(each, _draw_scale(each)) for each in sweep.analysis.draws],
        curves=curve_charts(sweep.analysis.shot_curves),
        spreads=[(analysis, variance_segments(analysis)) for analysis in sweep.analysis.spreads],
        influences=[(analysis, _influence_scales(analysis)) for analysis in sweep.analysis.influence],
        left_out=[(analysis, _influence_scales(analysis)) for analysis in sweep.analysis.leave_one_out],
        behaviours=[(_name(each), each.behaviour) for each in sweep.analysis.leave_one_out if each.behaviour],
        notes=notes,
        answers=answers,
    )


def _score_columns(cells: Sequence[Cell]) -> list[Column]:
    """Return one column per task and metric, on a scale that covers the scores and intervals of all cells."""
    return [
        Column(task, metric, scores[0].higher_is_better, _column_scale(metric, scores))
        for (task, metric), scores in group_scores(cells).items()
    ]


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


def _column_scale(metric: str, scores: Sequence[MetricResult]) -> Scale:
    return metric_scale(metric, (end for score in scores for end in (score.score, *(score.ci95 or ()))))


def _shared_overrides(cells: Sequence[Cell]) -> list[str]:
    first = cells[0].overrides if cells else ()
    return [override for override in first if all(override in cell.overrides for cell in cells)]
