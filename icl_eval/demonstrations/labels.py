"""Labels: what a pool's examples are answered with, where that is one of a few."""

from collections.abc import Sequence

from icl_eval.errors import ConfigError
from icl_eval.tasks.examples import Example, Task

MIN_EXAMPLES_PER_LABEL = 2
"""Of a pool, on average; below it answers hardly ever repeat, and are no labels."""


def label_of(example: Example) -> str:
    """Return what an example's answer is shown as: its first reference."""
    return example.references[0]


def read_labels(task: Task, wanted_by: str) -> Sequence[str]:
    """Return the distinct labels of a task's pool, sorted.

    Args:
        task: Whose pool is read.
        wanted_by: The option that needs labels, for the message.

    Raises:
        ConfigError: When the pool has only one answer, or so many that they are no label set.
    """
    labels = sorted({label_of(candidate) for candidate in task.pool})
    found = f"{wanted_by}: the pool of task '{task.name}' has {len(labels)} distinct answers in {len(task.pool)} rows"
    if len(labels) < 2:
        raise ConfigError(f"{found}; at least 2 labels are needed")
    if len(labels) * MIN_EXAMPLES_PER_LABEL > len(task.pool):
        raise ConfigError(f"{found}, which is no set of labels (at least {MIN_EXAMPLES_PER_LABEL} rows for each)")
    return labels
