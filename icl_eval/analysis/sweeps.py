"""The content of `sweep.json`: the results of a sweep's cells and their joint analysis."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import TypeAdapter, ValidationError

from icl_eval.analysis.designs import SweepCell
from icl_eval.analysis.draws import ScoreOverDraws, draws_table, scores_over_draws
from icl_eval.analysis.influence import InfluenceAnalysis, influence_analyses, influence_table
from icl_eval.analysis.leave_one_out import LeaveOneOutAnalysis, leave_one_out_analyses, leave_one_out_table
from icl_eval.analysis.measurements import measure
from icl_eval.analysis.order_probing import OrderProbing, order_probing_table, order_probings
from icl_eval.analysis.prompts import ScoreOverPrompts, prompts_table, scores_over_prompts
from icl_eval.analysis.shot_curve import ShotCurve, curve_table, shot_curves
from icl_eval.analysis.tables import PlainTable
from icl_eval.analysis.variance import VarianceAnalysis, spread_table, variance_analyses, variance_table
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
    """The joint analysis of a sweep's cells; analyses that do not apply are empty."""

    shot_curves: tuple[ShotCurve, ...]
    """Shot curves, if `num_fewshot` varies."""
    variance: tuple[VarianceAnalysis, ...]
    """Analyses of variance, if seeds, orders or wordings vary."""
    notes: tuple[str, ...]
    """What could not be analysed, and why."""
    influence: tuple[InfluenceAnalysis, ...] = ()
    """Influences of demonstrations, if seeds draw enough sets of them."""
    leave_one_out: tuple[LeaveOneOutAnalysis, ...] = ()
    """What demonstrations add beside all the others, if `leave_out` varies."""
    draws: tuple[ScoreOverDraws, ...] = ()
    """Means over draws and questions, if seeds vary."""
    prompts: tuple[ScoreOverPrompts, ...] = ()
    """Distributions over prompts, if seeds, orders or wordings make enough of them."""
    order_probing: tuple[OrderProbing, ...] = ()
    """Orders ranked by the entropies of their predictions, if orders vary and choices have likelihoods."""

    @property
    def spreads(self) -> list[VarianceAnalysis]:
        """The analyses of variance to show. On a shot curve, the band shows the spread over draws already."""
        return [analysis for analysis in self.variance if "num_fewshot" not in analysis.conditions]

    @property
    def tables(self) -> "dict[str, pandas.DataFrame]":
        """The analyses that apply, by name: `draws`, `shot_curves`, `variance`, `influence` and so on."""
        return {table.name: table.to_frame() for table in self.list_tables()}

    def list_tables(self) -> list[PlainTable]:
        """Return a table for each kind of analysis that applies."""
        tables = []
        if self.draws:
            tables.append(draws_table(self.draws))
        if self.shot_curves:
            tables.append(curve_table(self.shot_curves))
        if self.spreads:
            tables += [variance_table(self.spreads), spread_table(self.spreads)]
        if self.prompts:
            tables.append(prompts_table(self.prompts))
        if self.influence:
            tables.append(influence_table(self.influence))
        if self.leave_one_out:
            tables.append(leave_one_out_table(self.leave_one_out))
        if self.order_probing:
            tables.append(order_probing_table(self.order_probing))
        return tables

    def __repr__(self) -> str:
        tables = [f"{table.name} ({count_noun(len(table.rows), 'row')})" for table in self.list_tables()]
        return f"<SweepAnalysis: {'; '.join([*tables, *self.notes]) or 'no analysis applies'}>"

    def _repr_html_(self) -> str:
        """Return the tables and the notes for display in a notebook."""
        tables = [f"<p>{table.name.replace('_', ' ')}</p>{table.to_html()}" for table in self.list_tables()]
        notes = [f"<p>{escape(note)}</p>" for note in self.notes]
        return "".join([*tables, *notes]) or "<p>no analysis applies</p>"


@dataclass(frozen=True)
class Sweep:
    """A sweep's cells and their joint analysis."""

    schema_version: Literal[1]
    cells: tuple[Cell, ...]
    analysis: SweepAnalysis


_SWEEP = TypeAdapter(Sweep)


def analyse_runs(runs: Sequence[Run]) -> SweepAnalysis:
    """Analyse finished runs together, such as the cells of a sweep.

    Raises:
        DataError: When records are missing or do not match the report.
    """
    options = find_varying_options([run.overrides for run in runs])
    curves: list[ShotCurve] = []
    variance: list[VarianceAnalysis] = []
    draws: list[ScoreOverDraws] = []
    prompts: list[ScoreOverPrompts] = []
    notes: list[str] = []
    for (task, metric), members in _group_by_metric(runs, options).items():
        new_prompts = scores_over_prompts(members)
        prompts += new_prompts
        if len({cell.measurement.example_ids for cell in members}) > 1:
            rest = "only their scores over prompts are" if new_prompts else "cannot be"
            notes.append(f"{task}, {metric}: cells answered different questions and {rest} analysed together")
            continue
        new_draws, new_notes = scores_over_draws(members)
        draws += new_draws
        notes += new_notes
        new_curves, new_notes = shot_curves(members)
        curves += new_curves
        notes += new_notes
        new_variance, new_notes = variance_analyses(members)
        variance += new_variance
        notes += new_notes
    influence, new_notes = influence_analyses(runs, options)
    notes += new_notes
    left_out, new_notes = leave_one_out_analyses(runs, options)
    notes += new_notes
    probed, new_notes = order_probings(runs, options)
    notes += new_notes
    return SweepAnalysis(
        tuple(curves),
        tuple(variance),
        tuple(dict.fromkeys(notes)),
        tuple(influence),
        tuple(left_out),
        tuple(draws),
        tuple(prompts),
        tuple(probed),
    )


def write_sweep(sweep: Sweep, folder: Path) -> None:
    """Write `sweep.json` atomically. Each cell has either an error, or a run and its results."""
    content = asdict(sweep)
    content["cells"] = [{key: value for key, value in cell.items() if value is not None} for cell in content["cells"]]
    write_json(content, folder / SWEEP_FILE)


def read_sweep(folder: Path) -> Sweep:
    """Read a `sweep.json` written by `write_sweep`.

    Raises:
        DataError: When the file is not a sweep, or was written by another version.
    """
    path = folder / SWEEP_FILE
    try:
        return _SWEEP.validate_json(path.read_bytes())
    except ValidationError as error:
        mistake = describe_mistake(error)
        raise DataError(
            f"{path}: not a sweep of this version ({mistake}); rerun the same command to rewrite it"
        ) from None


def _group_by_metric(
    runs: Sequence[Run], options: Sequence[Mapping[str, str]]
) -> dict[tuple[str, str], list[SweepCell]]:
    cells: defaultdict[tuple[str, str], list[SweepCell]] = defaultdict(list)
    for run, own in zip(runs, options, strict=True):
        for measurement in measure(run):
            has_demonstrations = run.report.results[measurement.task].num_fewshot > 0
            cells[measurement.task, measurement.metric].append(SweepCell(own, measurement, has_demonstrations))
    return dict(cells)
