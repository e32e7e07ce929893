"""Record what a run depends on, and refuse to mix different runs in one folder."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import icl_eval
from icl_eval.errors import FingerprintMismatchError
from icl_eval.formatting import list_names
from icl_eval.runs.folders import PAGE_FILE, REPORT_FILE, name_records
from icl_eval.runs.migration import upgrade_identity
from icl_eval.runs.reports import write_json

_FOLDER_OPTION = "hydra.run.dir=… (in Python folder=…)"
_PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "evaluate", "hydra-core", "sacrebleu")


def read_versions(also: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions of Python, of this package and of the libraries that results depend on.

    Args:
        also: More libraries; those that are not installed are left out.
    """
    versions = {"python": platform.python_version(), "icl_eval": icl_eval.__version__}
    versions |= {package: _read_version(package) for package in _PACKAGES}
    installed = (package for package in also if any(metadata.distributions(name=package)))
    return versions | {package: _read_version(package) for package in installed}


@cache
def _read_version(package: str) -> str:
    return metadata.version(package)


@cache
def digest_code() -> str:
    """Return a digest of the files of this package, which change without its version in a checkout."""
    root = Path(icl_eval.__file__).parent
    whole = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.parent.name != "__pycache__":
            whole.update(f"{path.relative_to(root)}\n{path.stat().st_size}\n".encode())
            whole.update(path.read_bytes())
    return whole.hexdigest()


def read_git_commit() -> str | None:
    """Return the commit of the checkout that the package runs from; None for an installed copy."""
    root = Path(icl_eval.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def read_clock() -> str:
    """Return the current time in UTC: `2026-11-29T15:43:04.152543+00:00`."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def describe_host() -> dict[str, Any]:
    """Return the properties of this machine that timings depend on: platform, processor, cores and accelerator."""
    import torch

    return {
        "platform": platform.platform(),
        "processor": _read_processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _read_processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Return a digest of a run's identity, the flat options that determine its records."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def require_same_identity(path: Path, identity: Mapping[str, Any], option: str = _FOLDER_OPTION) -> None:
    """Compare an identity with the one stored in a folder, or store it if the folder is new.

    Args:
        path: The file of the stored identity, in the folder of the run.
        identity: The flat options that determine the run's records.
        option: How another folder is chosen, for error messages.

    Raises:
        FingerprintMismatchError: If they differ, or if the folder has results but no stored identity. The message names
            the differing keys or the files.
    """
    choose = f"choose another folder with {option}"
    if path.exists():
        stored = _read_identity(path, choose)
        earlier = upgrade_identity(stored, identity.get("template"))
        differing = sorted(
            key
            for key in earlier.keys() | identity.keys()
            if json.dumps(earlier.get(key)) != json.dumps(identity.get(key))
        )
        if differing == ["template.date"] and earlier.get("template.date"):
            raise FingerprintMismatchError(_explain_day(path.parent, earlier, identity, choose))
        if differing:
            shown = "; ".join(f"{key}: {earlier.get(key)!r} there, {identity.get(key)!r} now" for key in differing[:5])
            more = f" and {len(differing) - 5} more" if len(differing) > 5 else ""
            raise FingerprintMismatchError(
                f"{path.parent} contains a run with other options ({shown}{more}); {choose} or delete this one"
            )
        if earlier == stored:
            return
    else:
        _require_no_results(path.parent, choose)
    write_json(dict(identity), path)


def _explain_day(folder: Path, earlier: Mapping[str, Any], identity: Mapping[str, Any], choose: str) -> str:
    """Return a message about prompts that show another date."""
    there, now = earlier["template.date"], identity.get("template.date")
    return (
        f"{folder} contains a run whose prompts show the date {there}, but the current prompts show {now}; resume with "
        f"template.date={there}, or {choose}"
    )


def _read_identity(path: Path, choose: str) -> dict[str, Any]:
    try:
        identity = json.loads(path.read_bytes())
        if not isinstance(identity, dict):
            raise ValueError(f"a {type(identity).__name__} instead of an object")
    except ValueError as error:
        raise FingerprintMismatchError(
            f"{path}: not a JSON object that identifies a run ({error}); {choose} or delete this one"
        ) from None
    return identity


def _require_no_results(folder: Path, choose: str) -> None:
    """Reject a folder with files that a run would overwrite, if no fingerprint identifies them."""
    present = sorted(
        path.name for pattern in (REPORT_FILE, PAGE_FILE, name_records("*")) for path in folder.glob(pattern)
    )
    if present:
        raise FingerprintMismatchError(
            f"{folder} contains {list_names(present)} but no fingerprint.json that identifies the run; {choose} or "
            "move these files"
        )
