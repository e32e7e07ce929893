"""Draw a sweep's analyses with matplotlib as SVG files for a paper; the same sweep gives the same bytes.

Text is drawn as outlines, so that a figure looks the same on every machine.
"""

import io
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from icl_eval.analysis import InfluenceAnalysis, LeaveOneOutAnalysis, ShotCurve, VarianceAnalysis
from icl_eval.analysis.variance import TEST_SET
from icl_eval.commands.export.tables import printable
from icl_eval.formatting import format_options, shorten_name
from icl_eval.reporting.pages.charts import NUM_COLOURS, curve_key, curve_scale, variance_segments
from icl_eval.reporting.pages.scales import Scale, log_places
from icl_eval.runs.writing import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from icl_eval.analysis.sweeps import Sweep

_COLOURS = ("#b4b8be", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Grey, then the colours of Okabe and Ito, in the same order as on the pages."""
_STYLE: Mapping[str, Any] = {
    "svg.hashsalt": "icl_eval",
    "svg.fonttype": "path",
    "text.parse_math": False,  # a `$` in a name is literal
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
_WIDTH = 3.4
"""Width in inches: one column of a two-column paper."""
_MAX_NAME_BYTES = 200


def write_figures(sweep: "Sweep", folder: "Path") -> "list[Path]":
    """Draw a sweep's figures into a folder and return the paths of the files."""
    import matplotlib

    written = []
    with matplotlib.rc_context(dict(_STYLE)):
        for name, figure in _figures(sweep):
            clean = re.sub(r"[^\w.-]+", "_", name)
            path = folder / f"{clean if len(clean.encode()) <= _MAX_NAME_BYTES else shorten_name(clean, name, 180)}.svg"
            drawn = io.StringIO()
            figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
            write_whole(drawn.getvalue(), path)
            written.append(path)
    return written


def _figures(sweep: "Sweep") -> "Iterator[tuple[str, Figure]]":
    curves = sweep.analysis.shot_curves
    for task, metric in dict.fromkeys((curve.task, curve.metric) for curve in curves):
        group = [curve for curve in curves if (curve.task, curve.metric) == (task, metric)]
        yield f"shot_curve_{task}_{metric}", draw_curves(group)
    if sweep.analysis.spreads:
        yield "variance", draw_shares(sweep.analysis.spreads)
    for kind, analyses in (("influence", sweep.analysis.influence), ("leave_one_out", sweep.analysis.leave_one_out)):
        for analysis in analyses:
            for measure in dict.fromkeys(measure for shown in analysis.demonstrations for measure in shown.effects):
                name = "_".join([kind, analysis.task, measure, *map("=".join, analysis.conditions.items())])
                yield name, draw_influences(analysis, measure)


def draw_curves(curves: Sequence[ShotCurve]) -> "Figure":
    """Draw the shot curves of one metric of a task, with bands over draws and error bars over questions."""
    figure, axes = _open(height=2.4)
    numbers = sorted({point.num_fewshot for curve in curves for point in curve.points})
    places = dict(zip(numbers, log_places(numbers), strict=True))
    scale = curve_scale(curves)
    for index, curve in enumerate(curves):
        _draw_curve(axes, curve, places, scale, _COLOURS[index % NUM_COLOURS + 1], "-" if index < NUM_COLOURS else "--")
    axes.set_ylim(scale.low, scale.high)
    axes.set_xticks([places[number] for number in numbers], [str(number) for number in numbers])
    axes.set_xlabel("demonstrations in the prompt (log scale)")
    axes.set_ylabel(printable(f"{curves[0].task} {curves[0].metric}"))
    if len(curves) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), fontsize=7)
    _say(axes, curve_key(curves))
    return figure


def _say(axes: "Axes", key: Sequence[str]) -> None:
    """Write above a figure what its marks mean, and which uncertainty they show."""
    axes.set_title(textwrap.fill("; ".join(key), 64), loc="left", fontsize=6, color="0.35")


