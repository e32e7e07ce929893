"""Turn a task's finished records into the parts of a report. Nothing here needs a model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from icl_eval.decoding.engines import TransformersEngine
from icl_eval.decoding.model_rules import list_rules
from icl_eval.demonstrations import count_candidates
from icl_eval.evaluation.doses import measure_control
from icl_eval.evaluation.preparation import Evaluation, PreparedEvaluation, TaskPlan
from icl_eval.evaluation.voting import settle
from icl_eval.metrics import Metric
from icl_eval.metrics.measurements import measure_records, score_measurements
from icl_eval.models.cards import ModelCard
from icl_eval.models.loading import describe_loaded
from icl_eval.models.specs import ModelSpec
from icl_eval.runs import provenance
from icl_eval.runs.behaviour import Behaviour, measure_behaviour
from icl_eval.runs.counts import count_records
from icl_eval.runs.records import Record, RecordLog, clusters_of
from icl_eval.runs.reports import Provenance, RunInfo, TaskResult


def score_task(
    plan: TaskPlan, log: RecordLog, metrics: Sequence[Metric], seed: int, num_reused: int | None
) -> TaskResult:
    """Score a task's records, write them in the order of the data set, and return the result.

    Args:
        plan: The task.
        log: Its records, which the log lets go of.
        metrics: Its metrics.
        seed: The seed of the bootstrap.
        num_reused: The number of prompt tokens that a run of all records reads from a cache; None if unknown.
    """
    examples = plan.examples
    stored = zip(log.take(example.id for example in examples), (example.cluster for example in examples), strict=True)
    current = (record if record.cluster == name else replace(record, cluster=name) for record, name in stored)
    records = [settle(record, plan.postprocess) for record in current]
    measurements = measure_records(plan.task.name, records, metrics, plan.record_metrics)
    clusters = clusters_of(records)
    scored = score_measurements(records, measurements, seed)
    log.finish(scored.records)
    return TaskResult(
        n=len(records),
        num_fewshot=plan.few_shot.num_shown,
        metrics=scored.results,
        counts=count_records(scored.records, prefix_tokens_reused=num_reused, unparsed=scored.unparsed),
        behaviour=_measure_behaviour(plan, scored.records) if plan.max_new_tokens else None,
        control=measure_control(plan, scored.records),
        num_clusters=None if clusters is None else len(set(clusters)),
    )


def _measure_behaviour(plan: TaskPlan, records: Sequence[Record]) -> Behaviour | None:
    candidates = count_candidates(plan.task, plan.few_shot, plan.match_field)
    if candidates is None:
        return measure_behaviour(records)
    questions = {example.id: example for example in plan.examples}
    return measure_behaviour(records, lambda name, target: candidates.count(questions[name], target))


def describe_run(evaluation: Evaluation, prepared: PreparedEvaluation, fingerprint: str) -> RunInfo:
    """Return the options of a run, with defaults resolved."""
    tasks = {
        task.plan.task.name: {"stop": list(task.plan.stop), "max_new_tokens": task.plan.max_new_tokens}
        for task in prepared.tasks
    }
    few_shots = [plan.few_shot for plan in evaluation.plans]
    numbers = {each.num_fewshot for each in few_shots}
    return RunInfo(
        model=prepared.card.name,
        architecture=prepared.card.architecture,
        template=_join_names(plan.template.name for plan in evaluation.plans),
        placement=prepared.placement.name,
        conventions=prepared.conventions.describe(),
        num_fewshot=numbers.pop() if len(numbers) == 1 else None,
        demonstrations=_join_names(each.selector.name for each in few_shots),
        order=_join_names(each.order.name for each in few_shots),
        control=_join_names(each.control.name for each in few_shots),
        leave_out=few_shots[0].leave_out,
        seed=evaluation.seed,
        decoding={
            "search": evaluation.search.name,
            "options": dict(evaluation.search.recipe),
            **_describe_precision(evaluation, prepared.card),
            "ends": prepared.conventions.ends,
            "generation_config": list_rules(prepared.conventions, evaluation.search),
            "tasks": tasks,
        },
        fingerprint=fingerprint,
        loading=_describe_loading(evaluation, prepared.card),
        one_draw=any(each.num_shown and each.selector.shares_a_draw for each in few_shots),
    )


def _describe_precision(evaluation: Evaluation, card: ModelCard) -> dict[str, Any]:
    """Return the precision of a run; some methods of quantization round each token's states, too, and coarsely."""
    precision = dict(evaluation.engine.describe_precision(evaluation.search))
    if card.quantization and evaluation.search.shares_prefixes and precision["batch_invariant"]:
        precision["batch_invariant"] = False
    return precision


def _describe_loading(evaluation: Evaluation, card: ModelCard) -> dict[str, Any]:
    """Return in which form the model is loaded, where that differs from what its files say."""
    described: dict[str, Any] = {name: part.name for name, part in card.parts.items()}
    if card.quantization:
        described["quantization"] = dict(card.quantization)
    if isinstance(evaluation.model, ModelSpec) and evaluation.model.attn_implementation:
        described["attn_implementation"] = evaluation.model.attn_implementation
    return described


def _join_names(names: Iterable[str]) -> str:
    """Return what all tasks have in common, or the names that occur, each once."""
    return ", ".join(dict.fromkeys(names))


def _list_libraries(card: ModelCard) -> list[str]:
    """Return the libraries that load a model in another form; most methods of quantization have the name of theirs."""
    method = str(card.quantization.get("quant_method", "bitsandbytes"))
    return ["peft"] * bool(card.adapter) + [method, f"optimum-{method}"] * bool(card.quantization)


def _describe_network(evaluation: Evaluation) -> dict[str, Any]:
    engine = evaluation.engine
    if not isinstance(engine, TransformersEngine):
        return {}
    return describe_loaded(evaluation.model, engine.dtype, engine.device)


def describe_origin(evaluation: Evaluation, prepared: PreparedEvaluation, engine: Mapping[str, Any]) -> Provenance:
    """Return the provenance of a run's numbers."""
    return Provenance(
        versions=provenance.read_versions(_list_libraries(prepared.card)),
        git_commit=provenance.read_git_commit(),
        weights=prepared.card.identity,
        parts={name: part.identify() for name, part in prepared.card.parts.items()},
        network=_describe_network(evaluation),
        datasets={task.plan.task.name: task.plan.task.content_hash for task in prepared.tasks},
        config=evaluation.config,
        overrides=evaluation.overrides,
        host=provenance.describe_host(),
        engine=engine,
    )
