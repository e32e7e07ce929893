"""Find the tasks that can be chosen, packaged and a user's own, without reading their data."""

from collections.abc import Sequence
from pathlib import Path

from icl_eval.config.composing import compose_tasks
from icl_eval.config.schema import TaskConfig
from icl_eval.config.setup import conf_dir
from icl_eval.errors import ConfigError

_AT_ONCE = 8
"""The number of tasks that are composed together in the least time."""


def find_tasks(folders: Sequence[Path]) -> dict[str, TaskConfig]:
    """Return every task by the name that chooses it; of a file with several, each with its own name in parentheses.

    Args:
        folders: The config folders of the user.

    Raises:
        ConfigError: If a file is invalid.
    """
    tasks: dict[str, TaskConfig] = {}
    packaged = _list_names(conf_dir())
    for start in range(0, len(packaged), _AT_ONCE):
        tasks |= compose_tasks(packaged[start : start + _AT_ONCE])
    for folder in folders:
        for name in _list_names(folder):
            chosen = compose_tasks([name], folders)
            if not chosen:
                raise ConfigError(f"{folder / 'task' / name}.yaml: contains no task")
            tasks |= {name if len(chosen) == 1 else f"{name} ({own})": task for own, task in chosen.items()}
    return tasks


def _list_names(folder: Path) -> list[str]:
    group = folder / "task"
    return sorted(
        path.relative_to(group).with_suffix("").as_posix() for path in group.rglob("*.yaml") if path.is_file()
    )
