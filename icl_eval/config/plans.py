"""Load a task's data and decide how the task is prompted and scored."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from icl_eval.config.composing import IN_MEMORY_CONFIG, ComposedConfig
from icl_eval.config.ranges import MAX_NEW_TOKENS, min_new_tokens_of, require_at_least, require_at_most
from icl_eval.config.schema import ChannelConfig, RunConfig, TaskConfig, TemplateConfig
from icl_eval.config.sources import build_data_source
from icl_eval.decoding.searches import check_stop
from icl_eval.demonstrations import AbstractLabels, Demonstration, FewShot, Selection, build_shown
from icl_eval.demonstrations.ranking import random_key
from icl_eval.errors import ConfigError
from icl_eval.evaluation.answers import LIKELIHOODS
from icl_eval.evaluation.preparation import TaskPlan
from icl_eval.metrics.building import build_metrics
from icl_eval.metrics.measurements import RecordMetrics
from icl_eval.metrics.postprocessing import POSTPROCESSORS, Strip
from icl_eval.prompts.templates import ChannelForm, Template, TextTemplate
from icl_eval.targets import build
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task, load_task

NUM_FEWSHOT = 4
"""The number of demonstrations if neither the run nor the task says one."""


def find_task(name: str, config: TaskConfig, composed: ComposedConfig) -> Task:
    """Return a task with its data, from memory or from its files; raises ConfigError and DataError."""
    key = f"task.{name}"
    if name in composed.in_memory.tasks:
        for part in ("pool", "test", "fields", "demonstration_fields"):
            if getattr(config, part) != getattr(IN_MEMORY_CONFIG, part):
                raise ConfigError(f"{key}.{part}: the rows of this task are in memory; pass {part} to Task.of_rows")
        return replace(composed.in_memory.tasks[name], instruction=config.instruction, labels=config.labels)
    return load_task(
        name,
        instruction=config.instruction,
        labels=config.labels,
        pool=build_data_source(f"{key}.pool", config.pool, composed.search_path),
        test=build_data_source(f"{key}.test", config.test, composed.search_path),
        fields=config.fields,
        demonstration_fields=config.demonstration_fields,
    )


@dataclass(frozen=True)
class SharedOptions:
    """The options of a run that hold for each of its tasks, unless the task brings its own."""

    run: RunConfig
    few_shot: FewShot
    template: TextTemplate
    is_template_given: bool
    """Whether the user chose the template; otherwise a task's own precedes it."""


def build_plan(
    task: Task,
    config: TaskConfig,
    shared: SharedOptions,
    own_template: Template | None = None,
    record_metrics: RecordMetrics | None = None,
) -> TaskPlan:
    """Build the plan by which a task is prompted and scored.

    Args:
        task: The task.
        config: Its configuration.
        shared: The options of the run.
        own_template: The task's own wording, if it is not in the configuration.
        record_metrics: Metrics of whole records, which may be all that a task has.

    Raises:
        ConfigError: If an option is invalid, or options contradict each other.
    """
    key, run = f"task.{task.name}", shared.run
    few_shot = choose_few_shot(key, config, shared)
    max_new_tokens = _find_max_new_tokens(key, config, run)
    metrics, metrics_key = (run.metrics, "metrics") if run.metrics else (config.metrics, f"{key}.metrics")
    if not max_new_tokens:
        metrics = {}  # there are no predictions
    elif not metrics and record_metrics is None:
        raise ConfigError(f"{metrics_key}: at least one metric is needed")
    postprocessing, postprocessing_key = (
        (run.postprocessing, "postprocessing")
        if run.postprocessing
        else (config.postprocessing, f"{key}.postprocessing")
    )
    likelihood, likelihood_key = (
        (run.likelihood, "likelihood") if run.likelihood else (config.likelihood, f"{key}.likelihood")
    )
    stop = config.stop if run.decoding.get("stop") is None else run.decoding["stop"]
    try:
        check_stop(stop)
    except ConfigError as error:
        raise ConfigError(f"{key}.{error}") from None
    examples = apply_limit(task.examples, run.limit, run.limit_seed)
    select = _memoize(build_shown(task, few_shot, config.match_field))
    if few_shot.selector.encoder is None:  # no weights are needed, so a pool that is too small is reported immediately
        for example in examples:
            select(example)
    if isinstance(few_shot.control, AbstractLabels):
        if record_metrics is not None:
            raise ConfigError(f"control=abstract_labels: {key} has scores of its own, which know only its own labels")
        examples = tuple(map(few_shot.control.bind_mapping(task, config.match_field), examples))
    return TaskPlan(
        task=task,
        examples=examples,
        template=_choose_template(task, config, shared, own_template),
        few_shot=few_shot,
        match_field=config.match_field,
        select=select,
        stop=tuple(stop),
        max_new_tokens=max_new_tokens,
        postprocess=build(postprocessing, postprocessing_key, POSTPROCESSORS) if postprocessing else Strip(),
        build_metrics=lambda: build_metrics(metrics, metrics_key),
        likelihood=build(likelihood, likelihood_key, LIKELIHOODS) if likelihood else None,
        record_metrics=record_metrics,
    )