def _draw_curve(axes: "Axes", curve: ShotCurve, at: Mapping[int, float], scale: Scale, colour: str, style: str) -> None:
    places = [at[point.num_fewshot] for point in curve.points]
    means = [point.mean for point in curve.points]
    label = printable(format_options(curve.conditions))
    (line,) = axes.plot(places, means, style, color=colour, marker="o", markersize=3, linewidth=1.2, label=label)
    line.set_clip_on(False)  # otherwise a marker at the end of the axis is cut in half
    banded = [(place, point.ci95) for place, point in zip(places, curve.points, strict=True) if point.ci95]
    if banded:
        lows, highs = np.clip([ends for _, ends in banded], scale.low, scale.high).T
        axes.fill_between([place for place, _ in banded], lows, highs, color=colour, alpha=0.16, linewidth=0)
    for place, point in zip(places, curve.points, strict=True):
        if point.test_set_reach is not None:
            axes.errorbar(place, point.mean, point.test_set_reach, color=colour, linewidth=0.6, alpha=0.6)
        if len(point.scores) > 1:
            draws = list(point.scores.values())
            axes.scatter([place] * len(draws), draws, s=4, color=colour, alpha=0.5, linewidths=0, clip_on=False)


def draw_shares(analyses: Sequence[VarianceAnalysis]) -> "Figure":
    """Draw a bar of variance shares for each analysis."""
    figure, axes = _open(height=0.6 + 0.28 * len(analyses))
    bars = [variance_segments(analysis) for analysis in analyses]
    colours = _colours([segment.label for segments in bars for segment in segments])
    for row, segments in enumerate(bars):
        for segment in segments:
            axes.barh(row, segment.width, left=segment.x, height=0.6, color=colours[segment.label])
    axes.set_yticks(range(len(analyses)), [_name(analysis) for analysis in analyses])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the variance of a score (%)")
    handles = [axes.barh(0, 0, color=colour) for colour in colours.values()]
    axes.legend(
        handles, [printable(label) for label in colours], loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=7
    )
    return figure


def draw_influences(analysis: InfluenceAnalysis | LeaveOneOutAnalysis, measure: str) -> "Figure":
    """Draw the effect of each demonstration on one measure with its interval, one row per demonstration."""
    shown = [each for each in analysis.demonstrations if measure in each.effects]
    figure, axes = _open(height=0.6 + 0.2 * len(shown))
    for row, each in enumerate(shown):
        effect = each.effects[measure]
        low, high = effect.ci95 or (effect.mean, effect.mean)
        axes.plot((low, high), (row, row), color=_COLOURS[1], linewidth=1.2)
        axes.plot(effect.mean, row, "o", color=_COLOURS[1], markersize=3)
    axes.axvline(0, color=_COLOURS[0], linewidth=0.8)
    axes.set_yticks(range(len(shown)), [printable(each.id) for each in shown])
    axes.invert_yaxis()
    axes.set_xlabel(printable(f"{measure} added to {analysis.task}"))
    if any(each.effects[measure].ci95 for each in shown):
        units = "questions" if isinstance(analysis, LeaveOneOutAnalysis) else "draws of sets"
        _say(axes, [f"bars: 95 % over {units}, for all demonstrations at once"])
    return figure


def _colours(labels: Sequence[str]) -> dict[str, str]:
    """Return a colour for each label, so that an option looks the same in every bar."""
    options = [label for label in dict.fromkeys(labels) if label != TEST_SET]
    coloured = {label: _COLOURS[index % NUM_COLOURS + 1] for index, label in enumerate(options)}
    return coloured | {TEST_SET: _COLOURS[0]}


def _name(analysis: VarianceAnalysis) -> str:
    return printable(f"{analysis.task} {analysis.metric} {format_options(analysis.conditions)}")


def _open(height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure  # not pyplot, which needs a display and keeps figures in memory

    figure = Figure(figsize=(_WIDTH, height))
    return figure, figure.add_subplot()
