"""Check that a user's config files are safe to read before Hydra composes anything from them.

OmegaConf copies the whole content of a YAML anchor (`&name`) for each alias (`*name`), so nine lines of nine aliases
each expand to nearly a billion nodes.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from icl_eval.config.overrides import list_groups
from icl_eval.config.permissions import KEYWORDS, require_permitted
from icl_eval.config.schema import require_valid_unicode
from icl_eval.config.setup import conf_dir
from icl_eval.errors import ConfigError

_MAX_BYTES = 2**18
_MAX_NODES = 10_000
"""Limit on the nodes of a file after aliases are expanded."""
_MAX_DEPTH = 50
_MAX_JOINED = 16
"""Limit on interpolations (`${name}`) in values with two or more of them: each such value can double another one."""


def require_readable_files(folders: Sequence[Path]) -> None:
    """Reject a user's YAML files that are not text, never end, or expand to more than a configuration may hold.

    Files with invalid YAML are skipped: Hydra reports them if they are chosen.

    Raises:
        ConfigError: If a file is rejected. The message names the file, what was found and what is allowed.
    """
    for folder, path in _config_files(folders):
        _require_name(path)
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path}: is a pipe or a device; a config must be a regular file")
        if status.st_size > _MAX_BYTES:
            raise ConfigError(f"{path}: has {status.st_size} bytes; a config file may have at most {_MAX_BYTES}")
        _require_bounded(path, _read(path))
        if path.parent != folder:  # top-level files are in no group and are never chosen
            require_permitted(folder, path)


def _config_files(folders: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield each folder with its top-level files and the files of known groups; other subfolders are ignored."""
    groups = list_groups(conf_dir())
    for folder in folders:
        for path in (*folder.glob("*.yaml"), *(path for name in groups for path in _yaml_files(folder / name))):
            if path.exists() and not path.is_dir():
                yield folder, path


def _yaml_files(group: Path) -> Iterator[Path]:
    """Yield the files of a group, including those behind links, which Hydra follows."""
    seen: set[str] = set()
    for place, folders, names in os.walk(group, followlinks=True):
        for name in folders:
            _require_name(Path(place, name))
        folders[:] = sorted(name for name in folders if os.path.realpath(Path(place, name)) not in seen)
        seen |= {os.path.realpath(Path(place, name)) for name in folders}
        yield from sorted(Path(place, name) for name in names if name.endswith(".yaml"))


def _require_name(path: Path) -> None:
    if not path.name.isprintable():
        raise ConfigError(f"{str(path)!r}: the name of a config must consist of printable characters")
    if any(keyword in path.name for keyword in KEYWORDS):
        raise ConfigError(f"{path}: Hydra reserves the names {', '.join(KEYWORDS)}; choose another name")


def _read(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 (byte 0x{content[error.start]:02x} at {error.start})") from None


def _require_bounded(path: Path, text: str) -> None:
    joined = 0
    try:
        for event, size, depth in _expand(text):
            where = f"{path}:{event.start_mark.line + 1}"
            if size > _MAX_NODES:
                raise ConfigError(f"{where}: expands to more than {_MAX_NODES} values")
            if depth > _MAX_DEPTH:
                raise ConfigError(f"{where}: is nested more than {_MAX_DEPTH} levels deep")
            if isinstance(event, yaml.ScalarEvent):
                require_valid_unicode(where, event.value)
                joined += event.value.count("${") if event.value.count("${") > 1 else 0
            if joined > _MAX_JOINED:
                raise ConfigError(
                    f"{where}: has more than {_MAX_JOINED} interpolations in values that contain two or more"
                )
    except yaml.reader.ReaderError as error:
        raise ConfigError(f"{path}: not YAML (the character {chr(error.character)!r} at {error.position})") from None
    except yaml.YAMLError:
        return


def _expand(text: str) -> Iterator[tuple[yaml.Event, int, int]]:
    """Yield each YAML event with the number of values up to it, aliases expanded, and its nesting depth."""
    sizes: dict[str, int] = {}
    open_parts: list[tuple[str | None, int]] = []
    count = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            holds_itself = event.anchor in (anchor for anchor, _ in open_parts)
            count += _MAX_NODES if holds_itself else sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_parts.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_parts.pop()
            sizes |= {} if anchor is None else {anchor: count - before}
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            sizes |= {} if event.anchor is None else {event.anchor: 1}
        yield event, count, len(open_parts)
