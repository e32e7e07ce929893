"""Shot curves: the score as a function of the number of demonstrations.

The band around a curve says how sure its mean is about all draws, on these questions. It does not say where a new draw
would be, nor what other questions would change; for both see `icl_eval.analysis.draws`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from icl_eval.analysis.designs import SweepCell, choose_draw, is_drawn, merge_unseeded, split
from icl_eval.analysis.measurements import find_range
from icl_eval.analysis.tables import PlainTable, condition_keys
from icl_eval.formatting import format_options
from icl_eval.metrics.intervals import NORMAL_QUANTILE, mean_stderr, spread, student_interval

_SHOTS = "num_fewshot"


@dataclass(frozen=True)
class ShotCurvePoint:
    """The scores of all draws with the same number of demonstrations."""

    num_fewshot: int
    scores: Mapping[str, float]
    """Scores by draw, such as `seed=3`. Those of one draw with other seeds (its orders, say) are averaged first, since
    they are not independent of each other."""
    mean: float
    """Mean of the scores."""
    stdev: float | None
    """Standard deviation of the scores over draws (n - 1); None for a single draw."""
    ci95: tuple[float, float] | None
    """Student's t interval of the mean over all possible draws, on these questions, cut where the metric's scale ends;
    None for a single draw. A prompt without demonstrations is a single draw, however often it is decoded."""
    test_set_stderr: float | None
    """Standard error of the mean over samples of questions, or of their clusters, with the draws fixed."""

    @property
    def test_set_reach(self) -> float | None:
        """Half the width of the mean's 95 % interval over samples of questions: 1.96 standard errors."""
        return None if self.test_set_stderr is None else NORMAL_QUANTILE * self.test_set_stderr


@dataclass(frozen=True)
class ShotCurve:
    """One metric of one task as a function of the number of demonstrations."""

    task: str
    metric: str
    higher_is_better: bool
    conditions: Mapping[str, str]
    """Values of the other options that vary in the sweep. Each combination has its own curve."""
    draws: tuple[str, ...]
    """The seeds that vary between repetitions."""
    n: int
    """Number of questions behind each score."""
    points: tuple[ShotCurvePoint, ...]
    """Points in ascending order of the number of demonstrations."""


def shot_curves(cells: Sequence[SweepCell]) -> tuple[list[ShotCurve], list[str]]:
    """Return a curve for each combination of the other options, and notes on cells that were left out.

    There is no curve where the number of demonstrations does not vary.

    Args:
        cells: Cells with the same task, metric and questions.
    """
    curves, notes = [], []
    for group in split(cells, lambda option: option == _SHOTS or is_drawn(option)):
        if _SHOTS not in group.options:
            continue
        if group.gap:
            notes.append(f"shot curve, {group.where}: {group.gap}")
        by_number: defaultdict[int, list[SweepCell]] = defaultdict(list)
        for cell in group.cells:
            if (number := _read_number(cell.options[_SHOTS])) is None:
                option = format_options({_SHOTS: cell.options[_SHOTS]})
                notes.append(f"shot curve, {group.where}: cells with {option} left out, which is no number")
            else:
                by_number[number].append(cell)
        if len(by_number) < 2:
            continue
        measured = group.cells[0].measurement
        curves.append(
            ShotCurve(
                task=measured.task,
                metric=measured.metric,
                higher_is_better=measured.higher_is_better,
                conditions=group.conditions,
                draws=tuple(key for key in group.options if is_drawn(key)),
                n=len(measured.example_ids),
                points=tuple(_point(number, merge_unseeded(by_number[number])) for number in sorted(by_number)),
            )
        )
    return curves, notes


def _read_number(option: str) -> int | None:
    """Return the number of demonstrations that an option asks for; None for `null`, which leaves it to the task."""
    try:
        return int(option)
    except ValueError:
        return None


def curve_table(curves: Sequence[ShotCurve]) -> PlainTable:
    """Return one row per point of each curve."""
    conditions = condition_keys(curve.conditions for curve in curves)
    rows = []
    for curve in curves:
        identity = (curve.task, curve.metric, *(curve.conditions.get(key) for key in conditions))
        for point in curve.points:
            ranked = sorted(point.scores.values(), reverse=not curve.higher_is_better)
            band = (point.mean, *(point.ci95 or (None, None)))
            draws = (ranked[0], ranked[-1], point.test_set_stderr)
            rows.append((*identity, point.num_fewshot, len(ranked), *band, *draws))
    numbers = ("demonstrations", "draws", "mean", "ci95 low", "ci95 high", "worst draw", "best draw", "test set stderr")
    return PlainTable("shot_curves", ("task", "metric", *conditions, *numbers), tuple(rows))


def _point(number: int, cells: Sequence[SweepCell]) -> ShotCurvePoint:
    by_draw = _scores_by_draw(cells)
    scores = np.array(list(by_draw.values()))
    stdev, interval = (spread(scores), student_interval(scores)) if len(scores) > 1 else (None, None)
    if interval:
        low, high = find_range(cell.measurement for cell in cells)
        interval = (max(low, interval[0]), min(high, interval[1]))
    return ShotCurvePoint(number, by_draw, float(scores.mean()), stdev, interval, _test_set_stderr(cells))


def _scores_by_draw(cells: Sequence[SweepCell]) -> dict[str, float]:
    draw = choose_draw(cells)
    scores: defaultdict[str, list[float]] = defaultdict(list)
    for cell in cells:
        scores[format_options({draw: cell.options[draw]}) if draw else ""].append(cell.measurement.score)
    return {name: float(np.mean(own)) for name, own in scores.items()}


def _test_set_stderr(cells: Sequence[SweepCell]) -> float | None:
    """Return the standard error over questions of the mean of all draws, averaging each question over draws first."""
    values = [cell.measurement.values for cell in cells]
    known = [value for value in values if value is not None]
    clusters = cells[0].measurement.clusters
    if len(known) < len(values) or known[0].size < 2 or (clusters and len(set(clusters)) < 2):
        return None
    return mean_stderr(np.mean(known, axis=0), clusters)
