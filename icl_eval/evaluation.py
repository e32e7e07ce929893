"""Evaluation: the whole pipeline, from a task's examples to a report.

    Example ─▶ demonstrations ─▶ Prompt ─▶ Completion ─▶ Record ─▶ Score ─▶ Report

Prompts of all tasks are built and checked before any weight is loaded, so that what is wrong with them is
said at once.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from filelock import FileLock, Timeout

from icl_eval import provenance
from icl_eval.behaviour import measure_behaviour
from icl_eval.errors import FingerprintMismatchError
from icl_eval.likelihood import score_answers
from icl_eval.linting import lint_leaks
from icl_eval.metrics import Metric, score
from icl_eval.metrics.likelihood import likelihood_metrics
from icl_eval.metrics.scoring import score_statistics
from icl_eval.models import LanguageModel, load_model
from icl_eval.pages.run_page import write_run_page
from icl_eval.preparation import Evaluation, Prepared, PreparedTask, TaskPlan, prepare
from icl_eval.prompts import (
    EncodedPrompt,
)
from icl_eval.records import Record, RecordLog
from icl_eval.reports import (
    SCHEMA_VERSION,
    Counts,
    MetricResult,
    Provenance,
    Report,
    RunInfo,
    TaskResult,
    Timing,
    write_report,
)
from icl_eval.stopwatch import Stopwatch
from icl_eval.tasks import Example

if TYPE_CHECKING:
    from icl_eval.decoding import Completion


logger = logging.getLogger(__name__)


class Progress(Protocol):
    """Is told how far a run is."""

    def begin(self, task: str, total: int, done: int) -> None:
        """A task's decoding begins, with some of it done by an earlier run."""

    def advance(self, task: str) -> None:
        """One more completion is finished."""


def run_evaluation(evaluation: Evaluation, folder: Path, progress: Progress) -> Report:
    """Evaluate all tasks; write samples, `report.json` and `report.html` into a folder, and return the report.

    What the folder already holds of the same run is not computed again.

    Raises:
        FingerprintMismatchError: When the folder holds records of another run, or is in use.
        UserError: When something asked for is impossible.
    """
    stopwatch = Stopwatch()
    with stopwatch.stage("prompts"):
        prepared = prepare(evaluation)
        _warn_of_leaks(prepared)
    identity = {**evaluation.identity, **_content_identities(evaluation, prepared)}
    with ExitStack() as stack:
        stack.enter_context(_exclusive(folder))
        provenance.require_same_identity(folder / "fingerprint.json", identity)
        logs = [_open_log(stack, folder, task) for task in prepared.tasks]
        with stopwatch.stage("metrics"):
            metrics = [task.plan.build_metrics() for task in prepared.tasks]
        _decode_missing(evaluation, prepared, logs, stopwatch, progress)
        _add_likelihoods(evaluation, prepared, logs, stopwatch, progress)
        with stopwatch.stage("scoring"):
            results = {
                task.plan.task.name: _score_task(evaluation, task, log, task_metrics)
                for task, log, task_metrics in zip(prepared.tasks, logs, metrics, strict=True)
            }
    report = Report(
        schema_version=SCHEMA_VERSION,
        run=_run_info(evaluation, prepared, provenance.fingerprint(identity)),
        results=results,
        timing=Timing(stopwatch.seconds, stopwatch.rate("decoding")),
        provenance=_provenance(evaluation, prepared),
    )
    write_report(report, folder / "report.json")
    write_run_page(folder)
    return report


def _warn_of_leaks(prepared: Prepared) -> None:
    for task in prepared.tasks:
        for sentence in lint_leaks(task):
            _warn_once(f"{task.plan.task.name}: {sentence}")


@cache
def _warn_once(sentence: str) -> None:
    """Warn, but not again for each cell of a sweep."""
    logger.warning(sentence)


def _content_identities(evaluation: Evaluation, prepared: Prepared) -> dict[str, str]:
    """Return what the weights are, wherever they lie: the model's, and those of an encoder of its own."""
    encoder = evaluation.choice.selector.encoder
    identities = {"weights": prepared.card.identity}
    return identities if encoder is None else identities | {"encoder_weights": encoder.identify()}


def _exclusive(folder: Path) -> AbstractContextManager[Any]:
    try:
        return FileLock(folder / ".lock", timeout=0).acquire()
    except Timeout:
        raise FingerprintMismatchError(f"{folder} is being written by another run") from None


