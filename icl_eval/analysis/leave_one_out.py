"""Leave-one-out: what each demonstration adds beside all the others.

The cells of a sweep over `leave_out` ask the same questions, each with one of the demonstrations left out. The effect
of a demonstration is the score with it minus the score without it. The values of individual questions show which
questions it helps and which it hurts.

An effect beside all the others is not what a demonstration is worth: where several carry the same information, each of
them adds nothing. What it adds to a random set of the others is in `icl_eval.analysis.influence`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from icl_eval.analysis.designs import group_runs
from icl_eval.analysis.measurements import find_range, gain, measure
from icl_eval.analysis.significance import (
    alike_difference_interval,
    count_effective_flips,
    share_difference_interval,
    simultaneous_level,
)
from icl_eval.analysis.tables import PlainTable, TableValue, condition_keys
from icl_eval.metrics.intervals import FloatArray, mean_stderr, student_quantile
from icl_eval.runs.behaviour import Behaviour
from icl_eval.runs.folders import Run
from icl_eval.runs.records import ShownDemonstration

LEAVE_OUT = "leave_out"


@dataclass(frozen=True)
class Effect:
    """The effect of one demonstration on one measure, over the questions whose prompts include it."""

    n: int
    mean: float
    """Mean difference, in units of the measure. It is positive if the demonstration helps, also when lower values are
    better. A corpus score such as BLEU is decomposed by the jackknife (`icl_eval.metrics.intervals.pseudo_values`)."""
    ci95: tuple[float, float] | None
    """Interval of the mean over samples of questions, or of their clusters: Bonett and Price's if every question is
    right or wrong, otherwise Student's t; that of shares where all differences are the same, so that no error is seen.
    All intervals of an analysis and a measure hold at once with 95 %: each has a level of 1 - 0.05 / (number of
    demonstrations), by Bonferroni. None for a single question or cluster, and where all differences are the same and
    the measure has no ends."""
    helped: Mapping[str, float]
    """Differences of the questions whose value (BLEU: sentence BLEU) is better with it, largest first."""
    hurt: Mapping[str, float]
    """Differences of the questions whose value is worse with it, largest first."""


@dataclass(frozen=True)
class LeftOut:
    """The effects of one demonstration."""

    id: str
    target: str | None
    """The answer as shown in the prompt."""
    effects: Mapping[str, Effect]
    """Effects by measure."""


@dataclass(frozen=True)
class LeaveOneOutAnalysis:
    """What each demonstration of one task adds beside all the others."""

    task: str
    conditions: Mapping[str, str]
    """Values of the other options that vary in the sweep. Each combination has its own analysis."""
    demonstrations: tuple[LeftOut, ...]
    """Effects ordered by the rank of the demonstration."""
    behaviour: Behaviour | None
    """Copying behaviour with all demonstrations in the prompt."""


@dataclass(frozen=True)
class Values:
    """The values of one cell's questions under one measure; larger values are better."""

    parts: Mapping[str, float]
    """Values by question, whose mean is the score. For a corpus score they are jackknife pseudo-values, each of which
    depends on all questions."""
    own: Mapping[str, float | None]
    """Values by question, each computed from that question alone."""
    is_share: bool
    """Whether every question is either right (1) or wrong (0)."""
    width: float = math.inf
    """The distance between the lowest and the highest value that the metric can have."""
    clusters: Mapping[str, str] | None = None
    """The cluster of each question; None if questions are independent."""


@dataclass(frozen=True)
class CellOutcome:
    """The demonstrations and values of the questions in one cell."""

    shown: Mapping[str, Sequence[ShownDemonstration]]
    """Demonstrations in the prompt, by question."""
    values: Mapping[str, Values]
    """Values by measure."""


def leave_one_out_analyses(
    runs: Sequence[Run], options: Sequence[Mapping[str, str]]
) -> tuple[list[LeaveOneOutAnalysis], list[str]]:
    """Return an analysis for each task and combination of the other options, and notes on what could not be analysed.

    Args:
        runs: Finished runs, such as the cells of a sweep.
        options: For each run, the options that distinguish it; see `icl_eval.runs.options`.

    Raises:
        DataError: When records are missing or do not match the report.
    """
    analyses, notes = [], []
    for conditions, members in group_runs(runs, options, lambda key: key == LEAVE_OUT):
        without = sorted(
            (run for run in members if run.report.run.leave_out is not None),
            key=lambda run: run.report.run.leave_out or 0,
        )
        whole = [run for run in members if run.report.run.leave_out is None]
        if without and not whole:
            notes.append("leave-one-out: no cell has all demonstrations in its prompts (leave_out=null)")
        if not without or not whole:
            continue
        for task, result in whole[0].report.results.items():
            measured = measure_left_out(read_outcome(whole[0], task), [read_outcome(run, task) for run in without])
            if not measured:
                notes.append(f"leave-one-out, {task}: no two prompts differ by exactly one demonstration")
            analyses.append(LeaveOneOutAnalysis(task, conditions, tuple(measured), result.behaviour))
    return analyses, notes


