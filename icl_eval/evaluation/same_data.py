"""Reject records in a folder that are of other questions, prompts or answers than those of a run."""

from collections.abc import Sequence
from pathlib import Path

from icl_eval.errors import FingerprintMismatchError
from icl_eval.evaluation.answers import ScoredAnswers
from icl_eval.evaluation.preparation import PreparedTask
from icl_eval.prompts.building import EncodedPrompt
from icl_eval.runs.records import Record, RecordLog, ShownDemonstration
from icl_eval.tasks.examples import Example


def require_same_data(log: RecordLog, task: PreparedTask) -> None:
    """Reject a task's records if one of them does not match the current data.

    Raises:
        FingerprintMismatchError: If a question, its prompt or the answers whose likelihoods it has are other ones.
    """
    for example, prompt in zip(task.plan.examples, task.prompts, strict=True):
        record = log.records.get(example.id)
        if record is not None:
            _require_same_question(log.path, record, example, prompt)
    for answers in task.answers:
        _require_same_answers(log, answers)


def _require_same_question(path: Path, record: Record, example: Example, encoded: EncodedPrompt) -> None:
    """Reject a stored record whose question or prompt differs from the current data."""
    prompt = encoded.prompt
    if record.prompt_hash != prompt.hash:
        raise FingerprintMismatchError(f"{path}: the record of {example.id!r} has another prompt; delete the file")
    expected = {
        "doc": example.inputs,
        "targets": example.references,
        "encoder": prompt.encoder,
        "decoder": prompt.decoder,
        "demonstration_ids": prompt.demonstration_ids,
        "shots_effective": len(prompt.demonstration_ids),
        "prompt_tokens": encoded.num_tokens,
        "demonstrations": _drop_similarities(prompt.demonstrations),
    }
    stored = {field: getattr(record, field) for field in expected}
    stored["demonstrations"] = _drop_similarities(record.demonstrations)
    for field, value in expected.items():
        if stored[field] != value:
            raise FingerprintMismatchError(
                f"{path}: the record of {example.id!r} does not match the current data: {field!r} differs; "
                "delete the file"
            )


def _drop_similarities(demonstrations: Sequence[ShownDemonstration]) -> list[tuple[str, str | None]]:
    """Return ids and targets only: the last digit of a similarity depends on the machine."""
    return [(shown.id, shown.target) for shown in demonstrations]


def _require_same_answers(log: RecordLog, answers: ScoredAnswers) -> None:
    """Reject a stored record whose likelihoods are for answers other than those in the data."""
    record = log.records.get(answers.example_id)
    if record is None or record.likelihood is None:
        return
    stored = record.likelihood
    texts = (tuple(each.text for each in stored.references), tuple(each.text for each in stored.choices))
    if texts != (answers.references, answers.choices):
        raise FingerprintMismatchError(
            f"{log.path}: the record of {answers.example_id!r} has likelihoods for answers that differ from the data; "
            "delete the file"
        )
