"""The analysis of a sweep: everything that its cells allow, as `sweep.json` holds it under `analysis`."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from icl_eval.analysis.designs import SweepCell
from icl_eval.analysis.influence import InfluenceAnalysis, influence_analyses
from icl_eval.analysis.measurements import measure
from icl_eval.analysis.shot_curve import ShotCurve, shot_curves
from icl_eval.analysis.variance import VarianceAnalysis, variance_analyses
from icl_eval.runs.cells import Cell, varying_options
from icl_eval.runs.folders import read_run


@dataclass(frozen=True)
class SweepAnalysis:
    """What a sweep's cells say together; an analysis that does not apply is empty."""

    shot_curves: tuple[ShotCurve, ...]
    """Where `num_fewshot` varies."""
    variance: tuple[VarianceAnalysis, ...]
    """Where seeds, orders or wordings vary."""
    notes: tuple[str, ...]
    """What could not be analysed, and why."""
    influence: tuple[InfluenceAnalysis, ...] = ()
    """Where `leave_out` varies."""

    @property
    def spreads(self) -> list[VarianceAnalysis]:
        """The analyses of variance to show: beside a curve, the draws at each of its points are in its band already."""
        return [found for found in self.variance if "num_fewshot" not in found.conditions]


def analyse_sweep(folder: Path, cells: Sequence[Cell]) -> SweepAnalysis:
    """Analyse the finished cells of a sweep.

    Args:
        folder: The sweep's folder, which holds the cells' folders.
        cells: Those that did not fail.

    Raises:
        DataError: When records are missing or are not those of the report.
    """
    curves: list[ShotCurve] = []
    variance: list[VarianceAnalysis] = []
    notes: list[str] = []
    for (task, metric), members in _by_metric(folder, cells).items():
        if len({cell.measurement.example_ids for cell in members}) > 1:
            notes.append(f"{task}, {metric}: cells answered different questions and cannot be analysed together")
            continue
        drawn, unfit = shot_curves(members)
        curves += drawn
        notes += unfit
        found, unfit = variance_analyses(members)
        variance += found
        notes += unfit
    influence, unfit = influence_analyses(folder, cells)
    notes += unfit
    return SweepAnalysis(tuple(curves), tuple(variance), tuple(dict.fromkeys(notes)), tuple(influence))


def _by_metric(folder: Path, cells: Sequence[Cell]) -> dict[tuple[str, str], list[SweepCell]]:
    found: defaultdict[tuple[str, str], list[SweepCell]] = defaultdict(list)
    for cell, options in zip(cells, varying_options(cells), strict=True):
        for measurement in measure(read_run(folder / cell.cell)):
            found[measurement.task, measurement.metric].append(SweepCell(options, measurement))
    return dict(found)
