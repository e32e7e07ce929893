"""Compute the geometry of the lines, bands and bars in a page's figures, which `figures.html.j2` draws.

Coordinates are in units of the figure's view box, with y pointing down.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from icl_eval.analysis import ShotCurve, ShotCurvePoint, VarianceAnalysis
from icl_eval.analysis.variance import JOINED, TEST_SET
from icl_eval.formatting import count_noun, format_interval, format_options, format_score
from icl_eval.reporting.pages.scales import Scale, log_places, metric_scale

NUM_COLOURS = 6
_DIGIT_WIDTH = 7.0
"""Width of a digit of a tick label."""


@dataclass(frozen=True)
class Frame:
    """The size, the vertical axis and the margins of a chart."""

    scale: Scale
    width: int = 420
    height: int = 260
    right: int = 12
    top: int = 12
    bottom: int = 44

    @property
    def left(self) -> int:
        """The left margin, for the tick labels of the vertical axis (7 per character) and the metric's name."""
        return max(52, 30 + 7 * max(map(len, self.scale.ticks)))

    def x(self, fraction: float) -> float:
        """Return the coordinate of a fraction of the horizontal axis."""
        return round(self.left + (self.width - self.left - self.right) * fraction, 2)

    def y(self, value: float) -> float:
        """Return the coordinate of a value on the vertical axis, clipped to its ends."""
        height = self.height - self.bottom - self.top
        return round(self.height - self.bottom - height * self.scale.percent(value) / 100, 2)


@dataclass(frozen=True)
class Mark:
    """A point of a curve, for one number of demonstrations."""

    x: float
    y: float
    title: str
    draws: tuple[float, ...]
    """Vertical coordinates of the individual draws, if there are several."""
    whisker: tuple[float, float] | None
    """Ends of the error bar over questions."""


@dataclass(frozen=True)
class Line:
    """A shot curve."""

    label: str
    colour: int
    """1 to `NUM_COLOURS`."""
    dashed: bool
    path: str
    band: str
    """Corners of the area between the ends of the intervals; empty if fewer than two points have one."""
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class CurveChart:
    """The shot curves of one metric of a task."""

    task: str
    metric: str
    higher_is_better: bool
    n: int
    frame: Frame
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...]
    key: tuple[str, ...]
    """What its marks mean, and which uncertainty each of them shows."""


@dataclass(frozen=True)
class Segment:
    """The segment of one component in a bar of shares."""

    label: str
    colour: int
    x: float
    width: float
    """Width in percent of the bar."""
    reach: str = ""
    """The 95 % interval of the share in words; empty if it is not known."""


def curve_charts(curves: Sequence[ShotCurve]) -> list[CurveChart]:
    """Return one chart per task and metric, with a line for each of its curves."""
    groups = list(dict.fromkeys((curve.task, curve.metric) for curve in curves))
    return [_curve_chart([curve for curve in curves if (curve.task, curve.metric) == group]) for group in groups]


def _curve_chart(curves: Sequence[ShotCurve]) -> CurveChart:
    numbers = sorted({point.num_fewshot for curve in curves for point in curve.points})
    frame = Frame(curve_scale(curves))
    places = {number: frame.x(place) for number, place in zip(numbers, log_places(numbers), strict=True)}
    return CurveChart(
        task=curves[0].task,
        metric=curves[0].metric,
        higher_is_better=curves[0].higher_is_better,
        n=curves[0].n,
        frame=frame,
        x_ticks=tuple(_thin_out(places)),
        y_ticks=tuple((frame.y(float(tick)), tick) for tick in frame.scale.ticks),
        lines=tuple(_line(curve, number, frame, places) for number, curve in enumerate(curves)),
        key=curve_key(curves),
    )


def _thin_out(places: Mapping[int, float]) -> Iterator[tuple[float, str]]:
    """Yield the places and labels of ticks, without those that would touch the one before."""
    end = -math.inf
    for number, place in places.items():
        half = _DIGIT_WIDTH * len(str(number)) / 2
        if place - half > end:
            yield place, str(number)
            end = place + half + _DIGIT_WIDTH


