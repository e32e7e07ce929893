"""Files of configs: what may be read at all, looked at before Hydra composes anything from it.

An alias of YAML (`*name`) stands for all that its anchor (`&name`) holds, and OmegaConf copies it each time: nine lines
of nine aliases each are a billion nodes.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from icl_eval.config.permissions import KEYWORDS, require_permitted
from icl_eval.config.setup import conf_dir
from icl_eval.errors import ConfigError

_MAX_BYTES = 2**18
_MAX_NODES = 10_000
"""Of a file, with each alias counted as what it stands for."""
_MAX_DEPTH = 50
_MAX_JOINED = 16
"""Of the interpolations (`${name}`) in values that have two or more: each such value can double another one."""


def require_readable_files(folders: Sequence[Path]) -> None:
    """Refuse YAML files of a user's that are not text, have no end, or unfold to more than a configuration can be.

    What is no YAML is passed over: Hydra names it, where it is chosen.

    Raises:
        ConfigError: Naming the file, what is in it and what may be.
    """
    for folder, path in _config_files(folders):
        _require_name(path)
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{path}: a pipe or a device, but configs are read from files")
        if found.st_size > _MAX_BYTES:
            raise ConfigError(f"{path}: {found.st_size} bytes, but a file of configs may have {_MAX_BYTES}")
        _require_bounded(path, _read(path))
        if path.parent != folder:  # others are in no group, and are never chosen
            require_permitted(folder, path)


def _config_files(folders: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield the files of groups that we have, after their folder, which may hold others that do not concern us."""
    groups = sorted(group.name for group in conf_dir().iterdir() if group.is_dir())
    for folder in folders:
        for path in (*folder.glob("*.yaml"), *(path for name in groups for path in _yaml_files(folder / name))):
            if path.exists() and not path.is_dir():
                yield folder, path


def _yaml_files(group: Path) -> Iterator[Path]:
    """Yield the files of a group, also behind links, which Hydra follows."""
    seen: set[str] = set()
    for place, folders, names in os.walk(group, followlinks=True):
        for name in folders:
            _require_name(Path(place, name))
        folders[:] = sorted(name for name in folders if os.path.realpath(Path(place, name)) not in seen)
        seen |= {os.path.realpath(Path(place, name)) for name in folders}
        yield from sorted(Path(place, name) for name in names if name.endswith(".yaml"))


def _require_name(path: Path) -> None:
    if not path.name.isprintable():
        raise ConfigError(f"{str(path)!r}: names of configs are shown, and this one cannot be")
    if any(keyword in path.name for keyword in KEYWORDS):
        raise ConfigError(f"{path}: Hydra has a meaning of its own for {', '.join(KEYWORDS)}; choose another name")


def _read(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 (byte 0x{content[error.start]:02x} at {error.start})") from None


def _require_bounded(path: Path, text: str) -> None:
    joined = 0
    try:
        for event, size, depth in _unfolded(text):
            where = f"{path}:{event.start_mark.line + 1}"
            if size > _MAX_NODES:
                raise ConfigError(f"{where}: aliases unfold to more than {_MAX_NODES} values")
            if depth > _MAX_DEPTH:
                raise ConfigError(f"{where}: nested more than {_MAX_DEPTH} deep")
            if isinstance(event, yaml.ScalarEvent):
                _require_text(where, event.value)
                joined += event.value.count("${") if event.value.count("${") > 1 else 0
            if joined > _MAX_JOINED:
                raise ConfigError(f"{where}: more than {_MAX_JOINED} interpolations in values with several of them")
    except yaml.reader.ReaderError as error:
        raise ConfigError(f"{path}: not YAML (the character {chr(error.character)!r} at {error.position})") from None
    except yaml.YAMLError:
        return


def _require_text(where: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:  # YAML can escape one half of a pair, and a tokenizer cannot read it
        raise ConfigError(f"{where}: half a character ({value[error.start]!r}) in it") from None


def _unfolded(text: str) -> Iterator[tuple[yaml.Event, int, int]]:
    """Yield each event of a text with how many values there are up to it, and how deep it is nested."""
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
