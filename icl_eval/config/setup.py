"""Tell Hydra where the configs are and what to call a run's folder."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from omegaconf import OmegaConf

from icl_eval.config.overrides import is_override
from icl_eval.formatting import shorten_name

_COMMAND_NAME = "ICL_EVAL_COMMAND_NAME"
"""Environment variable with the command's name, which the worker processes of a sweep inherit."""

_WITHOUT_A_PLACE_IN_NAMES = ("hydra.", "hydra/", "+hydra.", "engine.base_url=")
"""The beginnings of overrides that do not make another run: the same model may answer at another address."""


def conf_dir() -> Path:
    """Return the packaged config folder: inside an installed package, or at the top of a checkout."""
    return _find_packaged("conf")


def data_dir() -> Path:
    """Return the folder of the packaged data."""
    return _find_packaged("data")


def _find_packaged(name: str) -> Path:
    package = Path(__file__).resolve().parents[1]
    return package / name if (package / name).is_dir() else package.parent / name


def register_resolvers() -> None:
    """Register `${packaged_data:…}`, `${command_name:}` and `${slug:…}` with OmegaConf."""
    OmegaConf.register_new_resolver("packaged_data", lambda path: str(data_dir() / path), replace=True)
    OmegaConf.register_new_resolver("command_name", lambda: os.environ.get(_COMMAND_NAME, "default"), replace=True)
    OmegaConf.register_new_resolver("slug", slug, replace=True)


def set_command_name(arguments: Sequence[str]) -> None:
    """Name the run after its overrides, so that the same command uses the same folder again."""
    overrides = sorted(
        argument
        for argument in arguments
        if is_override(argument) and not argument.startswith(_WITHOUT_A_PLACE_IN_NAMES)
    )
    os.environ[_COMMAND_NAME] = slug(",".join(overrides))


@contextmanager
def naming_command(arguments: Sequence[str]) -> Iterator[None]:
    """Name the run after its overrides within a `with` block, as `set_command_name` does for the process."""
    before = os.environ.get(_COMMAND_NAME)
    set_command_name(arguments)
    try:
        yield
    finally:
        os.environ.pop(_COMMAND_NAME)
        if before is not None:
            os.environ[_COMMAND_NAME] = before


def slug(text: str) -> str:
    """Return a string as a short, readable file name, with a digest if characters had to be removed.

    >>> slug("num_fewshot=4")
    'num_fewshot=4'
    """
    clean = re.sub(r"[^\w.,=\[\]+-]", "_", text)
    if not text:
        return "default"
    return clean if clean == text and len(text.encode()) <= 80 else shorten_name(clean, text, 70)