def curve_key(curves: Sequence[ShotCurve]) -> tuple[str, ...]:
    """Return what the marks of a chart of shot curves mean, and which uncertainty each of them shows."""
    points = [point for curve in curves for point in curve.points]
    key = []
    if any(len(point.scores) > 1 for point in points):
        key += ["lines: means over draws", "small points: single draws"]
    if any(sum(point.ci95 is not None for point in curve.points) > 1 for curve in curves):
        key.append("bands: 95 % over draws, for these questions")
    if any(point.test_set_stderr is not None for point in points):
        key.append("vertical bars: 95 % over questions, for these draws")
    return tuple(key)


def curve_scale(curves: Sequence[ShotCurve]) -> Scale:
    """Return the vertical axis of one metric's curves, which clips bands and error bars to the metric's range."""
    points = [point for curve in curves for point in curve.points]
    scores = (score for point in points for score in point.scores.values())
    intervals = (interval for point in points for interval in (point.ci95, _test_set_interval(point)) if interval)
    return metric_scale(curves[0].metric, scores, (end for interval in intervals for end in interval))


def _test_set_interval(point: ShotCurvePoint) -> tuple[float, float] | None:
    reach = point.test_set_reach
    return None if reach is None else (point.mean - reach, point.mean + reach)


def _line(curve: ShotCurve, number: int, frame: Frame, places: Mapping[int, float]) -> Line:
    marks = tuple(_mark(point, frame, places[point.num_fewshot]) for point in curve.points)
    intervals = [(places[point.num_fewshot], point.ci95) for point in curve.points if point.ci95]
    corners = [(x, high) for x, (_, high) in intervals] + [(x, low) for x, (low, _) in reversed(intervals)]
    return Line(
        label=format_options(curve.conditions),
        colour=number % NUM_COLOURS + 1,
        dashed=number >= NUM_COLOURS,
        path=" ".join(f"{mark.x},{mark.y}" for mark in marks),
        band=" ".join(f"{x},{frame.y(height)}" for x, height in corners) if len(intervals) > 1 else "",
        marks=marks,
    )


def _mark(point: ShotCurvePoint, frame: Frame, x: float) -> Mark:
    whisker = _test_set_interval(point)
    interval = f", 95 % interval {format_interval(point.ci95)} over draws" if point.ci95 else ""
    test_set = f", ± {point.test_set_stderr:.2g} over questions" if point.test_set_stderr is not None else ""
    return Mark(
        x=x,
        y=frame.y(point.mean),
        title=f"{count_noun(point.num_fewshot, 'demonstration')}: {format_score(point.mean)}{interval}{test_set}",
        draws=tuple(frame.y(score) for score in point.scores.values()) if len(point.scores) > 1 else (),
        whisker=(frame.y(whisker[0]), frame.y(whisker[1])) if whisker else None,
    )


def strip_x(scale: Scale, value: float) -> float:
    """Return the horizontal coordinate of a value on a strip, which is 244 wide with margins of 4."""
    return round(4 + 2.36 * scale.percent(value), 2)


def stack_points(scale: Scale, values: Sequence[float]) -> list[tuple[float, float]]:
    """Return the coordinates of points below the bar of a strip, those of (nearly) equal values below each other."""
    counts: Counter[int] = Counter()
    points = []
    for x in sorted(strip_x(scale, value) for value in values):
        place = round(x / 4)
        points.append((x, 13.0 + 3 * min(counts[place], 3)))
        counts[place] += 1
    return points


def variance_segments(analysis: VarianceAnalysis) -> list[Segment]:
    """Return the segments of a bar of shares: each option, each interaction of options, and the test set."""
    intervals = {JOINED.join(each.factors): each.share_ci95 for each in analysis.components}
    segments, x = [], 0.0
    for number, (label, share) in enumerate(analysis.shares.items(), start=1):
        # The test set is grey (0), because it is not an option.
        colour = 0 if label == TEST_SET else (number - 1) % NUM_COLOURS + 1
        reach = _describe_reach(analysis.test_set_at_least if label == TEST_SET else intervals[label])
        segments.append(Segment(label, colour, round(x, 2), round(100 * share, 2), reach))
        x += 100 * share
    return segments


def _describe_reach(reach: float | tuple[float, float] | None) -> str:
    """Return an interval of a share, or its lower end, in words."""
    if reach is None:
        return ""
    if isinstance(reach, float):
        return f"at least {100 * reach:.0f} %"
    return f"{100 * reach[0]:.0f} to {100 * reach[1]:.0f} %"
