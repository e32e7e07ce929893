"""Evaluation: the whole pipeline, from a task's examples to a report.

    Example ─▶ demonstrations ─▶ Prompt ─▶ Completion ─▶ Record ─▶ Score ─▶ Report

Prompts of all tasks are built and checked before any weight is loaded, so that what is wrong with them is
said at once.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from icl_eval.decoding.model_rules import describe_rules
from icl_eval.errors import FingerprintMismatchError
from icl_eval.evaluation.answers import CandidateAnswers, score_answers
from icl_eval.evaluation.linting import lint_leaks, lint_pool, lint_template
from icl_eval.evaluation.preparation import Evaluation, PreparedEvaluation, PreparedTask, TaskPlan, prepare
from icl_eval.evaluation.results import describe_origin, describe_run, score_task
from icl_eval.evaluation.stopwatch import Stopwatch
from icl_eval.metrics import Metric
from icl_eval.models.loading import LanguageModel, load_model
from icl_eval.prompts.building import EncodedPrompt
from icl_eval.runs import provenance
from icl_eval.runs.folders import FAILURE_FILE, REPORT_FILE, holding
from icl_eval.runs.records import Record, RecordLog, ShownDemonstration
from icl_eval.runs.reports import SCHEMA_VERSION, Report, Timing, write_report
from icl_eval.tasks.examples import Example

if TYPE_CHECKING:
    from icl_eval.decoding import Completion


logger = logging.getLogger(__name__)


class Progress(Protocol):
    """Is told how far a run is."""

    def begin(self, task: str, total: int, done: int) -> None:
        """A task's decoding begins, with some of it done by an earlier run."""

    def advance(self, task: str) -> None:
        """One more completion is finished."""


def run_evaluation(
    evaluation: Evaluation, folder: Path, progress: Progress, write_page: Callable[[Path], None] = lambda folder: None
) -> Report:
    """Evaluate all tasks; write samples and `report.json` into a folder, and return the report.

    What the folder already holds of the same run is not computed again.

    Args:
        evaluation: What to run.
        folder: Where the results go.
        progress: Receives how far the run is.
        write_page: Writes the page of the folder, while no other run can write there.

    Raises:
        FingerprintMismatchError: When the folder holds records of another run, or is in use.
        IclEvalError: When the folder is removed, moved or replaced while the run is writing.
        UserError: When something asked for is impossible.
    """
    stopwatch = Stopwatch()
    with ExitStack() as stack:
        held = stack.enter_context(holding(folder))
        with stopwatch.stage("prompts"):
            prepared = prepare(evaluation)
            _warn_of_mistakes(evaluation, prepared)
        identity = {**evaluation.identity, **_content_identities(evaluation, prepared)}
        provenance.require_same_identity(folder / "fingerprint.json", identity)
        logs = [_open_log(stack, folder, task) for task in prepared.tasks]
        with stopwatch.stage("metrics"):
            metrics = [_build_metrics(task.plan) for task in prepared.tasks]
        _decode_missing(evaluation, prepared, logs, stopwatch, progress)
        _add_likelihoods(evaluation, prepared, logs, stopwatch, progress)
        with stopwatch.stage("scoring"):
            results = {
                task.plan.task.name: score_task(evaluation, prepared.card, task, log, task_metrics)
                for task, log, task_metrics in zip(prepared.tasks, logs, metrics, strict=True)
            }
        report = Report(
            schema_version=SCHEMA_VERSION,
            run=describe_run(evaluation, prepared, provenance.fingerprint(identity)),
            results=results,
            timing=Timing(stopwatch.seconds, stopwatch.rate("decoding")),
            provenance=describe_origin(evaluation, prepared),
        )
        held.require_in_place()
        (folder / FAILURE_FILE).unlink(
            missing_ok=True
        )  # of an earlier attempt; no kill can leave it beside this report
        write_report(report, folder / REPORT_FILE)
        write_page(folder)
        held.require_in_place()
    return report


