"""Evaluate tasks, from their examples to a report.

    Example ─▶ demonstrations ─▶ Prompt ─▶ Completion ─▶ Record ─▶ Score ─▶ Report

The prompts of all tasks are built and checked before any weights are loaded, so that mistakes in them are reported
immediately.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from icl_eval.decoding.completions import Completion
from icl_eval.decoding.engines import Generation, Runner
from icl_eval.decoding.model_rules import describe_rules
from icl_eval.errors import warn_once
from icl_eval.evaluation.adopting import adopt_records
from icl_eval.evaluation.answers import score_answers
from icl_eval.evaluation.finished import Finish
from icl_eval.evaluation.linting import lint_clusters, lint_leaks, lint_pool, lint_template
from icl_eval.evaluation.preparation import Evaluation, PreparedEvaluation, PreparedTask, TaskPlan, prepare
from icl_eval.evaluation.results import describe_origin, describe_run, score_task
from icl_eval.evaluation.running import LazyRunner
from icl_eval.evaluation.same_data import require_same_data
from icl_eval.evaluation.stopwatch import Stopwatch
from icl_eval.evaluation.voting import settle
from icl_eval.metrics import Metric
from icl_eval.prompts.building import EncodedPrompt
from icl_eval.runs import provenance
from icl_eval.runs.counts import sum_known
from icl_eval.runs.folders import FAILURE_FILE, FINGERPRINT_FILE, REPORT_FILE, Run, locking, name_records, read_run
from icl_eval.runs.records import Record, RecordLog, SampledCompletion
from icl_eval.runs.reports import SCHEMA_VERSION, Report, Timing, write_report
from icl_eval.tasks.examples import Example

_UNSCORED: dict[str, float | None] = {}
"""The scores of a record before it is scored; one object for all of them, which nobody changes."""


class Progress(Protocol):
    """Receives the progress of a run."""

    def begin(self, task: str, total: int, done: int) -> None:
        """Start a task of `total` questions, of which an earlier run finished `done`."""

    def advance(self, task: str) -> None:
        """Count one more finished question of a task."""


def run_evaluation(
    evaluation: Evaluation,
    folder: Path,
    progress: Progress,
    write_page: Callable[[Path], None] = lambda folder: None,
    cells: Iterable[Path] = (),
) -> Run:
    """Evaluate all tasks, write records and `report.json` into a folder, and return the run.

    Results of the same run that are already in the folder are reused; if all of them are, nothing is written.

    Args:
        evaluation: The evaluation to run.
        folder: The folder for the results.
        progress: Receives the progress of the run.
        write_page: Writes the folder's HTML page while the folder is locked.
        cells: The folders of the sweep that the run belongs to, whose records it may take over.

    Raises:
        FingerprintMismatchError: If the folder contains the records of another run.
        FolderInUseError: If another run is writing into the folder.
        IclEvalError: If the folder is removed, moved or replaced during the run.
        UserError: If the evaluation is invalid.
    """
    stopwatch = Stopwatch()
    with locking(folder) as lock:
        finish = Finish(evaluation, folder)
        if finish.is_reached():
            _warn_of(finish.mistakes)
            for plan in evaluation.plans:
                _build_metrics(plan)  # for its warnings
            return replace(read_run(folder), was_finished=True)
        report = _make_report(evaluation, folder, progress, cells, stopwatch, finish)
        lock.require_in_place()
        (folder / FAILURE_FILE).unlink(missing_ok=True)  # removed first, so that a kill cannot leave it with a report
        write_report(report, folder / REPORT_FILE)
        write_page(folder)
        lock.require_in_place()
        finish.write()
    return Run(folder, report)


def _make_report(
    evaluation: Evaluation,
    folder: Path,
    progress: Progress,
    cells: Iterable[Path],
    stopwatch: Stopwatch,
    finish: Finish,
) -> Report:
    """Write the records and return the report; prompts and records are released before the page is written."""
    if not (folder / FINGERPRINT_FILE).exists():
        evaluation.engine.require_device(evaluation.model)  # records of an earlier start may need no device
    with ExitStack() as stack:
        with stopwatch.stage("prompts"):
            prepared = prepare(evaluation)
            finish.mistakes = _find_mistakes(evaluation, prepared)
            finish.day = prepared.conventions.day
            _warn_of(finish.mistakes)
        identity = {**evaluation.identity, **_identify_content(evaluation, prepared)}
        provenance.require_same_identity(folder / FINGERPRINT_FILE, identity)
        adopt_records(evaluation, identity, folder, cells)
        logs = [_open_log(stack, folder, task) for task in prepared.tasks]
        with stopwatch.stage("metrics"):
            metrics = [_build_metrics(task.plan) for task in prepared.tasks]
        runner = LazyRunner(evaluation, prepared.conventions, folder, stopwatch)
        stack.callback(runner.close)
        _decode_missing(evaluation, prepared, logs, runner, stopwatch, progress)
        _add_likelihoods(prepared, logs, runner, stopwatch, progress)
        with stopwatch.stage("scoring"):
            reused = [
                evaluation.engine.count_reused(prepared.conventions, task.prompts, evaluation.search)
                for task in prepared.tasks
            ]
            prepared = prepared.without_prompts()  # the records have what scores are computed from
            results = {
                task.plan.task.name: score_task(task.plan, log, task_metrics, evaluation.seed, num_reused)
                for task, log, task_metrics, num_reused in zip(prepared.tasks, logs, metrics, reused, strict=True)
            }
        groups = {group.name: group.aggregate(results) for group in evaluation.groups}
        return Report(
            schema_version=SCHEMA_VERSION,
            run=describe_run(evaluation, prepared, provenance.fingerprint(identity)),
            results=results,
            timing=Timing(stopwatch.seconds, stopwatch.rate("decoding"), provenance.read_clock()),
            provenance=describe_origin(evaluation, prepared, runner.describe()),
            groups={name: result for name, result in groups.items() if result is not None},
        )


def _find_mistakes(evaluation: Evaluation, prepared: PreparedEvaluation) -> tuple[str, ...]:
    """Return a sentence about each option or piece of data that may be a mistake."""
    rules = describe_rules(prepared.conventions, evaluation.search)
    mistakes = [rules] if rules else []
    for task in prepared.tasks:
        for sentence in (*lint_template(task), *lint_leaks(task), *lint_pool(task), *lint_clusters(task)):
            mistakes.append(f"{task.plan.task.name}: {sentence}")
    return tuple(mistakes)


def _warn_of(mistakes: Iterable[str]) -> None:
    for sentence in mistakes:
        warn_once(sentence)


def _identify_content(evaluation: Evaluation, prepared: PreparedEvaluation) -> dict[str, str]:
    """Return the identities of the model's files and the retrieval encoder's, and the date that prompts show."""
    encoder = evaluation.encoder
    identities = {"weights": prepared.card.identity}
    identities |= {name: part.identify() for name, part in prepared.card.parts.items()}
    if prepared.conventions.day is not None:
        identities["template.date"] = prepared.conventions.day
    return identities if encoder is None else identities | {"encoder_weights": encoder.identify()}


def _open_log(stack: ExitStack, folder: Path, task: PreparedTask) -> RecordLog:
    log = stack.enter_context(closing(RecordLog(folder / name_records(task.plan.task.name))))
    require_same_data(log, task)
    return log


def _build_metrics(plan: TaskPlan) -> Sequence[Metric]:
    """Build a task's metrics, and report references that they cannot score before anything is decoded."""
    metrics = plan.build_metrics()
    for metric in metrics:
        metric.check_references([example.references for example in plan.examples])
    return metrics


