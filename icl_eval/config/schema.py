"""Define the keys that a user can set, and their types.

The dataclasses reject unknown keys and wrong types while Hydra composes the configuration. Everything that a type
cannot express is checked where objects are built (`icl_eval.config.evaluations`).
"""

import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from icl_eval.errors import ConfigError
from icl_eval.formatting import describe_unknown_key, find_lone_surrogate

Schema = typing.TypeVar("Schema")
Strings = typing.Annotated[Any, "a string, or a list of strings"]


@dataclass
class DataConfig:
    """The location of one split's rows; see `icl_eval.tasks.rows.DataSource`."""

    path: str = MISSING
    name: str | None = None
    split: str | None = None
    revision: str | None = None
    max_rows: int = 1_000_000


@dataclass
class ChannelConfig:
    """A template's answer and question the other way round; see `icl_eval.prompts.templates.ChannelForm`."""

    answer: str | None = None
    question: str | None = None


@dataclass
class TemplateConfig:
    """The wording of prompts; see `icl_eval.prompts.templates.TextTemplate`."""

    instruction: str = ""
    question: str = MISSING
    rationale: str | None = None
    answer: str = MISSING
    demonstration: str | None = None
    separator: str = "\n\n"
    question_first: bool = False
    channel: ChannelConfig = field(default_factory=ChannelConfig)
    variant: int | None = None
    chat: bool = False
    date: str | None = None


@dataclass
class CardConfig:
    """What `icl-eval list tasks` says of a task's data; it changes no prompt and no score."""

    kind: str | None = None
    licence: str | None = None
    pool_size: int | None = None
    test_size: int | None = None


@dataclass
class TaskConfig:
    """One task; see conf/task/qa.yaml for a commented example, and conf/task/lm_eval.yaml for the first three keys."""

    name: Any = None
    include_path: str | None = None
    trust_remote_code: bool = False
    card: CardConfig = field(default_factory=CardConfig)
    pool: DataConfig = field(default_factory=DataConfig)
    test: DataConfig = field(default_factory=DataConfig)
    instruction: str = ""
    labels: dict[str, str] = field(default_factory=lambda: {"question": "Question", "answer": "Answer"})
    fields: dict[str, str] = field(default_factory=lambda: {"question": "question", "references": "references"})
    demonstration_fields: dict[str, str] = field(default_factory=dict)
    match_field: str | None = None
    stop: list[str] = field(default_factory=lambda: ["\n"])
    max_new_tokens: int = 32
    num_fewshot: int | None = None
    template: TemplateConfig | None = None
    postprocessing: dict[str, Any] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    likelihood: dict[str, Any] | None = None


@dataclass
class ModelConfig:
    """A model and its form (see `icl_eval.models.weights.ModelSpec`), its languages, and its chat template."""

    source: str = MISSING
    revision: str | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False
    tokenizer: str | None = None
    adapter: str | None = None
    quantization: dict[str, Any] = field(default_factory=dict)
    device_map: Any = None
    attn_implementation: str | None = None
    source_language: str | None = None
    target_language: str | None = None
    chat_template: str | None = None


@dataclass
class ModelOptions:
    """The options of every command that loads a model."""

    model: ModelConfig = field(default_factory=ModelConfig)
    task_prefix: str | None = None
    decoding: dict[str, Any] = field(default_factory=dict)
    max_new_tokens: int | None = None
    device: str = "auto"
    dtype: str = "float32"


@dataclass
class RunConfig(ModelOptions):
    """The options of an evaluation."""

    task: dict[str, TaskConfig] = field(default_factory=dict)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    engine: dict[str, Any] = field(default_factory=dict)
    placement: dict[str, Any] | None = None
    demonstrations: dict[str, Any] = field(default_factory=dict)
    order: dict[str, Any] = field(default_factory=dict)
    control: dict[str, Any] = field(default_factory=dict)
    leave_out: int | None = None
    postprocessing: dict[str, Any] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    likelihood: dict[str, Any] | None = None
    num_fewshot: int | None = None
    limit: int | float | None = None
    limit_seed: int | None = None
    seed: int = 0
    batch_size: int | str = "auto"
    prefix_cache_mb: int | str = "auto"
    overflow: str = "stop"


@dataclass
class PreviewConfig(RunConfig):
    """The options of `icl-eval preview`."""

    logged: str | None = None


@dataclass
class StreamConfig(ModelOptions):
    """The options of `icl-eval stream`."""

    prompt: Strings = MISSING
    decoder_prompt: str | None = None


@dataclass
class TraceConfig(RunConfig):
    """The options of `icl-eval trace`."""

    prompt: str | None = None
    example: str | None = None
    runners_up: int = 5
    heads: bool = False


@dataclass
class TourConfig(ModelOptions):
    """The options of `icl-eval tour`."""

    prompt: str = MISSING
    num_return_sequences: int = 3


@dataclass
class CompareConfig:
    """The options of `icl-eval compare`."""

    runs: list[str] = field(default_factory=list)
    output: str | None = None
    seed: int = 0
    num_resamples: int = 10_000


