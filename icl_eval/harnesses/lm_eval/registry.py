"""The registry: finding lm-evaluation-harness's tasks by name, by pattern or as a file, and loading them.

Its 14,000 names are spread over as many files, and reading all of them takes seconds. Which folder defines a name is
therefore kept in the cache, for one version of the library; only the folders that are asked for are read again.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import StringIO
from pathlib import Path
from typing import Any

from icl_eval.errors import ConfigError, DataError
from icl_eval.formatting import describe_error, suggest_name
from icl_eval.harnesses.lm_eval.consent import require_consent
from icl_eval.harnesses.lm_eval.installation import require_lm_eval
from icl_eval.models.weights.cache import cache_folder
from icl_eval.runs.writing import write_whole
from icl_eval.tasks.rows import asking_hub

_SOME_DATA_SET = "openai/gsm8k"
"""A data set that is only asked for to see whether the hub responds."""


@dataclass(frozen=True)
class LoadedTasks:
    """Tasks and groups as lm-evaluation-harness loads them."""

    tasks: Mapping[str, Any]
    """`lm_eval.api.task.Task` by name; a group stands for all of its tasks."""
    groups: Mapping[str, Any]
    """`lm_eval.api.group.Group` by name, with those inside other groups."""


def load_tasks(
    key: str, names: Sequence[str], include_path: str | None = None, trust_remote_code: bool = False
) -> LoadedTasks:
    """Load tasks with their data.

    Args:
        key: The configuration key of the names, for error messages.
        names: Names of tasks, groups or tags, patterns such as `mmlu_*`, and paths of YAML files.
        include_path: A folder with YAML files of the user, whose names precede those of the library.
        trust_remote_code: Whether files of the user may run Python.

    Raises:
        ConfigError: If the library is not installed, a name is unknown, or a file runs code without consent.
        DataError: If a task cannot be loaded, for example because its data set is neither local nor reachable.
    """
    require_lm_eval(f"{key}={','.join(names)}")
    places = _read_places()
    own = {} if include_path is None else _read_index([_require_folder(key, include_path)])
    wanted = [found for name in names for found in _match(key, name, {**places, **own})]
    files = {Path(name) for name in wanted if name not in places and name not in own}
    overriding = [name for name in own if name in places]  # they may be members of what is wanted
    files |= {path for name in (*wanted, *overriding) for path in _find_files(name, own)}
    if not trust_remote_code:
        for path in sorted(files):
            require_consent(path, key)
    folders = {places[name] for name in wanted if name in places and name not in own}
    with _quietly(), asking_hub(_SOME_DATA_SET) as explain:
        return _load(key, wanted, [*map(str, sorted(folders)), *([include_path] if include_path else [])], explain)


def library_version() -> str:
    """Return the version of lm-evaluation-harness."""
    from importlib.metadata import version

    return version("lm_eval")


def library_folder() -> Path:
    """Return the folder of the library's own tasks."""
    import lm_eval.tasks

    return Path(lm_eval.tasks.__file__).parent


def _load(
    key: str, names: Sequence[str], folders: Sequence[str], explain: Callable[[BaseException], str]
) -> LoadedTasks:
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=list(folders), include_defaults=False)
    tasks: dict[str, Any] = {}
    groups: dict[str, Any] = {}
    for name in names:
        try:
            loaded = manager.load([name])
        except Exception as error:  # a task is Python of somebody else, which can raise anything
            raise DataError(f"{key}={name}: cannot be loaded ({explain(error)})") from None
        tasks |= loaded["tasks"]
        groups |= loaded["groups"]
    return LoadedTasks(tasks, groups)


def _require_folder(key: str, include_path: str) -> Path:
    folder = Path(include_path).expanduser()
    if not folder.is_dir():
        owner = key.rpartition(".")[0]
        raise ConfigError(f"{owner}.include_path={include_path}: is not a folder")
    return folder.resolve()


def _match(key: str, name: str, places: Mapping[str, Any]) -> list[str]:
    """Return the names that a name, a pattern or a path stands for."""
    if name in places:
        return [name]
    if name.endswith((".yaml", ".yml")):
        if not Path(name).expanduser().is_file():
            raise ConfigError(f"{key}={name}: there is no such file")
        return [str(Path(name).expanduser().resolve())]
    found = [other for other in sorted(places) if fnmatchcase(other, name)] if set(name) & set("*?[") else []
    if not found:
        raise ConfigError(
            f"{key}={name}: lm-evaluation-harness {library_version()} has no such task, group or tag"
            f"{suggest_name(name, places)} (lm-eval ls tasks lists them)"
        )
    return found


def _read_places() -> dict[str, Path]:
    """Return the folder that has to be read for each name of the library."""
    root = library_folder()
    path = cache_folder() / f"lm_eval-{library_version()}.json"
    try:
        stored = json.loads(path.read_bytes())
    except (OSError, ValueError):
        stored = {}
    if stored.get("root") != str(root):
        logging.getLogger(__name__).warning("reading the names of lm-evaluation-harness's tasks, once for this version")
        stored = {"root": str(root), "places": _list_places(root)}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(json.dumps(stored), path)
    return {name: root / place for name, place in stored["places"].items()}


def _list_places(root: Path) -> dict[str, str]:
    """Return the folder of each name, relative to the root: its own, or that which contains all tasks of a tag."""
    index = _read_index([root])
    places = {}
    for name in index:
        folders = {path.relative_to(root).parts[0] for path in _find_files(name, index)}
        places[name] = folders.pop() if len(folders) == 1 else "."
    return places


def _find_files(name: str, index: Mapping[str, Any]) -> set[Path]:
    """Return the files of a task, or those of a group or a tag with all of its members."""
    found, waiting, seen = set(), [name], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in index:
            continue
        seen.add(name)
        entry = index[name]
        if entry.yaml_path is None:
            waiting += entry.tags
        else:
            found.add(Path(entry.yaml_path))
            waiting += _list_members((entry.cfg or {}).get("task"))
    return found


def _list_members(members: Any) -> list[str]:
    """Return the names in a group's list, whose entries are names, or mappings with a name or with another list."""
    if not isinstance(members, list):
        return []
    names = [member for member in members if isinstance(member, str)]
    for member in members:
        if isinstance(member, dict):
            names += [member[kind] for kind in ("task", "group") if isinstance(member.get(kind), str)]
            names += _list_members(member.get("task"))
    return names


def _read_index(folders: Sequence[Path]) -> Mapping[str, Any]:
    """Return the library's entries for the names in folders, read without running anything."""
    from lm_eval.tasks import TaskManager

    places = ", ".join(map(str, folders))
    try:
        with _quietly():
            manager = TaskManager(include_path=list(map(str, folders)), include_defaults=False)
    except Exception as error:  # a name that is no string, for example
        raise DataError(f"{places}: the harness cannot read the names of its tasks ({describe_error(error)})") from None
    strange = [name for name in manager.task_index if not isinstance(name, str)]
    if strange:
        raise DataError(f"{places}: the name of a task is {strange[0]!r}, but must be a string")
    index: Mapping[str, Any] = manager.task_index
    return index


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the library's progress bars and remarks off the terminal."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        logger.setLevel(level)