def _decode_missing(
    evaluation: Evaluation,
    prepared: PreparedEvaluation,
    logs: Sequence[RecordLog],
    runner: LazyRunner,
    stopwatch: Stopwatch,
    progress: Progress,
) -> None:
    """Decode the prompts that have no record yet."""
    for task, log in zip(prepared.tasks, logs, strict=True):
        missing = [prompt for prompt in task.prompts if prompt.prompt.example_id not in log.records]
        name = task.plan.task.name
        progress.begin(name, len(task.prompts), len(task.prompts) - len(missing))
        if not missing:
            continue
        if not task.plan.max_new_tokens:
            for record in _skip_decoding(task, missing):
                log.append(record)
            continue
        opened = runner.open()
        with stopwatch.stage("decoding"):
            for record in _decode(evaluation, task, missing, opened):
                log.append(record)
                stopwatch.count("decoding", record.completion_tokens or 0)
                progress.advance(name)


def _decode(
    evaluation: Evaluation,
    task: PreparedTask,
    missing: Sequence[EncodedPrompt],
    runner: Runner,
) -> Iterator[Record]:
    plan = task.plan
    examples = {example.id: example for example in plan.examples}
    prompts = {prompt.prompt.example_id: prompt for prompt in missing}
    generation = Generation(evaluation.search, plan.max_new_tokens, plan.stop)
    samples: defaultdict[str, list[Completion]] = defaultdict(list)
    for completion in runner.complete(missing, generation, among=task.prompts):
        samples[completion.example_id].append(completion)
        if len(samples[completion.example_id]) == evaluation.search.num_samples:
            example, prompt = examples[completion.example_id], prompts[completion.example_id]
            yield _make_record(plan, example, prompt, samples.pop(completion.example_id))