def _warn_of_mistakes(evaluation: Evaluation, prepared: PreparedEvaluation) -> None:
    if rules := describe_rules(prepared.conventions, evaluation.search):
        _warn_once(rules)
    for task in prepared.tasks:
        for sentence in (*lint_template(task), *lint_leaks(task), *lint_pool(task)):
            _warn_once(f"{task.plan.task.name}: {sentence}")


@cache
def _warn_once(sentence: str) -> None:
    """Warn, but not again for each cell of a sweep."""
    logger.warning(sentence)


def _content_identities(evaluation: Evaluation, prepared: PreparedEvaluation) -> dict[str, str]:
    """Return what the weights are, wherever they lie, the model's and those of an encoder of its own, and the day."""
    encoder = evaluation.few_shot.selector.encoder
    identities = {"weights": prepared.card.identity}
    if prepared.conventions.day is not None:
        identities["template.date"] = prepared.conventions.day
    return identities if encoder is None else identities | {"encoder_weights": encoder.identify()}


def _open_log(stack: ExitStack, folder: Path, task: PreparedTask) -> RecordLog:
    log = stack.enter_context(closing(RecordLog(folder / f"samples_{task.plan.task.name}.jsonl")))
    for example, prompt in zip(task.plan.examples, task.prompts, strict=True):
        record = log.records.get(example.id)
        if record is not None:
            _require_same_question(log.path, record, example, prompt)
    for answers in task.answers:
        _require_same_answers(log, answers)
    return log


def _require_same_question(path: Path, record: Record, example: Example, encoded: EncodedPrompt) -> None:
    """Refuse a record that says something else of its question than data and prompt do: it would be scored so."""
    prompt = encoded.prompt
    if record.prompt_hash != prompt.hash:
        raise FingerprintMismatchError(f"{path}: the record of {example.id!r} answers another prompt; delete the file")
    expected = {
        "doc": dict(example.inputs),
        "targets": example.references,
        "encoder": prompt.encoder,
        "decoder": prompt.decoder,
        "demonstration_ids": prompt.demonstration_ids,
        "shots_effective": len(prompt.demonstration_ids),
        "prompt_tokens": encoded.num_tokens,
        "demonstrations": _ids_and_targets(prompt.demonstrations),
    }
    found = {field: getattr(record, field) for field in expected}
    found["demonstrations"] = _ids_and_targets(record.demonstrations)
    for field, value in expected.items():
        if found[field] != value:
            raise FingerprintMismatchError(
                f"{path}: the record of {example.id!r} has another {field!r} than the data and the prompt of today; "
                "delete the file"
            )


def _ids_and_targets(demonstrations: Sequence[ShownDemonstration]) -> list[tuple[str, str | None]]:
    """Return what is the same wherever it is computed; the last digit of a similarity need not be."""
    return [(shown.id, shown.target) for shown in demonstrations]


def _require_same_answers(log: RecordLog, answers: CandidateAnswers) -> None:
    """Refuse likelihoods of other answers than those of the data."""
    record = log.records.get(answers.example_id)
    if record is None or record.likelihood is None:
        return
    found = record.likelihood
    texts = (tuple(each.text for each in found.references), tuple(each.text for each in found.choices))
    if texts != (answers.references, answers.choices):
        raise FingerprintMismatchError(
            f"{log.path}: the record of {answers.example_id!r} has the likelihoods of other answers than those of the "
            "data; delete the file"
        )


def _build_metrics(plan: TaskPlan) -> Sequence[Metric]:
    """Build a task's metrics; what they would refuse in the end is said before anything is decoded."""
    metrics = plan.build_metrics()
    for metric in metrics:
        metric.check_references([example.references for example in plan.examples])
    return metrics


