"""Sweeps: what a sweep's cells found, one by one and together, as `sweep.json` holds it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from icl_eval.analysis.designs import SweepCell
from icl_eval.analysis.influence import InfluenceAnalysis, influence_analyses
from icl_eval.analysis.measurements import measure
from icl_eval.analysis.shot_curve import ShotCurve, shot_curves
from icl_eval.analysis.variance import VarianceAnalysis, variance_analyses
from icl_eval.errors import DataError
from icl_eval.runs.cells import Cell
from icl_eval.runs.folders import Run
from icl_eval.runs.options import varying_options
from icl_eval.runs.reports import write_json

SWEEP_FILE = "sweep.json"
SCHEMA_VERSION: Literal[1] = 1


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


@dataclass(frozen=True)
class Sweep:
    """What a sweep found."""

    schema_version: Literal[1]
    cells: tuple[Cell, ...]
    analysis: SweepAnalysis


_SWEEP = TypeAdapter(Sweep)


def analyse_runs(runs: Sequence[Run]) -> SweepAnalysis:
    """Analyse finished runs together: the cells of a sweep, or any others.

    Raises:
        DataError: When records are missing or are not those of the report.
    """
    options = varying_options([run.overrides for run in runs])
    curves: list[ShotCurve] = []
    variance: list[VarianceAnalysis] = []
    notes: list[str] = []
    for (task, metric), members in _by_metric(runs, options).items():
        if len({cell.measurement.example_ids for cell in members}) > 1:
            notes.append(f"{task}, {metric}: cells answered different questions and cannot be analysed together")
            continue
        drawn, unfit = shot_curves(members)
        curves += drawn
        notes += unfit
        found, unfit = variance_analyses(members)
        variance += found
        notes += unfit
    influence, unfit = influence_analyses(runs, options)
    notes += unfit
    return SweepAnalysis(tuple(curves), tuple(variance), tuple(dict.fromkeys(notes)), tuple(influence))


def write_sweep(sweep: Sweep, folder: Path) -> None:
    """Write a sweep's file into its folder, at once or not at all; a cell has an error, or a run and results."""
    content = asdict(sweep)
    content["cells"] = [{key: value for key, value in cell.items() if value is not None} for cell in content["cells"]]
    write_json(content, folder / SWEEP_FILE)


def read_sweep(folder: Path) -> Sweep:
    """Read what `write_sweep` wrote.

    Raises:
        DataError: When it is none, or was written by another version.
    """
    path = folder / SWEEP_FILE
    try:
        return _SWEEP.validate_json(path.read_bytes())
    except ValidationError as error:
        first: Any = error.errors()[0]
        found = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise DataError(f"{path}: not a sweep of this version ({found}); the same command writes it again") from None


def _by_metric(runs: Sequence[Run], options: Sequence[Mapping[str, str]]) -> dict[tuple[str, str], list[SweepCell]]:
    found: defaultdict[tuple[str, str], list[SweepCell]] = defaultdict(list)
    for run, own in zip(runs, options, strict=True):
        for measurement in measure(run):
            found[measurement.task, measurement.metric].append(SweepCell(own, measurement))
    return dict(found)