def leave_one_out_table(analyses: Sequence[LeaveOneOutAnalysis]) -> PlainTable:
    """Return one row per demonstration and measure."""
    conditions = condition_keys(analysis.conditions for analysis in analyses)
    rows: list[tuple[TableValue, ...]] = []
    for analysis in analyses:
        for demonstration in analysis.demonstrations:
            for name, effect in demonstration.effects.items():
                varying = (analysis.conditions.get(key) for key in conditions)
                identity = (analysis.task, *varying, demonstration.id, name)
                counts = (len(effect.helped), len(effect.hurt))
                rows.append((*identity, effect.n, effect.mean, *(effect.ci95 or (None, None)), *counts))
    numbers = ("n", "mean effect", "ci95 low", "ci95 high", "helped", "hurt")
    return PlainTable("leave_one_out", ("task", *conditions, "demonstration", "measure", *numbers), tuple(rows))


def read_outcome(run: Run, task: str) -> CellOutcome:
    """Read the demonstrations of one task of a run, and the values of its questions under each metric that has them.

    Raises:
        DataError: When records are missing or do not match the report.
    """
    values = {}
    for measured in measure(run, (task,)):
        if measured.values is not None:
            sign = 1.0 if measured.higher_is_better else -1.0
            parts = dict(zip(measured.example_ids, (sign * measured.values).tolist(), strict=True))
            low, high = find_range([measured])
            clusters = None
            if measured.clusters is not None:
                clusters = dict(zip(measured.example_ids, measured.clusters, strict=True))
            is_share = measured.statistics.is_share
            values[measured.metric] = Values(parts, measured.own_values, is_share, high - low, clusters)
    return CellOutcome({record.example_id: record.demonstrations for record in run.records(task)}, values)


def measure_left_out(whole: CellOutcome, without: Sequence[CellOutcome]) -> list[LeftOut]:
    """Return the effects of each demonstration, in the order in which the cells leave them out.

    The records tell, question by question, which demonstration a cell leaves out: each question may have its own
    demonstrations, and a prompt that was too long may have lost one already.
    """
    cells: dict[str, list[tuple[str, CellOutcome]]] = {}  # by demonstration: questions, and the cell without it
    targets: dict[str, str | None] = {}
    for cell in without:
        for question in whole.shown:
            left_out = _find_left_out(whole, cell, question)
            if left_out is not None:
                targets[left_out.id] = left_out.target
                cells.setdefault(left_out.id, []).append((question, cell))
    level = simultaneous_level(len(cells))
    return [LeftOut(name, targets[name], _measure_effects(whole, pairs, level)) for name, pairs in cells.items()]


def _find_left_out(whole: CellOutcome, cell: CellOutcome, question: str) -> ShownDemonstration | None:
    """Return the single demonstration by which two prompts differ.

    Returns None if they do not differ by exactly one: either the demonstration did not fit into the full prompt, or
    leaving it out made room for one that the full prompt lacks.
    """
    kept = {one.id for one in cell.shown.get(question, ())}
    left_out = [one for one in whole.shown[question] if one.id not in kept]
    is_subset = kept <= {one.id for one in whole.shown[question]}
    return left_out[0] if question in cell.shown and is_subset and len(left_out) == 1 else None


def _measure_effects(whole: CellOutcome, pairs: Sequence[tuple[str, CellOutcome]], level: float) -> dict[str, Effect]:
    """Return the effect of a demonstration on each measure, from pairs of a question and the cell without it."""
    effects = {}
    for name, values in whole.values.items():
        known = [(question, values, cell.values[name]) for question, cell in pairs if name in cell.values]
        if known:
            effects[name] = _measure_effect(known, level)
    return effects


def _measure_effect(pairs: Sequence[tuple[str, Values, Values]], level: float) -> Effect:
    """Return the effect of a demonstration from questions and the values of the cells with and without it."""
    differences = np.array([after.parts[question] - before.parts[question] for question, after, before in pairs])
    gains = {question: gain(before.own.get(question), after.own.get(question)) for question, after, before in pairs}
    falling = sorted(gains, key=lambda question: -gains[question])
    helped = {question: gains[question] for question in falling if gains[question] > 0}
    hurt = {question: gains[question] for question in reversed(falling) if gains[question] < 0}
    is_share = all(after.is_share for _, after, _ in pairs)
    named = pairs[0][1].clusters
    clusters = None if named is None else [named[question] for question, _, _ in pairs]
    interval = None
    if len(set(clusters) if clusters else pairs) > 1:
        interval = _find_interval(differences, clusters, pairs[0][1], is_share, level)
    return Effect(len(pairs), float(differences.mean()), interval, helped, hurt)


def _find_interval(
    differences: FloatArray, clusters: Sequence[str] | None, values: Values, is_share: bool, level: float
) -> tuple[float, float] | None:
    """Return the interval of the mean difference of two or more questions or clusters."""
    num_units, mean = len(set(clusters) if clusters else differences), float(differences.mean())
    if is_share and num_units == len(differences):
        gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
        return share_difference_interval(gained, lost, num_units, level)
    if is_share:
        return share_difference_interval(*count_effective_flips(differences, clusters), level)
    stderr = mean_stderr(differences, clusters)
    if stderr == 0.0:
        known = math.isfinite(values.width)
        return alike_difference_interval(mean, num_units, values.width, level) if known else None
    reach = student_quantile(num_units - 1, level) * stderr
    return mean - reach, mean + reach