def _decode_missing(
    evaluation: Evaluation,
    prepared: PreparedEvaluation,
    logs: Sequence[RecordLog],
    stopwatch: Stopwatch,
    progress: Progress,
) -> None:
    """Decode what no earlier run has left a record of; without any of that, no weight is loaded."""
    for task, log in zip(prepared.tasks, logs, strict=True):
        missing = [prompt for prompt in task.prompts if prompt.prompt.example_id not in log.records]
        name = task.plan.task.name
        progress.begin(name, len(task.prompts), len(task.prompts) - len(missing))
        if not missing:
            continue
        if not task.plan.max_new_tokens:
            for record in _undecoded(evaluation, task, missing):
                log.append(record)
            continue
        with stopwatch.stage("model"):
            model = load_model(evaluation.model, evaluation.dtype, evaluation.device)
        with stopwatch.stage("decoding"):
            for record in _decode(evaluation, task, missing, model, prepared.conventions.settings):
                log.append(record)
                stopwatch.count("decoding", record.completion_tokens)
                progress.advance(name)


def _decode(
    evaluation: Evaluation,
    task: PreparedTask,
    missing: Sequence[EncodedPrompt],
    model: LanguageModel,
    settings: Mapping[str, Any],
) -> Iterator[Record]:
    from icl_eval.decoding import Completion, build_decoder  # imports torch

    plan = task.plan
    examples = {example.id: example for example in plan.examples}
    prompts = {prompt.prompt.example_id: prompt for prompt in missing}
    decoder = build_decoder(
        model,
        evaluation.search,
        plan.max_new_tokens,
        plan.stop,
        evaluation.batch_size,
        evaluation.prefix_cache_mb,
        settings,
    )
    for event in decoder.stream(missing, among=task.prompts):
        if isinstance(event, Completion):
            example, prompt = examples[event.example_id], prompts[event.example_id]
            yield _record(evaluation, plan, example, prompt, event)


def _undecoded(evaluation: Evaluation, task: PreparedTask, missing: Sequence[EncodedPrompt]) -> Iterator[Record]:
    from icl_eval.decoding import Completion  # imports torch

    examples = {example.id: example for example in task.plan.examples}
    for prompt in missing:
        example = examples[prompt.prompt.example_id]
        yield _record(evaluation, task.plan, example, prompt, Completion(example.id, "", (), "undecoded"))


def _add_likelihoods(
    evaluation: Evaluation,
    prepared: PreparedEvaluation,
    logs: Sequence[RecordLog],
    stopwatch: Stopwatch,
    progress: Progress,
) -> None:
    """Complete the records that no earlier run has given their likelihoods."""
    for task, log in zip(prepared.tasks, logs, strict=True):
        missing = [each.example_id for each in task.answers if log.records[each.example_id].likelihood is None]
        if not missing:
            continue
        from icl_eval.decoding import LikelihoodScorer  # imports torch

        name = f"{task.plan.task.name}: likelihood"
        progress.begin(name, len(task.answers), len(task.answers) - len(missing))
        with stopwatch.stage("model"):
            model = load_model(evaluation.model, evaluation.dtype, evaluation.device)
        with stopwatch.stage("likelihood"):
            scorer = LikelihoodScorer(model, evaluation.batch_size, prepared.conventions.settings)
            for example_id, found in score_answers(scorer, task.answers, missing):
                log.append(replace(log.records[example_id], likelihood=found))
                progress.advance(name)


def _record(
    evaluation: Evaluation, plan: TaskPlan, example: Example, encoded: EncodedPrompt, completion: "Completion"
) -> Record:
    prompt = encoded.prompt
    return Record(
        example_id=example.id,
        doc=dict(example.inputs),
        targets=example.references,
        encoder=prompt.encoder,
        decoder=prompt.decoder,
        demonstration_ids=prompt.demonstration_ids,
        shots_requested=evaluation.few_shot.num_shown,
        shots_effective=len(prompt.demonstration_ids),
        completion=completion.text,
        prediction=plan.postprocess(completion.text),
        metrics={},
        prompt_tokens=encoded.num_tokens,
        completion_tokens=len(completion.token_ids),
        finish_reason=completion.finish_reason,
        prompt_hash=prompt.hash,
        demonstrations=prompt.demonstrations,
        stop_string=completion.stop_string,
    )
