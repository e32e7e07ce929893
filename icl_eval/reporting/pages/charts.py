"""Charts: where the lines, bands and bars of a page's figures go; `figures.html.j2` draws them.

Numbers are in the units of a figure's view box, with y downwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from icl_eval.analysis import ShotCurve, ShotCurvePoint, VarianceAnalysis
from icl_eval.analysis.variance import TEST_SET
from icl_eval.formatting import count_noun, format_interval, format_options, format_score
from icl_eval.reporting.pages.scales import Scale, metric_scale

NUM_COLOURS = 6


@dataclass(frozen=True)
class Frame:
    """A chart's size, its vertical axis, and the room for what is written around it."""

    scale: Scale
    width: int = 420
    height: int = 260
    right: int = 12
    top: int = 12
    bottom: int = 44

    @property
    def left(self) -> int:
        """Return the room for the numbers of the vertical axis, 7 a character, and the metric's name beside them."""
        return max(52, 30 + 7 * max(map(len, self.scale.ticks)))

    def x(self, fraction: float) -> float:
        """Return where a fraction of the horizontal axis is."""
        return round(self.left + (self.width - self.left - self.right) * fraction, 2)

    def y(self, value: float) -> float:
        """Return where a value is on the vertical axis, at its end where it is beyond it."""
        height = self.height - self.bottom - self.top
        return round(self.height - self.bottom - height * self.scale.percent(value) / 100, 2)


@dataclass(frozen=True)
class Mark:
    """A number of demonstrations on a curve."""

    x: float
    y: float
    title: str
    draws: tuple[float, ...]
    """Heights of the single draws, where there are several."""
    whisker: tuple[float, float] | None
    """Ends of the test set's error bar."""


@dataclass(frozen=True)
class Line:
    """A shot curve."""

    label: str
    colour: int
    """1 to `NUM_COLOURS`."""
    dashed: bool
    path: str
    band: str
    """Corners of the area between the ends of the intervals; empty where no point has one."""
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class CurveChart:
    """The shot curves of one task's metric."""

    task: str
    metric: str
    higher_is_better: bool
    n: int
    frame: Frame
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Segment:
    """What one component adds to a bar of shares."""

    label: str
    colour: int
    x: float
    width: float
    """In percent of the bar."""


def curve_charts(curves: Sequence[ShotCurve]) -> list[CurveChart]:
    """Return a chart for each task's metric, with a line for each of its curves."""
    groups = list(dict.fromkeys((curve.task, curve.metric) for curve in curves))
    return [_curve_chart([curve for curve in curves if (curve.task, curve.metric) == group]) for group in groups]


def _curve_chart(curves: Sequence[ShotCurve]) -> CurveChart:
    numbers = sorted({point.num_fewshot for curve in curves for point in curve.points})
    frame = Frame(curve_scale(curves))
    steps = max(1, len(numbers) - 1)
    # Numbers of demonstrations stand at equal distances: 0, 1, 2, 4, 8 is how they are usually chosen.
    places = {number: frame.x(index / steps) for index, number in enumerate(numbers)}
    return CurveChart(
        task=curves[0].task,
        metric=curves[0].metric,
        higher_is_better=curves[0].higher_is_better,
        n=curves[0].n,
        frame=frame,
        x_ticks=tuple((places[number], str(number)) for number in numbers),
        y_ticks=tuple((frame.y(float(tick)), tick) for tick in frame.scale.ticks),
        lines=tuple(_line(curve, number, frame, places) for number, curve in enumerate(curves)),
    )


def curve_scale(curves: Sequence[ShotCurve]) -> Scale:
    """Return the vertical axis of one metric's curves; bands and error bars that go beyond the metric end with it."""
    points = [point for curve in curves for point in curve.points]
    scores = (score for point in points for score in point.scores.values())
    intervals = (interval for point in points for interval in (point.ci95, _test_set_interval(point)) if interval)
    return metric_scale(curves[0].metric, scores, (end for interval in intervals for end in interval))


def _test_set_interval(point: ShotCurvePoint) -> tuple[float, float] | None:
    reach = point.test_set_reach
    return None if reach is None else (point.mean - reach, point.mean + reach)


def _line(curve: ShotCurve, number: int, frame: Frame, places: Mapping[int, float]) -> Line:
    marks = tuple(_mark(point, frame, places[point.num_fewshot]) for point in curve.points)
    banded = [(places[point.num_fewshot], point.ci95) for point in curve.points if point.ci95]
    corners = [(x, high) for x, (_, high) in banded] + [(x, low) for x, (low, _) in reversed(banded)]
    return Line(
        label=format_options(curve.conditions),
        colour=number % NUM_COLOURS + 1,
        dashed=number >= NUM_COLOURS,
        path=" ".join(f"{mark.x},{mark.y}" for mark in marks),
        band=" ".join(f"{x},{frame.y(height)}" for x, height in corners) if len(banded) > 1 else "",
        marks=marks,
    )


def _mark(point: ShotCurvePoint, frame: Frame, x: float) -> Mark:
    whisker = _test_set_interval(point)
    interval = f", 95 % interval {format_interval(point.ci95)} over draws" if point.ci95 else ""
    test_set = f", ± {point.test_set_stderr:.2g} for the test set" if point.test_set_stderr is not None else ""
    return Mark(
        x=x,
        y=frame.y(point.mean),
        title=f"{count_noun(point.num_fewshot, 'demonstration')}: {format_score(point.mean)}{interval}{test_set}",
        draws=tuple(frame.y(score) for score in point.scores.values()) if len(point.scores) > 1 else (),
        whisker=(frame.y(whisker[0]), frame.y(whisker[1])) if whisker else None,
    )


def variance_segments(found: VarianceAnalysis) -> list[Segment]:
    """Return the bar of a variance's components: each option, what options do together, and the test set."""
    segments, x = [], 0.0
    for number, (label, share) in enumerate(found.shares.items(), start=1):
        # The test set is grey (0): it is no option that somebody chose.
        colour = 0 if label == TEST_SET else (number - 1) % NUM_COLOURS + 1
        segments.append(Segment(label, colour, round(x, 2), round(100 * share, 2)))
        x += 100 * share
    return segments
