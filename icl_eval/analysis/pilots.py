"""Pilots: the variances and the costs that the records of a few draws show."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from icl_eval.analysis.conditions import Condition, group_conditions, pair_draws
from icl_eval.analysis.crossed import Components, crossed_mean
from icl_eval.analysis.designs import SweepCell, choose_draw, is_drawn
from icl_eval.analysis.draws import average_draws
from icl_eval.analysis.generalised import draw_expectations, interval_of
from icl_eval.analysis.measurements import Measured, measure_alike
from icl_eval.analysis.planning import Costs
from icl_eval.errors import DataError
from icl_eval.metrics.intervals import FloatArray
from icl_eval.metrics.measurements import Measurement
from icl_eval.runs.folders import Run
from icl_eval.runs.reports import Counts


@dataclass(frozen=True)
class Pilot:
    """What a pilot says about a study of the same kind."""

    task: str
    metric: str
    conditions: tuple[str, ...]
    """One condition, whose score is planned, or two, whose difference is."""
    num_draws: int
    num_questions: int
    """Number of questions, or of their clusters, which then take the place of questions in the whole plan."""
    unit: str
    """`question` or `cluster`."""
    mean: float
    """The score or the difference."""
    components: Components
    draws_interval: tuple[float, float]
    """95 % interval of the variance of draws; see `find_draws_interval`."""
    tokens: Costs | None
    """Tokens to compute for all conditions; None if the pilot does not say."""
    minutes: Costs | None
    """Minutes on the machine of the pilot; None if no run of it was timed as a whole."""


def read_pilot(runs: Sequence[Run], score: str | None = None) -> Pilot:
    """Read what a pilot says about a study of the same kind.

    Args:
        runs: The draws of one condition, or of two conditions that share draws.
        score: The task, or the task and the metric (`qa/token_f1`); None for the first of the runs.

    Raises:
        DataError: If the runs are not such draws, or lack the task or values of the metric.
    """
    conditions = group_conditions(runs)
    if len(conditions) > 2:
        raise DataError(
            f"plan: the pilot has {len(conditions)} conditions; give the draws of one, or of two to compare"
        )
    asked, slash, asked_metric = (score or "").partition("/")
    task = _choose("task", asked if score is not None else None, list(runs[0].report.results))
    metric = _choose("metric", asked_metric if slash else None, list(runs[0].report.results[task].metrics))
    measured = measure_alike(runs, (task,))
    values = _gather(conditions, measured, task, metric)
    if len(values) < 2 or values.shape[1] < 2:
        names = " and ".join(Path(each.name).name for each in conditions)
        raise DataError(f"plan: {names}: one draw does not show how draws differ; make a pilot of several (seed=0,1,2)")
    clusters = _find(measured, runs[0], task, metric).clusters
    if clusters is not None and len(set(clusters)) < 2:
        raise DataError(f"plan: {task}: all questions are of one cluster, so no error can be estimated")
    found = crossed_mean(values, clusters)
    shown = [_estimate_costs(each, task) for each in conditions]
    size = values.shape[1] / found.num_questions  # of a cluster
    tokens, minutes = (_add([costs[kind] for costs in shown], size) for kind in (0, 1))
    return Pilot(
        task=task,
        metric=metric,
        conditions=tuple(each.name for each in conditions),
        num_draws=found.num_draws,
        num_questions=found.num_questions,
        unit="question" if found.num_questions == values.shape[1] else "cluster",
        mean=found.mean,
        components=found.components,
        draws_interval=find_draws_interval(found.components, found.num_draws, found.num_questions),
        tokens=tokens,
        minutes=minutes,
    )


def _choose(kind: str, asked: str | None, known: Sequence[str]) -> str:
    if asked is None:
        return known[0]
    if asked not in known:
        raise DataError(f"score={asked}: no {kind} of the pilot; it has {', '.join(known)}")
    return asked


def _gather(conditions: Sequence[Condition], measured: Measured, task: str, metric: str) -> FloatArray:
    """Return the values of the score, or of the difference, `[num_draws, num_questions]`."""
    if len(conditions) == 1:
        cells = [SweepCell(_list_seeds(run), _find(measured, run, task, metric)) for run in conditions[0].runs]
        draw = choose_draw(cells)
        levels = dict.fromkeys(cell.options.get(draw or "") for cell in cells)
        averaged = average_draws([[cell for cell in cells if cell.options.get(draw or "") == each] for each in levels])
        if averaged is None:
            raise DataError(f"plan: {task}, {metric}: the metric has no values of questions")
        return averaged
    differences = []
    for pairs in pair_draws(*conditions).draws:
        values = [[_find(measured, run, task, metric).values for run in pair] for pair in pairs]
        known = [after - before for before, after in values if before is not None and after is not None]
        if len(known) < len(values):
            raise DataError(f"plan: {task}, {metric}: the metric has no values of questions")
        differences.append(np.mean(known, axis=0))
    return np.stack(differences)


def _list_seeds(run: Run) -> dict[str, str]:
    return {key: str(value) for key, value in run.options.items() if is_drawn(key)}


def _find(measured: Measured, run: Run, task: str, metric: str) -> Measurement:
    found = measured[run.folder].get((task, metric))
    if found is None:
        raise DataError(f"{run.folder}: has no {metric} of task '{task}'")
    return found


def find_draws_interval(components: Components, num_draws: int, num_questions: int) -> tuple[float, float]:
    """Return a generalised 95 % interval of the variance of draws; see `icl_eval.analysis.generalised`."""
    rows, columns = num_draws - 1, num_questions - 1
    squares = np.array([num_questions * components.draws + components.residual, components.residual])
    draws, residual = draw_expectations(squares, [rows, rows * columns]).T
    return interval_of(np.maximum(0.0, draws - residual) / num_questions)


def _estimate_costs(condition: Condition, task: str) -> tuple[Costs | None, Costs | None]:
    """Return what a draw of a condition costs in tokens and in minutes."""
    results = [run.report.results[task] for run in condition.runs]
    each = [_count_tokens(result.counts, result.n) for result in results]
    known = [costs for costs in each if costs is not None]
    if not known:
        return None, None
    tokens = Costs(*(float(np.mean([getattr(costs, name) for costs in known])) for name in ("prefix", "question")))
    speeds = list(filter(None, map(_measure_speed, condition.runs)))
    if not speeds:
        return tokens, None
    minutes = float(np.median(speeds)) / 60
    return tokens, replace(tokens, prefix=tokens.prefix * minutes, question=tokens.question * minutes)


def _count_tokens(counts: Counts, num_questions: int) -> Costs | None:
    """Return the tokens that are computed for the prefix, once, and for each question; None if a count is missing."""
    if counts.prompt_tokens is None or counts.completion_tokens is None:
        return None
    reused = counts.prefix_tokens_reused or 0
    prefix = reused / max(1, num_questions - 1)
    computed = counts.prompt_tokens - reused - prefix + counts.completion_tokens
    return Costs(prefix, max(1.0, computed / num_questions))


def _measure_speed(run: Run) -> float | None:
    """Return the seconds for each computed token; None if not all of the run was decoded when it was timed."""
    timing, counts = run.report.timing, [result.counts for result in run.report.results.values()]
    each = [_count_tokens(result.counts, result.n) for result in run.report.results.values()]
    known = [costs for costs in each if costs is not None]
    if timing.completion_tokens_per_second is None or len(known) < len(each):
        return None
    decoding = timing.seconds.get("decoding", 0.0)
    decoded = timing.completion_tokens_per_second * decoding
    if decoded < 0.9 * sum(each.completion_tokens or 0 for each in counts):
        return None
    numbers = [result.n for result in run.report.results.values()]
    computed = sum(costs.total(1, number) for costs, number in zip(known, numbers, strict=True))
    return (decoding + timing.seconds.get("likelihood", 0.0)) / computed


def _add(costs: Sequence[Costs | None], size: float) -> Costs | None:
    """Return the costs of all conditions together, where each unit is so many questions; None if one is missing."""
    known = list(_list_known(costs))
    if len(known) < len(costs):
        return None
    return Costs(sum(each.prefix for each in known), size * sum(each.question for each in known))


def _list_known(costs: Sequence[Costs | None]) -> Iterator[Costs]:
    yield from (each for each in costs if each is not None)
