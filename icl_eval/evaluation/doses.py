"""Doses: what the demonstrations of a control still teach, and whether outputs follow what they teach instead.

A control does not always change what it says. Shuffled labels often fall on a demonstration that has the same label, so
that a third of the targets may still be right. And a model whose score is lost may be confused, or obey the
demonstrations; only the share of outputs that follow the shown mapping tells.
"""

from collections.abc import Sequence

from icl_eval.demonstrations import AbstractLabels, NoControl, bind_mapping
from icl_eval.evaluation.preparation import TaskPlan
from icl_eval.runs.behaviour import ControlOutcome, Share
from icl_eval.runs.records import Record
from icl_eval.tasks.examples import normalize


def measure_control(plan: TaskPlan, records: Sequence[Record]) -> ControlOutcome | None:
    """Return what a task's control left and did; None without a control."""
    if isinstance(plan.few_shot.control, NoControl):
        return None
    return ControlOutcome(_measure_dose(plan, records), _measure_follows(plan, records))


def _measure_dose(plan: TaskPlan, records: Sequence[Record]) -> Share | None:
    """Return the share of shown targets that are right; for abstract labels, the symbol of a right label is right."""
    mapping = None
    if isinstance(plan.few_shot.control, AbstractLabels):
        mapping = bind_mapping(plan.few_shot.control, plan.task, plan.match_field)
    originals = {candidate.id: candidate for candidate in plan.task.pool}
    questions = {example.id: example for example in plan.examples}
    right = []
    for record in records:
        kept = set(record.demonstration_ids)  # those that fitted
        for shown in plan.select(questions[record.example_id]):
            original = originals.get(shown.example.id)
            if original is None or shown.example.id not in kept or not shown.example.references:
                continue
            answers = (mapping(original) if mapping else None) or original
            is_right = normalize(shown.example.references[0]) in map(normalize, answers.references)
            right.append(is_right and shown.example.inputs == original.inputs)
    return Share(len(right), sum(right) / len(right)) if right else None


def _measure_follows(plan: TaskPlan, records: Sequence[Record]) -> Share | None:
    mapping = bind_mapping(plan.few_shot.control, plan.task, plan.match_field)
    if mapping is None or not plan.max_new_tokens:
        return None
    questions = {example.id: example for example in plan.examples}
    if isinstance(plan.few_shot.control, AbstractLabels):
        implied = questions  # the questions of the plan have the symbols already
    else:
        implied = {name: found for name, each in questions.items() if (found := mapping(each)) is not None}
    follows = [
        normalize(record.prediction) in map(normalize, implied[record.example_id].references)
        for record in records
        if record.example_id in implied
    ]
    return Share(len(follows), sum(follows) / len(follows)) if follows else None
