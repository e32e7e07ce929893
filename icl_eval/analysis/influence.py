"""Influence: what each demonstration adds, found by leaving it out.

The cells of a sweep over `leave_out` show the same demonstrations but one, to the same questions. What a
demonstration adds to a score is the score with it minus the score without it; which questions it helps and hurts is
told by the questions' own values.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from icl_eval.analysis.measurements import gain, measure
from icl_eval.analysis.significance import share_difference_interval
from icl_eval.analysis.tables import PlainTable, TableValue, condition_keys
from icl_eval.metrics.intervals import spread, student_quantile
from icl_eval.runs.behaviour import Behaviour
from icl_eval.runs.folders import Run
from icl_eval.runs.records import ShownDemonstration

LEAVE_OUT = "leave_out"


@dataclass(frozen=True)
class Effect:
    """What one demonstration adds to one measure, over the questions that it was shown to."""

    n: int
    mean: float
    """Of the differences, in units of the measure; above zero where it helps, also when lower values are better. A
    corpus score such as BLEU is taken apart by the jackknife (`icl_eval.metrics.intervals.pseudo_values`)."""
    ci95: tuple[float, float] | None
    """Where the mean would lie over another sample of questions: Bonett and Price's interval where every question is
    right or wrong, else Student's; None for a single question."""
    helped: Mapping[str, float]
    """Questions that do better with it by their own value (BLEU: sentence BLEU), the largest difference first."""
    hurt: Mapping[str, float]
    """Questions that do worse with it, the largest difference first."""


@dataclass(frozen=True)
class Influence:
    """What one demonstration adds."""

    id: str
    target: str | None
    """As it was shown."""
    effects: Mapping[str, Effect]
    """By measure."""


@dataclass(frozen=True)
class InfluenceAnalysis:
    """One task, with all demonstrations and with one left out at a time."""

    task: str
    conditions: Mapping[str, str]
    """The values of the sweep's other options, where there are any: there is an analysis for each."""
    demonstrations: tuple[Influence, ...]
    """In the order in which they were left out: by rank."""
    behaviour: Behaviour | None
    """With all of them."""


@dataclass(frozen=True)
class Values:
    """How one cell's questions did by one measure; larger values are better."""

    parts: Mapping[str, float]
    """By question, values whose mean is the score: for a corpus score pseudo-values, which all change with any."""
    own: Mapping[str, float | None]
    """By question, its value on its own."""
    is_share: bool
    """Whether every question is right, 1, or wrong, 0."""


@dataclass(frozen=True)
class CellOutcome:
    """What one cell's questions were shown, and how they did."""

    shown: Mapping[str, Sequence[ShownDemonstration]]
    """By question."""
    values: Mapping[str, Values]
    """By measure."""


def influence_analyses(
    runs: Sequence[Run], options: Sequence[Mapping[str, str]]
) -> tuple[list[InfluenceAnalysis], list[str]]:
    """Return an analysis for each task and combination of the other options, and notes on what could not be analysed.

    Args:
        runs: Finished runs, such as the cells of a sweep.
        options: What sets each of them apart; see `icl_eval.runs.options`.

    Raises:
        DataError: When records are missing or are not those of the report.
    """
    analyses, notes = [], []
    for conditions, members in _groups(runs, options):
        without = sorted(
            (run for run in members if run.report.run.leave_out is not None),
            key=lambda run: run.report.run.leave_out or 0,
        )
        whole = [run for run in members if run.report.run.leave_out is None]
        if without and not whole:
            notes.append("influence: no cell shows all demonstrations (leave_out=null)")
        if not without or not whole:
            continue
        for task, result in whole[0].report.results.items():
            found = influences(read_outcome(whole[0], task), [read_outcome(run, task) for run in without])
            if not found:
                notes.append(f"influence, {task}: no two prompts differ by one demonstration and nothing else")
            analyses.append(InfluenceAnalysis(task, conditions, tuple(found), result.behaviour))
    return analyses, notes


def influence_table(analyses: Sequence[InfluenceAnalysis]) -> PlainTable:
    """Return a row for each measure of each demonstration."""
    conditions = condition_keys(found.conditions for found in analyses)
    rows: list[tuple[TableValue, ...]] = []
    for found in analyses:
        for demonstration in found.demonstrations:
            for name, effect in demonstration.effects.items():
                identity = (found.task, *(found.conditions.get(key) for key in conditions), demonstration.id, name)
                counts = (len(effect.helped), len(effect.hurt))
                rows.append((*identity, effect.n, effect.mean, *(effect.ci95 or (None, None)), *counts))
    numbers = ("n", "mean effect", "ci95 low", "ci95 high", "helped", "hurt")
    return PlainTable("influence", ("task", *conditions, "demonstration", "measure", *numbers), tuple(rows))


