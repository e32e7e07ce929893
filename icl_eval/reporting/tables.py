"""Tables: a sweep's analysis and a comparison, as the terminal shows them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from icl_eval.analysis.comparison import Comparison, difference_table
from icl_eval.analysis.influence import Effect, InfluenceAnalysis
from icl_eval.analysis.shot_curve import ShotCurve, curve_table
from icl_eval.analysis.sweeps import SweepAnalysis
from icl_eval.analysis.tables import condition_keys
from icl_eval.analysis.variance import TEST_SET, CellScore, VarianceAnalysis
from icl_eval.formatting import (
    format_difference,
    format_interval,
    format_options,
    format_p_value,
    format_score,
    join_lines,
)
from icl_eval.reporting.terminal import open_console, print_path
from icl_eval.runs.behaviour import Agreement, Behaviour

_MAX_WIDTH = 24
_Show = Callable[[Mapping[str, Any]], str]
"""From a row of plain values to what a column shows of it."""


def print_analysis(analysis: SweepAnalysis) -> None:
    """Print what a sweep's cells say together; nothing where no analysis applies."""
    console = open_console()
    drawn = [curve for curve in analysis.shot_curves if any(len(point.scores) > 1 for point in curve.points)]
    if drawn:
        console.print(_curve_table(drawn))
    if analysis.spreads:
        console.print(_variance_table(analysis.spreads))
    if analysis.influence:
        console.print(_influence_table(analysis.influence))
        console.print(_behaviour_table(analysis.influence))
    for note in analysis.notes:
        console.print(note, style="yellow")


def print_comparison(comparison: Comparison) -> None:
    """Print how runs differ from a baseline, and what was not compared."""
    console = open_console()
    print_path(console, "baseline", Path(comparison.baseline))
    console.print(_difference_table(comparison))
    for name in comparison.left_out:
        console.print(f"{name}: not in all of the runs, and not compared", style="yellow")


def _ends(row: Mapping[str, Any], low: str, high: str, number: Callable[[float], str] = format_score) -> str:
    return format_interval(None if row[low] is None else (row[low], row[high]), number)


_CURVE_COLUMNS: Mapping[str, _Show] = {
    "demonstrations": lambda row: str(row["demonstrations"]),
    "draws": lambda row: str(row["draws"]),
    "mean": lambda row: format_score(row["mean"]),
    "95 % interval": lambda row: _ends(row, "ci95 low", "ci95 high"),
    "worst to best": lambda row: _ends(row, "worst draw", "best draw"),
    "test set ±": lambda row: "" if row["test set stderr"] is None else f"{row['test set stderr']:.2g}",
}
_DIFFERENCE_COLUMNS: Mapping[str, _Show] = {
    "baseline": lambda row: format_score(row["baseline"]) + _arrow(row["higher_is_better"]),
    "score": lambda row: format_score(row["score"]) + _arrow(row["higher_is_better"]),
    "difference": lambda row: format_difference(row["difference"]),
    "95 % interval": lambda row: _ends(row, "ci95 low", "ci95 high", format_difference),
    "p": lambda row: "" if row["p"] is None else format_p_value(row["p"]),
    "adjusted p": lambda row: "" if row["adjusted p"] is None else format_p_value(row["adjusted p"]),
    "better": lambda row: str(row["better"]),
    "worse": lambda row: str(row["worse"]),
}


def _arrow(higher_is_better: bool) -> str:
    return "" if higher_is_better else " ↓"


def _difference_table(comparison: Comparison) -> Table:
    differences = difference_table(comparison.differences).records()
    num_tests = sum(row["p"] is not None for row in differences)
    table = Table(title=f"differences from the baseline; p adjusted for {num_tests} tests (Holm)", title_justify="left")
    for column in ("run", "task", "metric"):
        table.add_column(column, overflow="fold")
    for column in _DIFFERENCE_COLUMNS:
        table.add_column(column, justify="right")
    previous = None
    for found, row in zip(comparison.differences, differences, strict=True):
        name = "" if found.run == previous else row["run"]
        previous = found.run
        table.add_row(name, row["task"], row["metric"], *(show(row) for show in _DIFFERENCE_COLUMNS.values()))
    return table