@dataclass
class PlanConfig:
    """The options of `icl-eval plan`."""

    pilot: list[str] = field(default_factory=list)
    score: str | None = None
    difference: float = 0.05
    power: float = 0.8
    alpha: float = 0.05
    tests: int = 1
    draws: list[int] | None = None
    questions: list[int] = field(default_factory=list)
    budget_tokens: int | None = None
    budget_minutes: float | None = None
    flips: float | None = None
    output: str | None = None


@dataclass
class ListConfig:
    """The options of `icl-eval list`."""

    folders: list[str] = field(default_factory=list)


@dataclass
class ListTasksConfig:
    """`icl-eval list tasks` has no options."""


@dataclass
class CatalogueConfig:
    """Tasks alone, without a run; no command has this configuration."""

    task: dict[str, TaskConfig] = field(default_factory=dict)


@dataclass
class ImportConfig:
    """The options of `icl-eval import`."""

    paths: list[str] = field(default_factory=list)
    output: str | None = None
    model_name: str | None = None
    num_fewshot: int | None = None
    seed: int = 0


@dataclass
class ExportConfig:
    """The options of `icl-eval export`."""

    folders: list[str] = field(default_factory=list)
    format: str = "paper"
    model_id: str | None = None
    organization: str | None = None
    relationship: str | None = None
    project: str | None = None


_NAMES = {
    RunConfig: "run_schema",
    StreamConfig: "stream_schema",
    TraceConfig: "trace_schema",
    PreviewConfig: "preview_schema",
    TourConfig: "tour_schema",
    CompareConfig: "compare_schema",
    PlanConfig: "plan_schema",
    ListConfig: "list_schema",
    ListTasksConfig: "list_tasks_schema",
    CatalogueConfig: "catalogue",
    ImportConfig: "import_schema",
    ExportConfig: "export_schema",
}
"""What the configuration of a command calls its schema."""


def register_schema(schema: type) -> None:
    """Register the schema of a command with Hydra."""
    config: DictConfig = OmegaConf.structured(schema)
    if issubclass(schema, ModelOptions):
        OmegaConf.set_struct(config.model.quantization, False)  # any key: transformers knows which exist for a method
    ConfigStore.instance().store(name=_NAMES[schema], node=config)


def typed_config(cfg: DictConfig, schema: type[Schema]) -> Schema:
    """Return a composed configuration as an instance of its schema.

    Raises:
        ConfigError: If it has a key that the schema lacks (Hydra lets `+key=value` add one anywhere), lacks a key
            without a default, or has a lone surrogate in a string.
    """
    try:
        for missing in sorted(OmegaConf.missing_keys(cfg)):
            raise ConfigError(f"{missing}: a value is required ({missing}=…)")
        _reject_added_keys(cfg, schema, "")
        for keys, value in walk_leaves(OmegaConf.to_container(cfg, resolve=True)):
            require_valid_unicode(".".join(map(str, keys)), value)
        return typing.cast("Schema", OmegaConf.to_object(cfg))
    except OmegaConfBaseException as error:  # an interpolation that cannot be resolved
        place = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(f"{place}{str(error).splitlines()[0]}") from None


def _reject_added_keys(node: Any, schema: Any, path: str) -> None:
    """Raise ConfigError for a key that the schema lacks, at any depth."""
    if isinstance(schema, type) and is_dataclass(schema) and OmegaConf.is_config(node):
        hints = typing.get_type_hints(schema)
        for key in node:
            if key not in hints:
                raise ConfigError(
                    describe_unknown_key(f"{path}{key}", [f"{path}{field.name}" for field in fields(schema)])
                )
            _reject_added_keys(node[key], hints[key], f"{path}{key}.")
    elif typing.get_origin(schema) is dict and OmegaConf.is_config(node):
        for key in node:
            _reject_added_keys(node[key], typing.get_args(schema)[1], f"{path}{key}.")


def require_valid_unicode(place: str, value: Any) -> None:
    """Raise ConfigError if a value is a string with a lone surrogate."""
    if isinstance(value, str) and (found := find_lone_surrogate(value)):
        raise ConfigError(f"{place}: contains {found}")


def takes_string(schema: type, key: str) -> bool:
    """Return whether the value of a key, such as `task.qa.instruction`, can be a string."""
    kind = find_type(schema, key.split("."))
    return is_string(kind) or kind is Strings


def is_string(kind: Any) -> bool:
    """Return whether a type is `str` or `str | None`."""
    return kind in (str, str | None)


def walk_leaves(value: Any, keys: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield each leaf of nested mappings and lists with the keys and indices that lead to it."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from walk_leaves(item, (*keys, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from walk_leaves(item, (*keys, index))
    else:
        yield keys, value


def find_type(schema: Any, keys: Sequence[str | int]) -> Any:
    """Return the type at the end of a path of keys and list indices; None if the schema does not define it."""
    for key in keys:
        if is_dataclass(schema):
            schema = typing.get_type_hints(schema, include_extras=True).get(str(key))
        elif typing.get_origin(schema) in (dict, list):
            schema = typing.get_args(schema)[-1]
        else:
            schema = str if schema is Strings and isinstance(key, int) else None
    return schema
