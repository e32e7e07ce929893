"""Printing: the tables of a sweep's analysis."""

from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from icl_eval.analysis.shot_curve import ShotCurve, ShotCurvePoint
from icl_eval.analysis.sweeps import SweepAnalysis
from icl_eval.analysis.variance import QUESTIONS, CellScore, VarianceAnalysis
from icl_eval.formatting import short
from icl_eval.reporting.influence_tables import behaviour_table, influence_table
from icl_eval.reporting.terminal import open_console


def print_analysis(analysis: SweepAnalysis) -> None:
    """Print what a sweep's cells say together; nothing where no analysis applies."""
    console = open_console()
    drawn = [curve for curve in analysis.shot_curves if any(len(point.scores) > 1 for point in curve.points)]
    if drawn:
        console.print(_curve_table(drawn))
    if analysis.spreads:
        console.print(_variance_table(analysis.spreads))
    if analysis.influence:
        console.print(influence_table(analysis.influence))
        console.print(behaviour_table(analysis.influence))
    for note in analysis.notes:
        console.print(note, style="yellow")


def _curve_table(curves: Sequence[ShotCurve]) -> Table:
    table = Table(
        title="shot curves: mean over draws of demonstrations, its 95 % interval, worst and best draw, and the "
        "standard error of the test set",
        title_justify="left",
    )
    for column in ("task", "metric", *_names(curves)):
        table.add_column(column)
    for column in ("demonstrations", "draws", "mean", "95 % interval", "worst to best", "test set ±"):
        table.add_column(column, justify="right")
    for curve in curves:
        for row, point in enumerate(curve.points):
            first = _labels(curve, _names(curves)) if row == 0 else [""] * (2 + len(_names(curves)))
            table.add_row(*first, *_point_cells(curve, point), end_section=row == len(curve.points) - 1)
    return table


def _point_cells(curve: ShotCurve, point: ShotCurvePoint) -> Iterator[str]:
    ranked = sorted(point.scores.values(), reverse=not curve.higher_is_better)
    yield str(point.num_fewshot)
    yield str(len(ranked))
    yield short(point.mean)
    yield "" if point.ci95 is None else f"{short(point.ci95[0])} to {short(point.ci95[1])}"
    yield f"{short(ranked[0])} to {short(ranked[-1])}"
    yield "" if point.test_set_stderr is None else f"{point.test_set_stderr:.2g}"


def _variance_table(analyses: Sequence[VarianceAnalysis]) -> Table:
    table = Table(
        title="where the variance of a score comes from: standard deviations, and shares of the variance",
        title_justify="left",
    )
    for column in ("task", "metric", *_names(analyses)):
        table.add_column(column)
    factors = list(dict.fromkeys(factor for found in analyses for factor in found.factors))
    for column in ("mean", "over cells ±", "test set ±", *factors):
        table.add_column(column, justify="right", overflow="fold")
    if len(factors) > 1:
        table.add_column("together", justify="right")
    table.add_column("test set", justify="right")
    for column in ("worst", "best"):
        table.add_column(column, overflow="fold")
    for found in analyses:
        numbers = [short(found.mean), f"{found.stdev:.2g}", f"{found.test_set_stderr:.2g}"]
        ends = [_named(cell) for cell in (found.worst, found.best)]
        table.add_row(*_labels(found, _names(analyses)), *numbers, *_shares(found, factors), *ends, end_section=True)
    return table


def _shares(found: VarianceAnalysis, factors: Sequence[str]) -> Iterator[str]:
    """Yield the share of each factor, of what they do together where there are several, and of the questions."""
    shares = {component.factors: component.share for component in found.components}
    for factor in factors:
        yield f"{shares[(factor,)]:.0%}" if factor in found.factors else ""
    together = [share for names, share in shares.items() if len(names) > 1 and QUESTIONS not in names]
    if len(factors) > 1:
        yield f"{sum(together):.0%}"
    yield f"{sum(share for names, share in shares.items() if QUESTIONS in names):.0%}"


def _named(cell: CellScore) -> str:
    return f"{short(cell.score)} {_joined(cell.options)}"


def _joined(options: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in options.items())


def _names(found: Sequence[ShotCurve | VarianceAnalysis]) -> list[str]:
    """Return the conditions that need a column."""
    return list(dict.fromkeys(key for one in found for key in one.conditions))


def _labels(found: ShotCurve | VarianceAnalysis, names: Sequence[str]) -> list[str]:
    arrow = "" if found.higher_is_better else " ↓"
    return [found.task, found.metric + arrow, *(found.conditions.get(name, "") for name in names)]