def _groups(runs: Sequence[Run], options: Sequence[Mapping[str, str]]) -> Iterator[tuple[Mapping[str, str], list[Run]]]:
    """Yield the runs that differ in nothing but `leave_out`, with the options that they share; none without it."""
    if all(run.report.run.leave_out is None for run in runs):
        return
    groups: defaultdict[tuple[tuple[str, str], ...], list[Run]] = defaultdict(list)
    for run, own in zip(runs, options, strict=True):
        groups[tuple((key, value) for key, value in own.items() if key != LEAVE_OUT)].append(run)
    for conditions, members in groups.items():
        yield dict(conditions), members


def read_outcome(run: Run, task: str) -> CellOutcome:
    """Read what one task of a run showed, and each question's values: of metrics that have them, and of likelihood.

    Raises:
        DataError: When records are missing or are not those of the report.
    """
    values = {}
    for measured in measure(run, (task,)):
        if measured.values is not None:
            sign = 1.0 if measured.higher_is_better else -1.0
            parts = dict(zip(measured.example_ids, (sign * measured.values).tolist(), strict=True))
            values[measured.metric] = Values(parts, measured.own_values, measured.statistics.is_share)
    return CellOutcome({record.example_id: record.demonstrations for record in run.records(task)}, values)


def influences(whole: CellOutcome, without: Sequence[CellOutcome]) -> list[Influence]:
    """Return what each demonstration adds, in the order in which the cells leave them out.

    Which one a cell leaves out is read from its records, question by question: questions may have demonstrations of
    their own, and a prompt that was too long may have lost one in the first place.
    """
    found: dict[str, list[tuple[str, CellOutcome]]] = {}  # by demonstration, questions and their answers without it
    targets: dict[str, str | None] = {}
    for cell in without:
        for question in whole.shown:
            left_out = _left_out(whole, cell, question)
            if left_out is not None:
                targets[left_out.id] = left_out.target
                found.setdefault(left_out.id, []).append((question, cell))
    return [Influence(name, targets[name], _effects(whole, pairs)) for name, pairs in found.items()]


def _left_out(whole: CellOutcome, cell: CellOutcome, question: str) -> ShownDemonstration | None:
    """Return the one demonstration by which the prompts differ.

    None where they differ in another way: there was no room for it in the first place, or, when it is gone, there is
    room for one that the whole prompt did not hold.
    """
    kept = {one.id for one in cell.shown.get(question, ())}
    left_out = [one for one in whole.shown[question] if one.id not in kept]
    is_subset = kept <= {one.id for one in whole.shown[question]}
    return left_out[0] if question in cell.shown and is_subset and len(left_out) == 1 else None


def _effects(whole: CellOutcome, pairs: Sequence[tuple[str, CellOutcome]]) -> dict[str, Effect]:
    """Return what a demonstration adds to each measure, from questions and their answers without it."""
    effects = {}
    for name, values in whole.values.items():
        known = [
            (question, values, cell.values[name])
            for question, cell in pairs
            if question in values.parts and name in cell.values and question in cell.values[name].parts
        ]
        if known:
            effects[name] = _effect(known)
    return effects


def _effect(pairs: Sequence[tuple[str, Values, Values]]) -> Effect:
    """Return an effect from questions, each with its cells' values with and without a demonstration."""
    differences = np.array([after.parts[question] - before.parts[question] for question, after, before in pairs])
    gains = {question: gain(before.own.get(question), after.own.get(question)) for question, after, before in pairs}
    falling = sorted(gains, key=lambda question: -gains[question])
    helped = {question: gains[question] for question in falling if gains[question] > 0}
    hurt = {question: gains[question] for question in reversed(falling) if gains[question] < 0}
    mean, interval = float(differences.mean()), None
    if len(pairs) > 1 and all(after.is_share for _, after, _ in pairs):
        interval = share_difference_interval(len(helped), len(hurt), len(pairs))
    elif len(pairs) > 1:
        reach = student_quantile(len(pairs) - 1) * spread(differences) / len(pairs) ** 0.5
        interval = (mean - reach, mean + reach)
    return Effect(len(pairs), mean, interval, helped, hurt)
