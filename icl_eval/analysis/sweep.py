"""The analysis of a sweep: everything that its cells allow, as `sweep.json` holds it under `analysis`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from icl_eval.analysis.designs import SweepCell
from icl_eval.analysis.influence import InfluenceAnalysis, influence_analyses
from icl_eval.analysis.measurements import measure
from icl_eval.analysis.shot_curve import ShotCurve, shot_curves
from icl_eval.analysis.variance import VarianceAnalysis, variance_analyses
from icl_eval.runs.folders import Run
from icl_eval.runs.options import varying_options


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


def _by_metric(runs: Sequence[Run], options: Sequence[Mapping[str, str]]) -> dict[tuple[str, str], list[SweepCell]]:
    found: defaultdict[tuple[str, str], list[SweepCell]] = defaultdict(list)
    for run, own in zip(runs, options, strict=True):
        for measurement in measure(run):
            found[measurement.task, measurement.metric].append(SweepCell(own, measurement))
    return dict(found)
