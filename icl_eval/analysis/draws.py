"""Scores over draws: what a score is for demonstrations drawn at random, not for one draw of them.

The interval of a run is about its own prompts: how its score would move with other questions. The cells of a sweep over
seeds ask the same questions after several draws of demonstrations, so they show both kinds of chance.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from icl_eval.analysis.crossed import CrossedMean, crossed_mean
from icl_eval.analysis.designs import CellGroup, SweepCell, choose_draw, is_drawn, merge_unseeded, split
from icl_eval.analysis.measurements import find_range
from icl_eval.analysis.tables import PlainTable, condition_keys
from icl_eval.metrics.intervals import FloatArray, spread


@dataclass(frozen=True)
class ScoreOverDraws:
    """The mean of one metric of one task over draws of demonstrations and over questions."""

    task: str
    metric: str
    higher_is_better: bool
    conditions: Mapping[str, str]
    """Values of the other options that vary in the sweep. Each combination has its own mean."""
    draw: str
    """The seed whose values are the draws. Scores of one draw with other seeds (its orders, say) are averaged first."""
    scores: Mapping[str, float]
    """Scores by value of that seed."""
    n: int
    """Number of questions behind each score."""
    mean: float
    stderr: float
    """Standard error of the mean over draws and questions; see `icl_eval.analysis.crossed`."""
    degrees: float
    """Degrees of freedom of the standard error (Satterthwaite's)."""
    ci95: tuple[float, float]
    """95 % interval of the mean over all draws and all questions, on the logit scale if scores have two ends."""
    stdev: float
    """Standard deviation of the draws' scores on these questions (n - 1)."""
    new_draw: tuple[float, float] | None
    """95 % prediction interval for the score of one new draw on these questions: mean ± t s √(1 + 1/S). None if all
    draws have the same score."""
    share_of_draws: float
    """Share of the squared standard error that more questions cannot remove."""


def scores_over_draws(cells: Sequence[SweepCell]) -> tuple[list[ScoreOverDraws], list[str]]:
    """Return the mean over draws for each combination of the other options, and notes on what could not be averaged.

    Cells without demonstrations are one draw, whatever their seeds.

    Args:
        cells: Cells with the same task, metric and questions.
    """
    found, notes = [], []
    for group in split(cells, is_drawn):
        members = merge_unseeded(group.cells)
        draw = choose_draw(members)
        if draw is None:
            continue
        by_draw: defaultdict[str, list[SweepCell]] = defaultdict(list)
        for cell in members:
            by_draw[cell.options[draw]].append(cell)
        if len({len(repeated) for repeated in by_draw.values()}) > 1:
            notes.append(f"draws, {group.where}: not every {draw} has the same cells")
            continue
        values = average_draws(list(by_draw.values()))
        clusters = group.cells[0].measurement.clusters
        if values is not None and (clusters is None or len(set(clusters)) > 1):
            found.append(_summarize(group, draw, tuple(by_draw), values))
    return found, notes


def draws_table(found: Sequence[ScoreOverDraws]) -> PlainTable:
    """Return one row per mean over draws."""
    conditions = condition_keys(each.conditions for each in found)
    rows = []
    for each in found:
        ranked = sorted(each.scores.values(), reverse=not each.higher_is_better)
        rows.append(
            (
                *(each.task, each.metric, *(each.conditions.get(key) for key in conditions)),
                *(len(each.scores), each.n, each.mean, each.stderr, *each.ci95),
                *(each.new_draw or (None, None)),
                *(ranked[0], ranked[-1], each.share_of_draws),
            )
        )
    numbers = (
        *("draws", "n", "mean", "stderr", "ci95 low", "ci95 high", "new draw low", "new draw high"),
        *("worst draw", "best draw", "share of draws"),
    )
    return PlainTable("draws", ("task", "metric", *conditions, *numbers), tuple(rows))


def average_draws(by_draw: Sequence[Sequence[SweepCell]]) -> FloatArray | None:
    """Return the mean value of each draw and question, `[draws, num_questions]`; None if a cell has no values."""
    means = []
    for cells in by_draw:
        values = [cell.measurement.values for cell in cells]
        known = [own for own in values if own is not None and len(own) > 1]
        if len(known) < len(values) or any(cell.measurement.statistics.is_smoothed for cell in cells):
            return None
        means.append(np.mean(known, axis=0))
    return np.stack(means)


def _summarize(group: CellGroup, draw: str, levels: Sequence[str], values: FloatArray) -> ScoreOverDraws:
    measured = group.cells[0].measurement
    ends = find_range(cell.measurement for cell in group.cells)
    found = crossed_mean(values, measured.clusters)
    scores = values.mean(axis=1)
    of_draws, *others = found.components.parts(found.num_draws, found.num_questions)
    total = of_draws + sum(others)
    return ScoreOverDraws(
        task=measured.task,
        metric=measured.metric,
        higher_is_better=measured.higher_is_better,
        conditions=group.conditions,
        draw=draw,
        scores=dict(zip(levels, scores.tolist(), strict=True)),
        n=values.shape[1],
        mean=found.mean,
        stderr=found.stderr,
        degrees=found.degrees,
        ci95=_interval(found, ends),
        stdev=spread(scores),
        new_draw=_predict(scores, ends),
        share_of_draws=of_draws / total if total else 0.0,
    )


def _interval(found: CrossedMean, ends: tuple[float, float]) -> tuple[float, float]:
    if np.isfinite(ends).all():
        return found.interval_within(*ends)
    low, high = np.clip(found.interval(), *ends).tolist()
    return low, high


def _predict(scores: FloatArray, ends: tuple[float, float]) -> tuple[float, float] | None:
    from scipy.special import stdtrit

    deviation, count = spread(scores), len(scores)
    if deviation == 0.0:
        return None
    reach = float(stdtrit(count - 1, 0.975)) * deviation * (1 + 1 / count) ** 0.5
    low, high = np.clip((scores.mean() - reach, scores.mean() + reach), *ends).tolist()
    return low, high
