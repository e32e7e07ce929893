"""The command `icl-eval list tasks`: prints a table of the tasks that can be chosen."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from icl_eval.config.catalogue import find_tasks
from icl_eval.config.plans import NUM_FEWSHOT
from icl_eval.config.schema import DataConfig, TaskConfig
from icl_eval.config.setup import data_dir
from icl_eval.evaluation.answers import LIKELIHOODS
from icl_eval.formatting import count_noun
from icl_eval.reporting.terminal import open_console
from icl_eval.targets import name_target

_SCORES = {"channel": "choice_accuracy", "choices": "choice_accuracy", "references": "reference_perplexity"}
"""The score to look at first, by kind of likelihood."""


def print_tasks(folders: Sequence[Path]) -> None:
    """Print one row per task, by kind.

    Args:
        folders: The config folders of the user.

    Raises:
        ConfigError: When a file of the user's is no task.
    """
    tasks = find_tasks(folders)
    table = Table(title=count_noun(len(tasks), "task"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("task", no_wrap=True)
    table.add_column("scores")
    for column in ("k", "pool", "test"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("data and licence", overflow="fold")
    for kind in sorted({task.card.kind or "" for task in tasks.values()}):
        table.add_row(Text(kind, style="bold"))
        for name, task in sorted(tasks.items()):
            if (task.card.kind or "") == kind:
                table.add_row(f"  {name}", *_describe(name, task))
    open_console().print(table)


def _describe(name: str, task: TaskConfig) -> Iterator[str]:
    scores = ", ".join(_list_scores(name, task))
    yield scores
    default = NUM_FEWSHOT if scores else ""  # another harness decides for its own tasks
    yield str(default if task.num_fewshot is None else task.num_fewshot)
    for size in (task.card.pool_size, task.card.test_size):
        yield "" if size is None else str(size)
    yield f"{_describe_source(task.test)}, {task.card.licence or 'no licence stated'}"


def _list_scores(name: str, task: TaskConfig) -> Iterator[str]:
    if task.likelihood:
        yield _SCORES[name_target(task.likelihood, f"task.{name}.likelihood", LIKELIHOODS)["name"]]
    if task.max_new_tokens:
        yield from task.metrics


def _describe_source(data: DataConfig) -> str:
    if Path(data.path).is_relative_to(data_dir()):
        return "packaged"
    return data.path if data.name is None else f"{data.path} {data.name}"
