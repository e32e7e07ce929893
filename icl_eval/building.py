"""Building: from a composed configuration to the objects that do the work. Hydra ends here."""

import math
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, TypeAdapter, ValidationError

from icl_eval.config import (
    DataConfig,
    ModelConfig,
    ModelOptions,
    RunConfig,
    TaskConfig,
    TemplateConfig,
    typed_config,
    unknown_key,
)
from icl_eval.conventions import Asked
from icl_eval.demonstrations import Choice, InstructionOnly, build_shown
from icl_eval.errors import ConfigError
from icl_eval.postprocessing import Strip
from icl_eval.preparation import Evaluation, TaskPlan
from icl_eval.rows import DataSource
from icl_eval.searches import Search
from icl_eval.tasks import Example, load_task
from icl_eval.templates import TextTemplate
from icl_eval.weights import ModelSpec

DTYPES = ("float32", "bfloat16", "float16", "float64")
OVERFLOWS = ("stop", "drop")
_EMPTY_STOP = "an empty stop string would end every completion before it begins"


def build_evaluation(
    cfg: DictConfig,
    choices: Mapping[str, Any],
    search_path: Sequence[Path],
    schema: type[RunConfig] = RunConfig,
) -> Evaluation:
    """Turn a composed configuration into an evaluation; reads the tasks' data.

    Args:
        cfg: What Hydra composed from the schema.
        choices: Which option was chosen for each config group.
        search_path: Folders in which relative data files are looked for.
        schema: `RunConfig`, or that of a command which takes more keys.

    Raises:
        ConfigError: When an option is unknown, of the wrong type, out of range or at odds with another.
        DataError: When a task's data is not what the task expects.
    """
    config = typed_config(cfg, schema)
    _check_ranges(config)
    choice = _build_choice(config)
    search = build_search(config.decoding)
    if not search.shares_prefixes and config.batch_size not in ("auto", 1):
        raise ConfigError(f"batch_size={config.batch_size}: decoding={search.name} takes one prompt at a time")
    plans = tuple(_build_plan(name, task, config, choice, search_path) for name, task in config.task.items())
    template = _build_template(config.template, str(choices.get("template")))
    if isinstance(choice.control, InstructionOnly):
        for plan in plans:
            _require_instruction(plan, template)
    return Evaluation(
        plans=plans,
        model=build_model_spec(config.model),
        dtype=config.dtype,
        device=config.device,
        conventions=asked_conventions(config),
        template=template,
        chat=config.template.chat,
        placement=build(config.placement, "placement") if config.placement else None,
        choice=choice,
        search=search,
        seed=config.seed,
        batch_size=None if config.batch_size == "auto" else typing.cast("int", config.batch_size),
        prefix_cache_mb=config.prefix_cache_mb,
        overflow=typing.cast("typing.Any", config.overflow),
        likelihood=build(config.likelihood, "likelihood") if config.likelihood else None,
        identity=_identity(config, plans, search),
        config=typing.cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True)),
    )


def build_model_spec(config: ModelConfig) -> ModelSpec:
    """Turn the model's options into a specification."""
    return ModelSpec(config.source, config.revision, config.trust_remote_code, config.allow_pickle)


def asked_conventions(config: ModelOptions) -> Asked:
    """Return which of the model's conventions the options ask for."""
    return Asked(config.task_prefix, config.model.source_language, config.model.target_language)


def build_search(config: Mapping[str, Any]) -> Search:
    """Turn the options of `decoding` into a search; raises ConfigError."""
    search: Search = build(config, "decoding")
    return search


def build(config: Mapping[str, Any], key: str, optional: Mapping[str, Any] | None = None) -> Any:
    """Build the object that a `_target_` names, with the other keys as its arguments.

    Args:
        config: `_target_`, a class inside `icl_eval`, and its arguments. An argument that is a dataclass of ours is
            built from a mapping of its fields.
        key: Where the configuration stands, for messages.
        optional: Arguments that are given where the class takes them.

    Raises:
        ConfigError: When the target is none of ours, or an argument is unknown, missing or of the wrong type.
    """
    arguments = dict(config)
    target = str(arguments.pop("_target_", ""))
    if not target.startswith("icl_eval."):
        raise ConfigError(f"{key}._target_: {target!r}, but only classes inside 'icl_eval.' can be built")
    module, _, name = target.rpartition(".")
    try:
        built_class = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}._target_: {target!r} does not exist ({error})") from None
    return _construct(built_class, arguments, key, optional or {})