def _open_log(stack: ExitStack, folder: Path, task: PreparedTask) -> RecordLog:
    log = stack.enter_context(closing(RecordLog(folder / f"samples_{task.plan.task.name}.jsonl")))
    hashes = {prompt.prompt.example_id: prompt.prompt.hash for prompt in task.prompts}
    for record in log.records.values():
        if hashes.get(record.example_id, record.prompt_hash) != record.prompt_hash:
            raise FingerprintMismatchError(
                f"{log.path}: the record of {record.example_id!r} answers another prompt; delete the file"
            )
    return log


def _decode_missing(
    evaluation: Evaluation,
    prepared: Prepared,
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
    evaluation: Evaluation, prepared: Prepared, logs: Sequence[RecordLog], stopwatch: Stopwatch, progress: Progress
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
        shots_requested=evaluation.choice.num_shown,
        shots_effective=len(prompt.demonstration_ids),
        completion=completion.text,
        prediction=plan.postprocess(completion.text),
        metrics={},
        prompt_tokens=encoded.num_tokens,
        completion_tokens=len(completion.token_ids),
        finish_reason=completion.finish_reason,
        prompt_hash=prompt.hash,
        demonstrations=prompt.demonstrations,
    )


def _score_task(evaluation: Evaluation, task: PreparedTask, log: RecordLog, metrics: Sequence[Metric]) -> TaskResult:
    """Score a task's records, write them back in the order of the data set, and return the result."""
    records = [log.records[example.id] for example in task.plan.examples]
    predictions = [task.plan.postprocess(record.completion) for record in records]
    references = [record.targets for record in records]
    scores = [score(metric, predictions, references, evaluation.seed) for metric in metrics]
    scores += [
        score_statistics(found.name, found.higher_is_better, found.statistics, evaluation.seed)
        for found in likelihood_metrics(records)
    ]
    scored = [
        replace(record, prediction=prediction, metrics={s.metric: s.per_example[row] for s in scores})
        for row, (record, prediction) in enumerate(zip(records, predictions, strict=True))
    ]
    log.finish(scored)
    return TaskResult(
        n=len(records),
        num_fewshot=evaluation.choice.num_shown,
        metrics={s.metric: MetricResult(s.value, s.stderr, s.ci95, s.signature, s.higher_is_better) for s in scores},
        counts=_counts(evaluation, task, records, {s.metric: s.unparsed for s in scores if s.unparsed is not None}),
        behaviour=measure_behaviour(scored) if task.plan.max_new_tokens else None,
    )


def _counts(
    evaluation: Evaluation, task: PreparedTask, records: Sequence[Record], unparsed: Mapping[str, int]
) -> Counts:
    from icl_eval.decoding.sharing import count_reused, plan_groups  # imports torch

    groups = plan_groups(task.prompts) if evaluation.search.shares_prefixes else []
    shots = Counter(record.shots_effective for record in records)
    return Counts(
        prompt_tokens=sum(record.prompt_tokens for record in records),
        prefix_tokens_reused=sum(count_reused(groups).values()),
        completion_tokens=sum(record.completion_tokens for record in records),
        finish_reasons=dict(sorted(Counter(record.finish_reason for record in records).items())),
        unparsed=unparsed,
        shots_effective={str(number): shots[number] for number in sorted(shots)},
    )


def _run_info(evaluation: Evaluation, prepared: Prepared, fingerprint: str) -> RunInfo:
    tasks = {
        task.plan.task.name: {"stop": list(task.plan.stop), "max_new_tokens": task.plan.max_new_tokens}
        for task in prepared.tasks
    }
    return RunInfo(
        model=prepared.card.name,
        architecture=prepared.card.architecture,
        template=evaluation.template.name,
        placement=prepared.placement.name,
        conventions=prepared.conventions.describe(),
        num_fewshot=evaluation.choice.num_fewshot,
        demonstrations=evaluation.choice.selector.name,
        order=evaluation.choice.order.name,
        control=evaluation.choice.control.name,
        leave_out=evaluation.choice.leave_out,
        seed=evaluation.seed,
        decoding={
            "search": evaluation.search.name,
            "options": dict(evaluation.search.recipe),
            "dtype": evaluation.dtype,
            "batch_invariant": evaluation.dtype in ("float32", "float64") or evaluation.search.name == "generate",
            "tasks": tasks,
        },
        fingerprint=fingerprint,
    )


def _provenance(evaluation: Evaluation, prepared: Prepared) -> Provenance:
    return Provenance(
        versions=provenance.read_versions(),
        git_commit=provenance.git_commit(),
        weights=prepared.card.identity,
        datasets={task.plan.task.name: task.plan.task.content_hash for task in prepared.tasks},
        config=evaluation.config,
        host=provenance.host_facts(),
    )
