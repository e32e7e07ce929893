"""Choose where the results of a command are written, so that nothing else is overwritten."""

import json
from pathlib import Path

from icl_eval.errors import ConfigError


def require_json_file(output: str, page: bool) -> Path:
    """Return the path that `output` names.

    Args:
        output: The path of a JSON file in an existing folder.
        page: Whether a page is written next to it.

    Raises:
        ConfigError: If it is no such path.
    """
    path = Path(output)
    if path.suffix != ".json":
        note = " (the page is written next to it, with suffix .html)" if page else ""
        raise ConfigError(f"output={output}: must end in .json{note}")
    if not path.parent.is_dir():
        raise ConfigError(f"output={output}: folder {path.parent} does not exist")
    return path


def require_own(path: Path, what: str, keys: set[str], page: bool) -> None:
    """Check that only earlier results of the same command would be overwritten.

    Args:
        path: Where the results will be written, as JSON.
        what: What they are, such as `a comparison`.
        keys: Keys by which such results are recognised.
        page: Whether a page is written next to them.

    Raises:
        ConfigError: If something else would be overwritten.
    """
    targets = [path, path.with_suffix(".html")] if page else [path]
    existing = [target for target in targets if target.exists()]
    if existing and not _has_keys(path, keys):
        raise ConfigError(f"output={path}: {existing[0]} exists and is not {what}; choose another name")


def _has_keys(path: Path, keys: set[str]) -> bool:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and keys <= content.keys()