def _skip_decoding(task: PreparedTask, missing: Sequence[EncodedPrompt]) -> Iterator[Record]:
    """Yield records with empty completions, for runs that only score likelihoods."""
    examples = {example.id: example for example in task.plan.examples}
    for prompt in missing:
        example = examples[prompt.prompt.example_id]
        yield _make_record(task.plan, example, prompt, [Completion(example.id, "", (), "undecoded")])


def _add_likelihoods(
    prepared: PreparedEvaluation,
    logs: Sequence[RecordLog],
    runner: LazyRunner,
    stopwatch: Stopwatch,
    progress: Progress,
) -> None:
    """Add likelihoods to the records that lack them."""
    for task, log in zip(prepared.tasks, logs, strict=True):
        missing = [each.example_id for each in task.answers if log.records[each.example_id].likelihood is None]
        if not missing:
            continue
        name = f"{task.plan.task.name}: likelihood"
        progress.begin(name, len(task.answers), len(task.answers) - len(missing))
        opened = runner.open()
        with stopwatch.stage("likelihood"):
            for example_id, likelihood in score_answers(opened, task.answers, missing):
                log.append(replace(log.records[example_id], likelihood=likelihood))
                progress.advance(name)


def _make_record(
    plan: TaskPlan,
    example: Example,
    encoded: EncodedPrompt,
    completions: Sequence[Completion],
) -> Record:
    prompt = encoded.prompt
    samples = [
        SampledCompletion(each.text, "", each.num_tokens, each.finish_reason, each.stop_string)
        for each in sorted(completions, key=lambda each: each.sample)
    ]
    record = Record(
        example_id=example.id,
        doc=example.inputs,
        targets=example.references,
        encoder=prompt.encoder,
        decoder=prompt.decoder,
        demonstration_ids=prompt.demonstration_ids,
        shots_requested=plan.few_shot.num_shown,
        shots_effective=len(prompt.demonstration_ids),
        completion=samples[0].completion,
        prediction="",
        metrics=_UNSCORED,
        prompt_tokens=encoded.num_tokens,
        completion_tokens=sum_known(each.num_tokens for each in completions),
        finish_reason=samples[0].finish_reason,
        prompt_hash=prompt.hash,
        demonstrations=prompt.demonstrations,
        stop_string=samples[0].stop_string,
        samples=tuple(samples) if len(samples) > 1 else (),
        cluster=example.cluster,
    )
    return settle(record, plan.postprocess)
