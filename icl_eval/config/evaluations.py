"""Build everything that a run needs from a composed configuration."""

import datetime
import typing
from typing import Any

from omegaconf import OmegaConf

from icl_eval.config.composing import ComposedConfig
from icl_eval.config.given import is_given
from icl_eval.config.harness_tasks import HarnessPlans, build_harness_plans
from icl_eval.config.identities import identity_of, name_choices
from icl_eval.config.options import build_requested_conventions, choose_source
from icl_eval.config.plans import NUM_FEWSHOT, SharedOptions, build_plan, build_template, find_task
from icl_eval.config.ranges import read_options
from icl_eval.config.schema import RunConfig, TaskConfig
from icl_eval.decoding.engines import ENGINES, Engine, TransformersEngine
from icl_eval.decoding.searches import Search, build_search
from icl_eval.demonstrations import CONTROLS, ORDERS, SELECTORS, FewShot, InstructionOnly
from icl_eval.errors import ConfigError
from icl_eval.evaluation.preparation import Evaluation, TaskGroup, TaskPlan
from icl_eval.models.loading import LanguageModel, ModelSource
from icl_eval.prompts.building import PLACEMENTS
from icl_eval.targets import build


def build_evaluation(composed: ComposedConfig, config: RunConfig | None = None) -> Evaluation:
    """Build an evaluation from a composed configuration, and read the data of its tasks.

    Args:
        composed: The configuration that Hydra composed from the schema.
        config: Its options, if `read_options` has read and checked them; None to do so here.

    Raises:
        ConfigError: If an option is unknown, has the wrong type, is out of range, or conflicts with another option.
        DataError: If a task's data do not have the expected format.
    """
    config = config or read_options(composed.cfg)
    model = composed.in_memory.model
    named = name_choices(
        typing.cast("dict[str, Any]", OmegaConf.to_container(composed.cfg, resolve=True)), composed.choices
    )
    source = choose_source(config.model, model)
    few_shot = _build_few_shot(config, source)
    engine = _build_engine(config, model)
    if not isinstance(engine, TransformersEngine):
        _require_no_options_of_a_network(composed, config, engine)
    search = build_search(config.decoding)
    if not search.shares_prefixes and config.batch_size not in ("auto", 1):
        raise ConfigError(
            f"batch_size={config.batch_size}: must be auto or 1: decoding={search.name} runs one prompt at a time"
        )
    shared = SharedOptions(
        config,
        few_shot,
        build_template(config.template, named["template"]["name"]),
        is_template_given=is_given(composed, "template"),
    )
    plans: list[TaskPlan] = []
    groups: list[TaskGroup] = []
    options = {}
    for name, task in config.task.items():
        planned = _plan_tasks(name, task, shared, composed, search)
        plans += planned.plans
        groups += planned.groups
        for plan in planned.plans:
            if plan.task.name in options:
                raise ConfigError(f"task.{name}: a task '{plan.task.name}' is already part of the run")
            options[plan.task.name] = dict(named["task"][name])
    named["task"] = options
    if isinstance(few_shot.control, InstructionOnly):
        for plan in plans:
            _require_instruction(plan)
    numbers = {plan.few_shot.num_fewshot for plan in plans}
    named["num_fewshot"] = numbers.pop() if len(numbers) == 1 else None
    return Evaluation(
        plans=tuple(plans),
        groups=tuple(groups),
        engine=engine,
        model=source,
        conventions=build_requested_conventions(config),
        chat=config.template.chat,
        day=_read_day(config.template.date),
        placement=build(config.placement, "placement", PLACEMENTS) if config.placement else None,
        search=search,
        seed=config.seed,
        overflow=typing.cast("typing.Any", config.overflow),
        identity=identity_of(named, plans, engine, search, shared.is_template_given),
        config=named,
        overrides=composed.overrides,
    )


def _require_no_options_of_a_network(composed: ComposedConfig, config: RunConfig, engine: Engine) -> None:
    """Refuse options that only a network in this process has."""
    for key in ("adapter", "quantization", "device_map", "attn_implementation"):
        if getattr(config.model, key):
            raise ConfigError(f"model.{key}: has no effect with engine={engine.name}; start its server with it")
    for key in ("dtype", "batch_size", "prefix_cache_mb"):
        if is_given(composed, key):
            raise ConfigError(f"{key}: has no effect with engine={engine.name}, whose server decides it; leave it out")


def _build_engine(config: RunConfig, model: LanguageModel | None) -> Engine:
    known = {
        "dtype": model.dtype if model else config.dtype,
        "device": model.device if model else config.device,
        "batch_size": None if config.batch_size == "auto" else config.batch_size,
        "prefix_cache_mb": None if config.prefix_cache_mb == "auto" else config.prefix_cache_mb,
    }
    engine: Engine = build(config.engine, "engine", ENGINES, known)
    return engine


def _plan_tasks(
    name: str, task: TaskConfig, shared: SharedOptions, composed: ComposedConfig, search: Search
) -> HarnessPlans:
    """Plan the tasks that a task of the configuration stands for; only one of another harness stands for several."""
    if task.name is not None:
        return build_harness_plans(name, task, shared, composed, search)
    for key in ("include_path", "trust_remote_code"):
        if value := getattr(task, key):
            raise ConfigError(f"task.{name}.{key}={value}: only for a task with a 'name', such as task=lm_eval")
    return HarnessPlans((build_plan(find_task(name, task, composed), task, shared),), ())


def _build_few_shot(config: RunConfig, model: ModelSource) -> FewShot:
    known = {"model": model, "device": config.device}
    return FewShot(
        selector=build(config.demonstrations, "demonstrations", SELECTORS, known),
        control=build(config.control, "control", CONTROLS),
        order=build(config.order, "order", ORDERS),
        num_fewshot=NUM_FEWSHOT if config.num_fewshot is None else config.num_fewshot,
        leave_out=config.leave_out,
    )


def _require_instruction(plan: TaskPlan) -> None:
    """Reject `instruction_only` if the prompts would not even contain an instruction."""
    example = plan.examples[0]
    before, question = plan.template.render(plan.task, (), example).split()
    instruction = example.inputs.get("instruction", plan.task.instruction)
    if not before and not (instruction and instruction in question):
        raise ConfigError(
            f"control=instruction_only: template '{plan.template.name}' shows no instruction for task "
            f"'{plan.task.name}'"
        )


def _read_day(text: str | None) -> datetime.date | None:
    try:
        return None if text is None else datetime.date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"template.date={text}: must be a date such as 2025-01-31") from None