def _curve_table(curves: Sequence[ShotCurve]) -> Table:
    table = Table(
        title="shot curves: mean over draws of demonstrations, its 95 % interval, worst and best draw, and the "
        "standard error of the test set",
        title_justify="left",
    )
    for column in ("task", "metric", *_names(curves)):
        table.add_column(column)
    for column in _CURVE_COLUMNS:
        table.add_column(column, justify="right")
    for curve in curves:
        points = curve_table([curve]).records()
        for row, point in enumerate(points):
            first = _labels(curve, _names(curves)) if row == 0 else [""] * (2 + len(_names(curves)))
            numbers = [show(point) for show in _CURVE_COLUMNS.values()]
            table.add_row(*first, *numbers, end_section=row == len(points) - 1)
    return table


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
        numbers = [format_score(found.mean), f"{found.stdev:.2g}", f"{found.test_set_stderr:.2g}"]
        ends = [_named(cell) for cell in (found.worst, found.best)]
        table.add_row(*_labels(found, _names(analyses)), *numbers, *_shares(found, factors), *ends, end_section=True)
    return table


def _shares(found: VarianceAnalysis, factors: Sequence[str]) -> Iterator[str]:
    """Yield the share of each factor, of what they do together where there are several, and of the questions."""
    shares = found.shares
    for factor in factors:
        yield f"{shares[factor]:.0%}" if factor in found.factors else ""
    if len(factors) > 1:
        yield f"{sum(share for label, share in shares.items() if label not in (*factors, TEST_SET)):.0%}"
    yield f"{shares.get(TEST_SET, 0.0):.0%}"


def _named(cell: CellScore) -> str:
    return f"{format_score(cell.score)} {format_options(cell.options)}"


def _names(found: Sequence[ShotCurve | VarianceAnalysis]) -> list[str]:
    """Return the conditions that need a column."""
    return condition_keys(each.conditions for each in found)


def _labels(found: ShotCurve | VarianceAnalysis, names: Sequence[str]) -> list[str]:
    return [
        found.task,
        found.metric + _arrow(found.higher_is_better),
        *(found.conditions.get(name, "") for name in names),
    ]


def _influence_table(analyses: Sequence[InfluenceAnalysis]) -> Table:
    """Return a row for each demonstration, with a column for what it adds to each measure."""
    measures = list(
        dict.fromkeys(name for found in analyses for shown in found.demonstrations for name in shown.effects)
    )
    table = Table(
        title="influence: how much better a score is with a demonstration than without it (above zero it helps, also "
        "where lower scores are better), 95 % interval, and how many questions it helps and hurts",
        title_justify="left",
    )
    for column in ("task", "demonstration", "target"):
        table.add_column(column, no_wrap=column == "demonstration")  # an id cut short cannot be looked up
    for name in measures:
        table.add_column(name, justify="right")
        table.add_column("helps / hurts", justify="right")
    for found in analyses:
        for row, shown in enumerate(found.demonstrations):
            cells = [text for name in measures for text in _effect_cells(shown.effects.get(name))]
            target = "" if shown.target is None else shown.target
            last = row == len(found.demonstrations) - 1
            table.add_row(_where(found) if row == 0 else "", shown.id, _cut(target), *cells, end_section=last)
    return table


def _behaviour_table(analyses: Sequence[InfluenceAnalysis]) -> Table:
    """Return a row for each task: how often outputs are what demonstrations show, and how often that is right."""
    table = Table(
        title="outputs that are a demonstration's target, and in brackets how often that is a right answer",
        title_justify="left",
    )
    table.add_column("task")
    for column in ("any demonstration's", "the most frequent", "the last"):
        table.add_column(column, justify="right")
    for found in analyses:
        if found.behaviour is not None:
            table.add_row(_where(found), *map(_share, _agreements(found.behaviour)))
    return table


def _effect_cells(effect: Effect | None) -> tuple[str, str]:
    if effect is None:
        return "", ""
    interval = "" if effect.ci95 is None else f" ({effect.ci95[0]:+.3f} to {effect.ci95[1]:+.3f})"
    return f"{effect.mean:+.3f}{interval}", f"{len(effect.helped)} / {len(effect.hurt)}"


def _agreements(behaviour: Behaviour) -> Iterator[Agreement | None]:
    yield behaviour.copied
    yield behaviour.majority
    yield behaviour.last


def _share(agreement: Agreement | None) -> str:
    return "" if agreement is None else f"{agreement.output:.0%} ({agreement.truth:.0%}) of {agreement.n}"


def _where(found: InfluenceAnalysis) -> str:
    return f"{found.task} {format_options(found.conditions)}".rstrip()


def _cut(text: str) -> str:
    line = join_lines(text)
    return line if len(line) <= _MAX_WIDTH else f"{line[: _MAX_WIDTH - 1]}…"
