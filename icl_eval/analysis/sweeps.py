"""Sweeps: what a sweep's cells found, one by one and together, as `sweep.json` holds it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import TypeAdapter, ValidationError

from icl_eval.analysis.designs import SweepCell
from icl_eval.analysis.influence import InfluenceAnalysis, influence_analyses, influence_table
from icl_eval.analysis.measurements import measure
from icl_eval.analysis.shot_curve import ShotCurve, curve_table, shot_curves
from icl_eval.analysis.tables import PlainTable
from icl_eval.analysis.variance import VarianceAnalysis, variance_analyses, variance_table
from icl_eval.errors import DataError
from icl_eval.formatting import count_noun
from icl_eval.runs.cells import Cell
from icl_eval.runs.folders import Run
from icl_eval.runs.options import find_varying_options
from icl_eval.runs.records import describe_mistake
from icl_eval.runs.reports import write_json

if TYPE_CHECKING:
    import pandas

SWEEP_FILE = "sweep.json"
SCHEMA_VERSION: Literal[1] = 1


@dataclass(frozen=True, repr=False)
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

    @property
    def tables(self) -> "dict[str, pandas.DataFrame]":
        """What there is of `shot_curves`, `variance` and `influence`, as data frames."""
        return {table.name: table.to_frame() for table in self.list_tables()}

    def list_tables(self) -> list[PlainTable]:
        """Return a table for each kind of analysis that applies."""
        tables = []
        if self.shot_curves:
            tables.append(curve_table(self.shot_curves))
        if self.spreads:
            tables.append(variance_table(self.spreads))
        if self.influence:
            tables.append(influence_table(self.influence))
        return tables

    def __repr__(self) -> str:
        tables = [f"{table.name} ({count_noun(len(table.rows), 'row')})" for table in self.list_tables()]
        return f"<SweepAnalysis: {'; '.join([*tables, *self.notes]) or 'no analysis applies'}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the tables, and what could not be analysed."""
        tables = [f"<p>{table.name.replace('_', ' ')}</p>{table.to_html()}" for table in self.list_tables()]
        notes = [f"<p>{escape(note)}</p>" for note in self.notes]
        return "".join([*tables, *notes]) or "<p>no analysis applies</p>"


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
    options = find_varying_options([run.overrides for run in runs])
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
        found = describe_mistake(error)
        raise DataError(f"{path}: not a sweep of this version ({found}); the same command writes it again") from None


def _by_metric(runs: Sequence[Run], options: Sequence[Mapping[str, str]]) -> dict[tuple[str, str], list[SweepCell]]:
    found: defaultdict[tuple[str, str], list[SweepCell]] = defaultdict(list)
    for run, own in zip(runs, options, strict=True):
        for measurement in measure(run):
            found[measurement.task, measurement.metric].append(SweepCell(own, measurement))
    return dict(found)
