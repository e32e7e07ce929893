"""Turn overrides such as `num_fewshot=4` into a configuration, on the command line and from Python."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import JobRuntime
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from icl_eval.config.arguments import read_arguments
from icl_eval.config.collisions import require_distinct_choices
from icl_eval.config.explaining import explaining_errors
from icl_eval.config.overrides import escape_interpolation, is_override, is_sweep
from icl_eval.config.schema import CatalogueConfig, DataConfig, TaskConfig, register_schema, typed_config
from icl_eval.config.setup import conf_dir, naming_command, register_resolvers
from icl_eval.errors import ConfigError

if TYPE_CHECKING:
    from icl_eval.models.loading import LanguageModel
    from icl_eval.tasks.loading import Task

IN_MEMORY_CONFIG = TaskConfig(pool=DataConfig("(in memory)"), test=DataConfig("(in memory)"))
"""The configuration of a task whose rows are in memory."""

_LOCK = RLock()
"""Hydra composes in global variables, and threads may call the Python interface at the same time."""


@dataclass(frozen=True)
class InMemory:
    """Objects that the caller passes instead of having them built from the configuration."""

    model: "LanguageModel | None" = None
    tasks: Mapping[str, "Task"] = field(default_factory=dict)


@dataclass(frozen=True)
class ComposedConfig:
    """A composed configuration and what Hydra knows about how it was composed."""

    cfg: DictConfig
    """The keys of the command, without Hydra's own."""
    choices: Mapping[str, Any] = field(default_factory=dict)
    """The config chosen in each config group."""
    search_path: tuple[Path, ...] = ()
    """Folders in which relative data paths are resolved."""
    overrides: tuple[str, ...] = ()
    """The overrides, as typed on the command line."""
    folder: Path = Path()
    """Where results are written."""
    in_memory: InMemory = InMemory()


def describe_job(cfg: DictConfig, in_memory: InMemory = InMemory()) -> ComposedConfig:
    """Return what Hydra composed for the running job.

    Raises:
        ConfigError: If two of the chosen files would silently replace one another.
    """
    hydra = HydraConfig.get()
    own = ("hydra", "main", "schema")
    added = [Path(source.path) for source in hydra.runtime.config_sources if source.provider not in own]
    require_distinct_choices(has_own_files=bool(added))
    return ComposedConfig(
        cfg=cfg,
        choices=hydra.runtime.choices,
        search_path=(Path.cwd(), *added),
        overrides=tuple(cast("list[str]", OmegaConf.to_container(hydra.overrides.task))),  # `${…}` is not resolved
        folder=Path(hydra.runtime.output_dir),
        in_memory=in_memory,
    )


def compose_words(
    words: Sequence[str], config_name: str, schema: type, in_memory: InMemory = InMemory()
) -> ComposedConfig:
    """Compose a configuration in this process, as the command line would, and restore Hydra's state afterwards.

    Args:
        words: The arguments, as typed on the command line.
        config_name: The command's configuration, such as `evaluate`.
        schema: The schema of that configuration.
        in_memory: A model and tasks in memory. Tasks can be chosen by name.

    Raises:
        ConfigError: If an argument is invalid. The message says what is allowed.
    """
    register_schema(schema)
    register_resolvers()
    for word in words:
        if not is_override(word):
            raise ConfigError(f"{word!r}: options must be written as key=value, such as 'decoding=sample'")
        if is_sweep(word):
            raise ConfigError(f"{word}: must be a single value; to sweep, call the function once for each value")
    with _LOCK, explaining_errors(words), _registering(in_memory.tasks), naming_command(words):
        overrides = read_arguments(words, schema)
        with _borrowing_hydra(), initialize_config_dir(str(conf_dir()), version_base="1.3", job_name="icl-eval"):
            cfg = compose(config_name, overrides=overrides, return_hydra_config=True)
            if cfg.hydra.mode == RunMode.MULTIRUN:
                raise ConfigError("experiment: this preset is a sweep; call `evaluate` once for each of its cells")
            cfg.hydra.runtime.output_dir = cfg.hydra.run.dir
            cfg.hydra.job.config_name = config_name
            HydraConfig.instance().set_config(cfg)
            own = copy.deepcopy(cfg)
            with read_write(own), open_dict(own):
                del own["hydra"]
            return describe_job(own, in_memory)