def choose_few_shot(key: str, config: TaskConfig, shared: SharedOptions) -> FewShot:
    """Return the run's choice of demonstrations, with the task's own number unless the run gives one."""
    few_shot, own = shared.few_shot, config.num_fewshot
    if own is not None and shared.run.num_fewshot is None:
        require_at_least(f"{key}.num_fewshot", own, 0)
        few_shot = replace(few_shot, num_fewshot=own)
    few_shot.require_sense()
    return few_shot


def _choose_template(task: Task, config: TaskConfig, shared: SharedOptions, own: Template | None) -> Template:
    if shared.is_template_given:
        return shared.template
    if config.template is None:
        return own or shared.template
    for key in ("chat", "date"):
        if getattr(config.template, key):
            raise ConfigError(
                f"task.{task.name}.template.{key}: can only be set for all tasks of a run (template.{key})"
            )
    return build_template(config.template, f"{task.name}'s own")


def build_template(config: TemplateConfig, name: str) -> TextTemplate:
    """Build a template from its configuration; raises ConfigError."""
    return TextTemplate(
        instruction=config.instruction,
        question=config.question,
        answer=config.answer,
        demonstration=config.demonstration,
        separator=config.separator,
        question_first=config.question_first,
        rationale=config.rationale,
        name=name,
        variant=config.variant,
        channel=_build_channel(config.channel),
    )


def _build_channel(config: ChannelConfig) -> ChannelForm | None:
    if config.answer is None and config.question is None:
        return None
    for key, value in (("answer", config.answer), ("question", config.question)):
        if value is None:
            raise ConfigError(f"template.channel.{key}: missing; a channel form needs both answer and question")
    return ChannelForm(str(config.answer), str(config.question))


def _memoize(select: Selection) -> Selection:
    """Return a selection that runs only once for each question; questions with the same demonstrations share them."""
    selected: dict[str, tuple[Demonstration, ...]] = {}
    distinct: dict[tuple[tuple[int, float | None], ...], tuple[Demonstration, ...]] = {}

    def select_once(example: Example) -> tuple[Demonstration, ...]:
        if example.id not in selected:
            found = select(example)
            key = tuple((id(shown.example), shown.similarity) for shown in found)
            selected[example.id] = distinct.setdefault(key, found)
        return selected[example.id]

    return select_once


def _find_max_new_tokens(key: str, config: TaskConfig, run: RunConfig) -> int:
    """Return the limit on a completion's tokens; 0 if answers are only scored by their likelihood."""
    max_new_tokens = config.max_new_tokens if run.max_new_tokens is None else run.max_new_tokens
    require_at_least(f"{key}.max_new_tokens", max_new_tokens, min_new_tokens_of(run, [config]))
    require_at_most(f"{key}.max_new_tokens", max_new_tokens, MAX_NEW_TOKENS)
    needs_decoding = {
        "metrics": run.metrics,
        "postprocessing": run.postprocessing,
        "decoding.stop": run.decoding.get("stop"),
        "decoding.num_samples": run.decoding.get("num_samples", 1) > 1,
    }
    for name, value in needs_decoding.items():
        if not max_new_tokens and value:
            raise ConfigError(f"{name}: has no effect with max_new_tokens=0, which decodes nothing ({key})")
    return max_new_tokens


def apply_limit(
    examples: tuple[Example, ...], limit: int | float | None, seed: int | None = None
) -> tuple[Example, ...]:
    """Return some of the examples in their order: a number of them, a fraction, or all.

    Args:
        examples: All examples.
        limit: How many, or which fraction of them; None for all.
        seed: The seed by which they are drawn, so that those of a larger limit contain those of a smaller one; None for
            the first ones.
    """
    if isinstance(limit, float):
        limit = math.ceil(Fraction(str(limit)) * len(examples))  # as it is written: 0.07 * 100 is more than 7
    if seed is None:
        return examples[:limit]
    drawn = {example.id for example in sorted(examples, key=lambda example: random_key(seed, "", example.id))[:limit]}
    return tuple(example for example in examples if example.id in drawn)
