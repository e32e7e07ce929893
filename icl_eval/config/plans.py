"""Plans: a task with its data, and how it is asked and scored."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from icl_eval.config.composing import IN_MEMORY_CONFIG, Composed
from icl_eval.config.options import MOST_NEW_TOKENS, least_new_tokens_of, require_at_most
from icl_eval.config.schema import DataConfig, RunConfig, TaskConfig
from icl_eval.decoding.searches import check_stop
from icl_eval.demonstrations import Demonstration, FewShot, Selection, build_shown
from icl_eval.errors import ConfigError
from icl_eval.evaluation.preparation import TaskPlan
from icl_eval.metrics.building import build_metrics
from icl_eval.postprocessing import POSTPROCESSORS, Strip
from icl_eval.targets import build
from icl_eval.tasks.examples import Example, Task, load_task
from icl_eval.tasks.rows import DataSource

_MAX_ROWS = 1_000_000_000
_MAX_NAME_BYTES = 200
"""Of a task's name: file systems count a file name in bytes, to 255, and `samples_NAME.jsonl` is one."""


def find_task(name: str, config: TaskConfig, composed: Composed) -> Task:
    """Return a task with its data, in memory or read from its files; raises ConfigError and DataError."""
    key = f"task.{name}"
    if not re.fullmatch(r"[\w.-]+", name):
        raise ConfigError(f"{key}: a task's name becomes a file name; use letters, digits, '_', '-' and '.'")
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise ConfigError(
            f"{key}: a task's name becomes a part of a file name; it has {len(name.encode())} bytes in UTF-8, and may "
            f"have {_MAX_NAME_BYTES}"
        )
    if name in composed.brought.tasks:
        for part in ("pool", "test", "fields"):
            if getattr(config, part) != getattr(IN_MEMORY_CONFIG, part):
                raise ConfigError(f"{key}.{part}: the rows of this task are in memory; give {part} to Task.of_rows")
        return replace(composed.brought.tasks[name], instruction=config.instruction, labels=config.labels)
    return load_task(
        name,
        instruction=config.instruction,
        labels=config.labels,
        pool=_data_source(f"{key}.pool", config.pool, composed.search_path),
        test=_data_source(f"{key}.test", config.test, composed.search_path),
        fields=config.fields,
    )


def build_plan(task: Task, config: TaskConfig, run: RunConfig, few_shot: FewShot) -> TaskPlan:
    """Build what asks and scores a task; raises ConfigError."""
    key = f"task.{task.name}"
    max_new_tokens = _max_new_tokens(key, config, run)
    metrics, metrics_key = (run.metrics, "metrics") if run.metrics else (config.metrics, f"{key}.metrics")
    if not max_new_tokens:
        metrics = {}  # there are no predictions
    elif not metrics:
        raise ConfigError(f"{metrics_key}: at least one metric is needed")
    postprocessing, postprocessing_key = (
        (run.postprocessing, "postprocessing")
        if run.postprocessing
        else (config.postprocessing, f"{key}.postprocessing")
    )
    stop = config.stop if run.decoding.get("stop") is None else run.decoding["stop"]
    try:
        check_stop(stop)
    except ConfigError as error:
        raise ConfigError(f"{key}.{error}") from None
    examples = _limited(task.examples, run.limit)
    select = _remembered(build_shown(task, few_shot, config.match_field))
    if few_shot.selector.encoder is None:  # no weights are needed, so a pool too small is said at once
        for example in examples:
            select(example)
    return TaskPlan(
        task=task,
        examples=examples,
        match_field=config.match_field,
        select=select,
        stop=tuple(stop),
        max_new_tokens=max_new_tokens,
        postprocess=build(postprocessing, postprocessing_key, POSTPROCESSORS) if postprocessing else Strip(),
        build_metrics=lambda: build_metrics(metrics, metrics_key),
    )


def _remembered(select: Selection) -> Selection:
    """Return a selection that selects once for each question."""
    selected: dict[str, tuple[Demonstration, ...]] = {}

    def select_once(example: Example) -> tuple[Demonstration, ...]:
        if example.id not in selected:
            selected[example.id] = select(example)
        return selected[example.id]

    return select_once


def _max_new_tokens(key: str, config: TaskConfig, run: RunConfig) -> int:
    """Return how many tokens a task's completions may have; 0 where answers are only scored by their likelihood."""
    max_new_tokens = config.max_new_tokens if run.max_new_tokens is None else run.max_new_tokens
    if max_new_tokens < least_new_tokens_of(run):
        raise ConfigError(f"{key}.max_new_tokens={max_new_tokens}: must be {least_new_tokens_of(run)} or more")
    require_at_most(f"{key}.max_new_tokens", max_new_tokens, MOST_NEW_TOKENS)
    pointless = {
        "metrics": run.metrics,
        "postprocessing": run.postprocessing,
        "decoding.stop": run.decoding.get("stop"),
    }
    for name, value in pointless.items():
        if not max_new_tokens and value:
            raise ConfigError(f"{name}: it is of no use with max_new_tokens=0, which decodes nothing ({key})")
    return max_new_tokens


def _data_source(key: str, config: DataConfig, search_path: Sequence[Path]) -> DataSource:
    """Return the source, with a relative path completed by the first folder that holds it."""
    if config.max_rows < 1:
        raise ConfigError(f"{key}.max_rows={config.max_rows}: must be 1 or more")
    require_at_most(f"{key}.max_rows", config.max_rows, _MAX_ROWS)
    path = next((str(folder / config.path) for folder in search_path if (folder / config.path).exists()), None)
    return DataSource(path or config.path, config.name, config.split, config.max_rows)


def _limited(examples: tuple[Example, ...], limit: int | float | None) -> tuple[Example, ...]:
    if isinstance(limit, float):
        limit = math.ceil(limit * len(examples))
    return examples[:limit]
