"""Print the analysis of a sweep as tables."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from icl_eval.analysis.draws import ScoreOverDraws, draws_table
from icl_eval.analysis.influence import Influence, InfluenceAnalysis, SetEffect
from icl_eval.analysis.leave_one_out import Effect, LeaveOneOutAnalysis, LeftOut
from icl_eval.analysis.order_probing import OrderProbing
from icl_eval.analysis.prompts import QUANTILES, ScoreOverPrompts
from icl_eval.analysis.shot_curve import ShotCurve, curve_table
from icl_eval.analysis.sweeps import SweepAnalysis
from icl_eval.analysis.tables import condition_keys
from icl_eval.analysis.variance import (
    JOINED,
    QUESTIONS,
    TEST_SET,
    CellScore,
    VarianceAnalysis,
    spread_table,
    variance_table,
)
from icl_eval.formatting import (
    count_noun,
    format_difference,
    format_interval,
    format_options,
    format_p_value,
    format_score,
    join_lines,
    mark_direction,
)
from icl_eval.reporting.columns import Show, format_ends, open_table
from icl_eval.reporting.terminal import open_console
from icl_eval.runs.behaviour import Agreement, Behaviour

_MAX_WIDTH = 24


def print_analysis(analysis: SweepAnalysis) -> None:
    """Print the analyses of a sweep that apply, and the notes on what could not be analysed."""
    console = open_console()
    curves = [curve for curve in analysis.shot_curves if any(len(point.scores) > 1 for point in curve.points)]
    parts: tuple[tuple[Sequence[Any], tuple[Callable[[Any], Table], ...]], ...] = (
        (analysis.draws, (_draws_table,)),
        (curves, (_curve_table,)),
        (analysis.spreads, (_variance_table, _spread_table, _gap_table)),
        (analysis.prompts, (_prompts_table,)),
        (analysis.influence, (_influence_table,)),
        (analysis.leave_one_out, (_leave_one_out_table, _behaviour_table)),
        (analysis.order_probing, (_order_probing_table,)),
    )
    for analyses, tables in parts:
        for table in tables if analyses else ():
            console.print(table(analyses))
    for note in analysis.notes:
        console.print(note, style="yellow")


_DRAWS_COLUMNS: Mapping[str, Show] = {
    "draws": lambda row: str(row["draws"]),
    "n": lambda row: str(row["n"]),
    "mean": lambda row: format_score(row["mean"]),
    "± stderr": lambda row: f"{row['stderr']:.3g}",
    "95 % interval": lambda row: format_ends(row, "ci95 low", "ci95 high"),
    "a new draw": lambda row: format_ends(row, "new draw low", "new draw high"),
    "worst to best": lambda row: format_ends(row, "worst draw", "best draw"),
    "due to draws": lambda row: f"{row['share of draws']:.0%}",
}
_CURVE_COLUMNS: Mapping[str, Show] = {
    "demonstrations": lambda row: str(row["demonstrations"]),
    "draws": lambda row: str(row["draws"]),
    "mean": lambda row: format_score(row["mean"]),
    "95 % interval": lambda row: format_ends(row, "ci95 low", "ci95 high"),
    "worst to best": lambda row: format_ends(row, "worst draw", "best draw"),
    "test set ±": lambda row: "" if row["test set stderr"] is None else f"{row['test set stderr']:.2g}",
}


def _draws_table(found: Sequence[ScoreOverDraws]) -> Table:
    conditions = _condition_columns(found)
    table = open_table(
        "scores over draws: mean with standard error and 95 % interval over draws and questions, 95 % interval for the "
        "score of a new draw on these questions, and the share of the squared error that more questions keep",
        ("task", "metric", *conditions),
        _DRAWS_COLUMNS,
    )
    for each, row in zip(found, draws_table(found).records(), strict=True):
        table.add_row(*_label_cells(each, conditions), *(show(row) for show in _DRAWS_COLUMNS.values()))
    return table


def _curve_table(curves: Sequence[ShotCurve]) -> Table:
    conditions = _condition_columns(curves)
    table = open_table(
        "shot curves: mean over draws of demonstrations, 95 % interval of this mean over all draws on these questions, "
        "worst and best draw, and standard error over questions",
        ("task", "metric", *conditions),
        _CURVE_COLUMNS,
    )
    for curve in curves:
        points = curve_table([curve]).records()
        for row, point in enumerate(points):
            first = _label_cells(curve, conditions) if row == 0 else [""] * (2 + len(conditions))
            numbers = [show(point) for show in _CURVE_COLUMNS.values()]
            table.add_row(*first, *numbers, end_section=row == len(points) - 1)
    return table


def _variance_table(analyses: Sequence[VarianceAnalysis]) -> Table:
    """Return one row per source: each factor, each interaction of factors, and the test set."""
    conditions = _condition_columns(analyses)
    table = open_table(
        "variance of a score by source: standard deviations, and shares of the variance with 95 % intervals, of which "
        "that of the test set has no upper end",
        ("task", "metric", *conditions, "source"),
        _VARIANCE_COLUMNS,
    )
    for analysis in analyses:
        rows = [row for row in variance_table([analysis]).records() if QUESTIONS not in row["component"].split(JOINED)]
        for number, row in enumerate(rows):
            labels = _label_cells(analysis, conditions) if number == 0 else [""] * (2 + len(conditions))
            numbers = [show(row) for show in _VARIANCE_COLUMNS.values()]
            clusters = analysis.num_clusters if row["component"] == TEST_SET else None
            source = f"{TEST_SET} ({count_noun(clusters, 'cluster')})" if clusters else row["component"]
            table.add_row(*labels, source, *numbers, end_section=number == len(rows) - 1)
    return table


def _format_share_ends(row: Mapping[str, Any]) -> str:
    low, high = row["share low"], row["share high"]
    if low is None:
        return ""
    return f"at least {low:.0%}" if high is None else f"{low:.0%} to {high:.0%}"


def _spread_table(analyses: Sequence[VarianceAnalysis]) -> Table:
    """Return one row per analysis: how far its cells and its wordings lie apart."""
    has_wordings = any(analysis.wording for analysis in analyses)
    title = "spread of a score over cells: mean, standard deviation, and standard error of one score over questions"
    if has_wordings:
        title += "; best minus worst wording, as it is and with noise taken off"
    conditions = _condition_columns(analyses)
    columns = {**_CELLS_COLUMNS, **(_WORDINGS_COLUMNS if has_wordings else {})}
    table = open_table(title, ("task", "metric", *conditions), columns)
    for analysis, row in zip(analyses, spread_table(analyses).records(), strict=True):
        table.add_row(*_label_cells(analysis, conditions), *(show(row) for show in columns.values()))
    return table


def _gap_table(analyses: Sequence[VarianceAnalysis]) -> Table:
    """Return one row per analysis: the worst and the best cell, and how far noise alone would put them apart."""
    table = Table(
        title="worst and best cell; by noise alone: how far apart they would be if no cell differed in truth, on "
        "average and in 95 % of sweeps at most",
        title_justify="left",
    )
    conditions = _condition_columns(analyses)
    for column in ("task", "metric", *conditions):
        table.add_column(column)
    for column in ("worst", "best"):
        table.add_column(column, overflow="fold")
    for column in ("best - worst", "by noise alone"):
        table.add_column(column, justify="right", no_wrap=True)
    for analysis, row in zip(analyses, spread_table(analyses).records(), strict=True):
        ends = [_format_cell_score(cell) for cell in (analysis.worst, analysis.best)]
        table.add_row(*_label_cells(analysis, conditions), *ends, format_score(row["gap"]), _format_noise(row))
    return table


def _format_noise(row: Mapping[str, Any]) -> str:
    return "" if row["noise gap"] is None else f"{row['noise gap']:.2g}, up to {row['noise gap p95']:.2g}"


_VARIANCE_COLUMNS: Mapping[str, Show] = {
    "±": lambda row: f"{row['stdev']:.2g}",
    "share": lambda row: f"{row['share']:.0%}",
    "95 % interval": _format_share_ends,
    "p": lambda row: "" if row["p"] is None else format_p_value(row["p"]),
}
_CELLS_COLUMNS: Mapping[str, Show] = {
    "cells": lambda row: str(row["cells"]),
    "mean": lambda row: format_score(row["mean"]),
    "over cells ±": lambda row: f"{row['stdev']:.2g}",
    "test set ±": lambda row: f"{row['test set stderr']:.2g}",
}
_WORDINGS_COLUMNS: Mapping[str, Show] = {
    "wordings": lambda row: "" if row["wordings"] is None else str(row["wordings"]),
    "best - worst": lambda row: "" if row["wordings"] is None else format_score(row["wording spread"]),
    "noise taken off": lambda row: "" if row["wordings"] is None else format_score(row["true wording spread"]),
    "95 % interval": lambda row: format_ends(row, "true low", "true high"),
}


def _prompts_table(found: Sequence[ScoreOverPrompts]) -> Table:
    """Return one row per distribution and kind of score."""
    table = Table(
        title="scores over prompts: so many prompts score no more than this, as printed and with noise taken off",
        title_justify="left",
    )
    conditions = condition_keys(each.conditions for each in found)
    for column in ("task", "metric", *conditions):
        table.add_column(column)
    for column in ("prompts", "n"):
        table.add_column(column, justify="right")
    table.add_column("scores")
    for share in QUANTILES:
        table.add_column(f"{share:.0%}", justify="right")
    for each in found:
        for number, (kind, quantiles) in enumerate(each.kinds):
            labels = [each.task, each.metric, *(each.conditions.get(name, "") for name in conditions)]
            labels += [str(each.num_prompts), f"{each.n_per_prompt:g}"]
            shown = labels if number == 0 else [""] * len(labels)
            table.add_row(*shown, kind, *map(format_score, quantiles), end_section=kind == each.kinds[-1][0])
    return table


def _format_cell_score(cell: CellScore) -> str:
    return f"{format_score(cell.score)} {format_options(cell.options)}"


def _condition_columns(analyses: Sequence[ScoreOverDraws | ShotCurve | VarianceAnalysis]) -> list[str]:
    """Return the names of the conditions that need a column."""
    return condition_keys(analysis.conditions for analysis in analyses)


def _label_cells(analysis: ScoreOverDraws | ShotCurve | VarianceAnalysis, conditions: Sequence[str]) -> list[str]:
    return [
        analysis.task,
        analysis.metric + mark_direction(analysis.higher_is_better),
        *(analysis.conditions.get(name, "") for name in conditions),
    ]


def _influence_table(analyses: Sequence[InfluenceAnalysis]) -> Table:
    """Return one row per demonstration, with its influence on each measure."""
    return _demonstration_table(
        "influence: mean score of the random sets with a demonstration minus mean score of those without it "
        "(above zero it helps, even if lower scores are better), 95 % interval for all of them at once, and its "
        "coefficient in a linear model of the score",
        analyses,
        {"sets with / without": lambda shown: f"{shown.sets_with} / {shown.sets_without}"},
        "coefficient",
        _set_effect_cells,
    )


def _demonstration_table(
    title: str,
    analyses: Sequence[InfluenceAnalysis] | Sequence[LeaveOneOutAnalysis],
    numbers: Mapping[str, Callable[[Any], str]],
    beside: str,
    effect_cells: Callable[[Any], tuple[str, str]],
) -> Table:
    """Return one row per demonstration, with two columns for its effect on each measure.

    Args:
        title: The title.
        analyses: The analyses, which name demonstrations with their effects by measure.
        numbers: Columns of the demonstration itself, each with what formats its cell.
        beside: The second column of each measure; the first one has its name.
        effect_cells: Formats both from an effect; None where there is none.
    """
    table = Table(title=title, title_justify="left")
    measures = list(
        dict.fromkeys(name for analysis in analyses for shown in analysis.demonstrations for name in shown.effects)
    )
    for column in ("task", "demonstration", "target"):
        table.add_column(column, no_wrap=column == "demonstration")  # a truncated id cannot be looked up
    for column in (*numbers, *(each for name in measures for each in (name, beside))):
        table.add_column(column, justify="right")
    for analysis in analyses:
        demonstrations: Sequence[Influence | LeftOut] = analysis.demonstrations
        for row, shown in enumerate(demonstrations):
            label = _task_label(analysis) if row == 0 else ""
            own = [show(shown) for show in numbers.values()]
            cells = [text for name in measures for text in effect_cells(shown.effects.get(name))]
            last = row == len(demonstrations) - 1
            table.add_row(label, shown.id, _truncate(shown.target or ""), *own, *cells, end_section=last)
    return table


def _set_effect_cells(effect: SetEffect | None) -> tuple[str, str]:
    if effect is None:
        return "", ""
    return f"{format_difference(effect.mean)}{_format_reach(effect.ci95)}", format_difference(effect.coefficient)


def _leave_one_out_table(analyses: Sequence[LeaveOneOutAnalysis]) -> Table:
    """Return one row per demonstration, with its effect on each measure."""
    return _demonstration_table(
        "leave-one-out: improvement of the score by a demonstration beside all the others (above zero it helps, "
        "even if lower scores are better), 95 % interval for all of them at once, and number of questions that it "
        "helps and hurts",
        analyses,
        {},
        "helps / hurts",
        _effect_cells,
    )


def _order_probing_table(analyses: Sequence[OrderProbing]) -> Table:
    """Return one row per order, the one to use first."""
    table = Table(
        title="order probing: orders of the same demonstrations by the entropy of their predictions, the one to use "
        "first; the entropies need no references, and their rank correlation with the score says how far to trust them",
        title_justify="left",
    )
    for column in ("task", "order"):
        table.add_column(column, no_wrap=column == "order")
    for column in ("GlobalE", "LocalE", "choice_accuracy"):
        table.add_column(column, justify="right")
    for analysis in analyses:
        for row, each in enumerate(analysis.orders):
            entropies = [_format_known(value) for value in (each.global_entropy, each.local_entropy)]
            order = format_options(each.options)
            last = row == len(analysis.orders) - 1
            label = _task_label(analysis) if row == 0 else ""
            table.add_row(label, order, *entropies, format_score(each.score), end_section=last)
        correlations = [_format_signed(value) for value in (analysis.global_correlation, analysis.local_correlation)]
        table.add_row("", "rank correlation with the score", *correlations, "")
        table.add_row("", "mean of all orders", "", "", format_score(analysis.mean_score), end_section=True)
    return table


def _format_known(value: float | None) -> str:
    return "" if value is None else format_score(value)


def _format_signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"


def _behaviour_table(analyses: Sequence[LeaveOneOutAnalysis]) -> Table:
    """Return one row per task: how often outputs repeat the answer of a demonstration, and how often that is right."""
    table = Table(
        title="outputs that repeat the answer of a demonstration (in parentheses: how often that answer is right; "
        "how often another draw from the pool would show the output)",
        title_justify="left",
    )
    table.add_column("task")
    for column in ("any demonstration's", "the most frequent", "the last"):
        table.add_column(column, justify="right")
    for analysis in analyses:
        if analysis.behaviour is not None:
            table.add_row(_task_label(analysis), *map(_format_agreement, _agreements(analysis.behaviour)))
    return table


def _effect_cells(effect: Effect | None) -> tuple[str, str]:
    if effect is None:
        return "", ""
    counts = f"{len(effect.helped)} / {len(effect.hurt)}"
    return f"{format_difference(effect.mean)}{_format_reach(effect.ci95)}", counts


def _format_reach(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" ({format_interval(interval, format_difference)})"


def _agreements(behaviour: Behaviour) -> Iterator[Agreement | None]:
    yield behaviour.copied
    yield behaviour.majority
    yield behaviour.last


def _format_agreement(agreement: Agreement | None) -> str:
    if agreement is None:
        return ""
    another = "" if agreement.another_draw is None else f"; {agreement.another_draw:.0%}"
    return f"{agreement.output:.0%} ({agreement.truth:.0%}{another}) of {agreement.n}"


def _task_label(analysis: InfluenceAnalysis | LeaveOneOutAnalysis | OrderProbing) -> str:
    return f"{analysis.task} {format_options(analysis.conditions)}".rstrip()


def _truncate(text: str) -> str:
    line = join_lines(text)
    return line if len(line) <= _MAX_WIDTH else f"{line[: _MAX_WIDTH - 1]}…"