def compose_tasks(names: Sequence[str], folders: Sequence[Path] = ()) -> dict[str, TaskConfig]:
    """Compose tasks alone, without the options of a run, and return them by the names of their packages.

    A file may choose other tasks in its defaults list; these are returned, too.

    A value that a task leaves to the command line is an ellipsis.

    Args:
        names: The tasks; a few at once, because the time grows with the square of their number.
        folders: The config folders of the user.

    Raises:
        ConfigError: If a task is invalid.
    """
    register_schema(CatalogueConfig)
    register_resolvers()
    words = [f"+task={_format_value(list(names))}"]
    if folders:
        words.append(f"hydra.searchpath={_format_value(folders)}")
    folder = str(conf_dir())
    with _LOCK, explaining_errors(words), _borrowing_hydra(), initialize_config_dir(folder, version_base="1.3"):
        cfg = compose("catalogue", overrides=words)
        for key in OmegaConf.missing_keys(cfg):
            OmegaConf.update(cfg, key, "…")
        return typed_config(cfg, CatalogueConfig).task


@contextmanager
def _borrowing_hydra() -> Iterator[None]:
    """Clear Hydra's global variables for a block and then restore them, since the caller may be a Hydra application."""
    app, job = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    runtime = copy.deepcopy(JobRuntime.instance().conf)
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = app, job
        JobRuntime.instance().conf = runtime


@contextmanager
def _registering(tasks: Mapping[str, "Task"]) -> Iterator[None]:
    """Make in-memory tasks available to Hydra next to the files of `conf/task`, for a block."""
    for name in tasks:
        if (conf_dir() / "task" / f"{name}.yaml").exists():
            raise ConfigError(f"task={name}: a packaged task has this name; rename the task in memory")
    store = ConfigStore.instance()
    before = dict(store.repo.get("task", {}))  # of a caller that is a Hydra application
    for task in tasks.values():
        node: dict[str, Any] = {
            "defaults": [{"/metrics@metrics": ["exact_match"]}, "_self_"],
            "pool": {"path": IN_MEMORY_CONFIG.pool.path},
            "test": {"path": IN_MEMORY_CONFIG.test.path},
            "instruction": escape_interpolation(task.instruction),
            "labels": {name: escape_interpolation(label) for name, label in task.labels.items()},
        }
        store.store(group="task", name=task.name, package=f"task.{task.name}", node=node)
    try:
        yield
    finally:
        if tasks:
            store.repo["task"] = before


def as_words(options: Mapping[str, Any]) -> list[str]:
    """Return keyword options as command-line overrides.

    The value for a config group is the name of one of its configs, or a list of names. A model that is not the name of
    a packaged config is taken as a source.

    >>> as_words({"num_fewshot": 4, "task": ["qa", "math"], "model": "./mine", "limit": None})
    ['num_fewshot=4', 'task=[qa,math]', "model.source='./mine'", 'limit=null']
    """
    return [_format_override(key, value) for key, value in options.items()]


def _format_override(key: str, value: Any) -> str:
    if key == "model" and isinstance(value, str) and not (conf_dir() / "model" / f"{value}.yaml").exists():
        return f"model.source={_format_value(value)}"
    if (conf_dir() / key).is_dir():
        names = value if isinstance(value, list | tuple) else [value]
        if not all(name is None or isinstance(name, str) for name in names):
            raise ConfigError(f"{key}={value!r}: must be the name of a config in conf/{key}, or a list of names")
        joined = ",".join("null" if name is None else name for name in names)
        return f"{key}=[{joined}]" if isinstance(value, list | tuple) else f"{key}={joined}"
    return f"{key}={_format_value(value)}"


def _format_value(value: Any) -> str:
    """Return a value in Hydra's grammar. Strings are quoted, so that Hydra takes them literally."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Integral):  # of NumPy, too
        return repr(int(value))
    if isinstance(value, Real):
        return repr(float(value))
    if isinstance(value, str | Path):
        return str(QuotedString(str(value), Quote.single).with_quotes())
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_format_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_format_value, value)) + "]"
    raise ConfigError(f"{value!r}: an option must be a string, a number, a bool, None, or a list or dict of these")
