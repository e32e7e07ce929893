"""Labels: the answers of a pool whose examples have one of a few answers, as in classification."""

from collections.abc import Sequence

from icl_eval.errors import ConfigError
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

MIN_EXAMPLES_PER_LABEL = 2
"""Minimum average number of examples per distinct answer; below it, the answers do not count as labels."""


def label_of(example: Example) -> str:
    """Return the label of an example: its first reference, which is the one that demonstrations show."""
    return example.references[0]


def kind_of(example: Example, match_field: str | None) -> str | None:
    """Return the value of the input field in which demonstrations must match the question; None without one."""
    return None if match_field is None else example.inputs[match_field]


def read_labels(task: Task, wanted_by: str) -> Sequence[str]:
    """Return the distinct labels of a task's pool, sorted.

    Args:
        task: The task.
        wanted_by: The option that needs labels, for error messages.

    Raises:
        ConfigError: If the pool has only one distinct answer, or too many to be a label set.
    """
    labels = sorted({label_of(candidate) for candidate in task.pool})
    counts = f"{wanted_by}: the pool of task '{task.name}' has {len(labels)} distinct answers in {len(task.pool)} rows"
    if len(labels) < 2:
        raise ConfigError(f"{counts}; at least 2 labels are needed")
    if len(labels) * MIN_EXAMPLES_PER_LABEL > len(task.pool):
        raise ConfigError(f"{counts}; a set of labels needs at least {MIN_EXAMPLES_PER_LABEL} rows per label")
    return labels
