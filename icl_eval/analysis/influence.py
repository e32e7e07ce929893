"""Influence: what each demonstration adds, found by leaving it out.

The cells of a sweep over `leave_out` show the same demonstrations but one, to the same questions. What a
demonstration adds to a question is the question's value with it minus its value without it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from icl_eval.analysis.designs import varying_options
from icl_eval.analysis.shot_curve import student_quantile
from icl_eval.behaviour import Behaviour
from icl_eval.measurements import measure
from icl_eval.prompts import ShownDemonstration
from icl_eval.runs import Run, read_run

LEAVE_OUT = "leave_out"


@dataclass(frozen=True)
class Effect:
    """What one demonstration adds to one measure, over the questions that it was shown to."""

    n: int
    mean: float
    """Of the differences, in units of the measure; above zero where it helps, also when lower values are better."""
    ci95: tuple[float, float] | None
    """Student's interval of the mean over another sample of questions; None for a single question."""
    helped: Mapping[str, float]
    """Questions that do better with it, the largest difference first."""
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
class Answers:
    """What one cell's questions were shown, and how they did."""

    shown: Mapping[str, Sequence[ShownDemonstration]]
    """By question."""
    values: Mapping[str, Mapping[str, float]]
    """By measure and question; larger values are better."""


def influence_analyses(folder: Path, cells: Sequence[Mapping[str, Any]]) -> tuple[list[InfluenceAnalysis], list[str]]:
    """Return an analysis for each task and combination of the other options, and notes on what could not be analysed.

    Args:
        folder: The sweep's folder, which holds the cells' folders.
        cells: As in `sweep.json`, those that failed left out.

    Raises:
        DataError: When records are missing or are not those of the report.
    """
    analyses, notes = [], []
    for conditions, runs in _groups(folder, cells):
        without = sorted(
            (run for run in runs if run.report.run.leave_out is not None), key=lambda run: run.report.run.leave_out or 0
        )
        whole = [run for run in runs if run.report.run.leave_out is None]
        if without and not whole:
            notes.append("influence: no cell shows all demonstrations (leave_out=null)")
        if not without or not whole:
            continue
        for task, result in whole[0].report.results.items():
            found = influences(read_answers(whole[0], task), [read_answers(run, task) for run in without])
            analyses.append(InfluenceAnalysis(task, conditions, tuple(found), result.behaviour))
    return analyses, notes


def _groups(folder: Path, cells: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, str], list[Run]]]:
    """Yield the runs that differ in nothing but `leave_out`, with the options that they share; none without it."""
    if all(cell["run"].get(LEAVE_OUT) is None for cell in cells):
        return
    groups: defaultdict[tuple[tuple[str, str], ...], list[Run]] = defaultdict(list)
    for cell, options in zip(cells, varying_options([cell["overrides"] for cell in cells]), strict=True):
        conditions = tuple((key, value) for key, value in options.items() if key != LEAVE_OUT)
        groups[conditions].append(read_run(folder / cell["cell"]))
    for conditions, runs in groups.items():
        yield dict(conditions), runs


def read_answers(run: Run, task: str) -> Answers:
    """Read what one task of a run showed, and each question's values: of metrics that have them, and of likelihood.

    Raises:
        DataError: When records are missing or are not those of the report.
    """
    values = {}
    for measured in measure(run, (task,)):
        if measured.values is not None:
            sign = 1.0 if measured.higher_is_better else -1.0
            values[measured.metric] = dict(zip(measured.example_ids, (sign * measured.values).tolist(), strict=True))
    return Answers({record.example_id: record.demonstrations for record in run.records(task)}, values)


def influences(whole: Answers, without: Sequence[Answers]) -> list[Influence]:
    """Return what each demonstration adds, in the order in which the cells leave them out.

    Which one a cell leaves out is read from its records, question by question: questions may have demonstrations of
    their own.
    """
    differences: dict[str, dict[str, dict[str, float]]] = {}  # by demonstration, measure and question
    targets: dict[str, str | None] = {}
    for cell in without:
        for question, shown in whole.shown.items():
            kept = {one.id for one in cell.shown.get(question, ())}
            left_out = [one for one in shown if one.id not in kept]
            if question not in cell.shown or len(left_out) != 1:
                continue  # a prompt that had no room for it in the first place says nothing about it
            targets[left_out[0].id] = left_out[0].target
            found = differences.setdefault(left_out[0].id, {})
            for name, values in whole.values.items():
                if question in values and question in cell.values.get(name, {}):
                    found.setdefault(name, {})[question] = values[question] - cell.values[name][question]
    return [
        Influence(name, targets[name], {measured: _effect(values) for measured, values in found.items()})
        for name, found in differences.items()
    ]


def _effect(differences: Mapping[str, float]) -> Effect:
    values = np.array(list(differences.values()))
    mean, interval = float(values.mean()), None
    if len(values) > 1:
        reach = student_quantile(len(values) - 1) * float(values.std(ddof=1)) / len(values) ** 0.5
        interval = (mean - reach, mean + reach)
    falling = sorted(differences, key=lambda question: -differences[question])
    return Effect(
        n=len(values),
        mean=mean,
        ci95=interval,
        helped={question: differences[question] for question in falling if differences[question] > 0},
        hurt={question: differences[question] for question in reversed(falling) if differences[question] < 0},
    )