def _construct(built_class: Any, arguments: dict[str, Any], key: str, optional: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(built_class.__init__)
    hints.pop("return", None)
    for name, value in arguments.items():
        if name not in hints:
            raise ConfigError(unknown_key(f"{key}.{name}", [f"{key}.{hint}" for hint in hints]))
        if is_dataclass(hints[name]) and isinstance(value, Mapping):
            arguments[name] = _construct(hints[name], dict(value), f"{key}.{name}", optional)
        else:
            arguments[name] = _checked(f"{key}.{name}", value, hints[name])
    arguments |= {name: value for name, value in optional.items() if name in hints}
    try:
        return built_class(**arguments)
    except TypeError as error:
        raise ConfigError(f"{key}: {error}") from None


def _checked(key: str, value: Any, hint: Any) -> Any:
    try:
        return TypeAdapter(hint, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"{key}={value}: {error.errors()[0]['msg']}") from None


def _check_ranges(config: RunConfig) -> None:
    check_model_options(config, least_new_tokens=_least_new_tokens(config))
    if not config.task:
        raise ConfigError("task: at least one is needed (task=qa, or task=[qa,math])")
    if config.num_fewshot < 0:
        raise ConfigError(f"num_fewshot={config.num_fewshot}: must be 0 or more")
    if config.batch_size != "auto" and not (isinstance(config.batch_size, int) and config.batch_size >= 1):
        raise ConfigError(f"batch_size={config.batch_size}: must be auto, or 1 or more")
    if config.prefix_cache_mb < 0:
        raise ConfigError(f"prefix_cache_mb={config.prefix_cache_mb}: must be 0 or more")
    if config.overflow not in OVERFLOWS:
        raise ConfigError(f"overflow={config.overflow}: must be one of {', '.join(OVERFLOWS)}")
    limit = config.limit
    if limit is not None and not (limit >= 1 if isinstance(limit, int) else 0 < limit < 1):
        raise ConfigError(f"limit={limit}: must be a number of examples (1 or more) or a fraction between 0 and 1")


def check_model_options(config: ModelOptions, least_new_tokens: int = 1) -> None:
    """Check what a type cannot say about the options that all commands with a model share.

    Args:
        config: The options.
        least_new_tokens: How many new tokens must be asked for at least.

    Raises:
        ConfigError: When one is out of range.
    """
    if config.dtype not in DTYPES:
        raise ConfigError(f"dtype={config.dtype}: must be one of {', '.join(DTYPES)}")
    if config.max_new_tokens is not None and config.max_new_tokens < least_new_tokens:
        raise ConfigError(f"max_new_tokens={config.max_new_tokens}: must be {least_new_tokens} or more")


def _build_choice(config: RunConfig) -> Choice:
    known = {"model": build_model_spec(config.model), "device": config.device}
    choice = Choice(
        selector=build(config.demonstrations, "demonstrations", known),
        control=build(config.control, "control"),
        order=build(config.order, "order"),
        num_fewshot=config.num_fewshot,
        leave_out=config.leave_out,
    )
    choice.require_sense()
    return choice


def _require_instruction(plan: TaskPlan, template: TextTemplate) -> None:
    """Refuse `instruction_only` where a prompt would not even have that."""
    example = plan.examples[0]
    blocks = template.render(plan.task, (), example)
    instruction = example.inputs.get("instruction", plan.task.instruction)
    if not blocks.instruction and not (instruction and instruction in blocks.question):
        raise ConfigError(
            f"control=instruction_only: template '{template.name}' shows no instruction for task '{plan.task.name}'"
        )


def _build_plan(
    name: str,
    config: TaskConfig,
    run: RunConfig,
    choice: Choice,
    search_path: Sequence[Path],
) -> TaskPlan:
    key = f"task.{name}"
    if not re.fullmatch(r"[\w.-]+", name):
        raise ConfigError(f"{key}: a task's name becomes a file name; use letters, digits, '_', '-' and '.'")
    task = load_task(
        name,
        instruction=config.instruction,
        labels=config.labels,
        pool=_data_source(config.pool, search_path),
        test=_data_source(config.test, search_path),
        fields=config.fields,
    )
    max_new_tokens = _max_new_tokens(key, config, run)
    metrics, metrics_key = (run.metrics, "metrics") if run.metrics else (config.metrics, f"{key}.metrics")
    if not max_new_tokens:
        metrics = {}  # there are no predictions
    elif not metrics:
        raise ConfigError(f"{metrics_key}: at least one metric is needed")
    postprocessing = run.postprocessing or config.postprocessing
    stop = config.stop if run.decoding.get("stop") is None else run.decoding["stop"]
    if "" in stop:
        raise ConfigError(f"{key}.stop: {_EMPTY_STOP}")
    examples = _limited(task.examples, run.limit)
    select = build_shown(task, choice, config.match_field)
    if choice.selector.encoder is None:
        selected = {example.id: select(example) for example in examples}  # a pool too small is said at once
        select = lambda example: selected[example.id]  # noqa: E731
    return TaskPlan(
        task=task,
        examples=examples,
        match_field=config.match_field,
        select=select,
        stop=tuple(stop),
        max_new_tokens=max_new_tokens,
        postprocess=build(postprocessing, "postprocessing") if postprocessing else Strip(),
        build_metrics=lambda: [
            build(metric, f"{metrics_key}.{metric_name}") for metric_name, metric in metrics.items()
        ],
    )


def _max_new_tokens(key: str, config: TaskConfig, run: RunConfig) -> int:
    """Return how many tokens a task's completions may have; 0 where answers are only scored by their likelihood."""
    max_new_tokens = config.max_new_tokens if run.max_new_tokens is None else run.max_new_tokens
    if max_new_tokens < _least_new_tokens(run):
        raise ConfigError(f"{key}.max_new_tokens={max_new_tokens}: must be {_least_new_tokens(run)} or more")
    pointless = {
        "metrics": run.metrics,
        "postprocessing": run.postprocessing,
        "decoding.stop": run.decoding.get("stop"),
    }
    for name, value in pointless.items():
        if not max_new_tokens and value:
            raise ConfigError(f"{name}: it is of no use with max_new_tokens=0, which decodes nothing ({key})")
    return max_new_tokens


def _least_new_tokens(config: RunConfig) -> int:
    return 0 if config.likelihood else 1


def _data_source(config: DataConfig, search_path: Sequence[Path]) -> DataSource:
    """Return the source, with a relative path completed by the first folder that holds it."""
    path = next((str(folder / config.path) for folder in search_path if (folder / config.path).exists()), None)
    return DataSource(path or config.path, config.name, config.split)


def _limited(examples: tuple[Example, ...], limit: int | float | None) -> tuple[Example, ...]:
    if isinstance(limit, float):
        limit = math.ceil(limit * len(examples))
    return examples[:limit]


def _identity(config: RunConfig, plans: Sequence[TaskPlan], search: Search) -> dict[str, Any]:
    """Return what decides a run's records, flat.

    Left out are where data and weights are stored (what they hold counts), how fast to go, and how to score.
    """
    options = asdict(config)
    languages = {key: options["model"][key] for key in ("source_language", "target_language")}
    for key in ("model", "batch_size", "prefix_cache_mb", "device", "metrics", "postprocessing"):
        del options[key]
    options["demonstrations"].pop("encoder", None)
    options["model"] = languages
    options["decoding"] = {"search": search.name, "stop": search.stop, **search.recipe}
    for plan in plans:
        task = options["task"][plan.task.name]
        for key in ("pool", "test", "metrics", "postprocessing"):
            del task[key]
        task["data"] = plan.task.content_hash
    return dict(_flat(options, ""))


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _build_template(config: TemplateConfig, name: str) -> TextTemplate:
    return TextTemplate(
        instruction=config.instruction,
        question=config.question,
        answer=config.answer,
        demonstration=config.demonstration,
        separator=config.separator,
        question_first=config.question_first,
        name=name,
        variant=config.variant,
    )
