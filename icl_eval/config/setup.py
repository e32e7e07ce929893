"""What Hydra has to know of us before it composes: where the configs are, what a run's folder is called."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from omegaconf import OmegaConf

from icl_eval.config.overrides import is_override
from icl_eval.formatting import shorten_name

_COMMAND_NAME = "ICL_EVAL_COMMAND_NAME"
"""Environment variable, so that the worker processes of a sweep see what their parent decided."""


def conf_dir() -> Path:
    """Return the folder of our configs: inside an installed package, else at the top of the checkout."""
    return _beside("conf")


def _beside(name: str) -> Path:
    package = Path(__file__).resolve().parents[1]
    return package / name if (package / name).is_dir() else package.parent / name


def register_resolvers() -> None:
    """Make `${packaged_data:…}`, `${command_name:}` and `${slug:…}` known to OmegaConf."""
    OmegaConf.register_new_resolver("packaged_data", lambda path: str(_beside("data") / path), replace=True)
    OmegaConf.register_new_resolver("command_name", lambda: os.environ.get(_COMMAND_NAME, "default"), replace=True)
    OmegaConf.register_new_resolver("slug", slug, replace=True)


def set_command_name(arguments: Sequence[str]) -> None:
    """Name the run after its overrides, so that the same command finds the same folder again."""
    overrides = sorted(
        argument
        for argument in arguments
        if is_override(argument) and not argument.startswith(("hydra.", "hydra/", "+hydra."))
    )
    os.environ[_COMMAND_NAME] = slug(",".join(overrides))


@contextmanager
def named_command(arguments: Sequence[str]) -> Iterator[None]:
    """Name the run after its overrides, as `set_command_name` does, for the time of a block."""
    before = os.environ.get(_COMMAND_NAME)
    set_command_name(arguments)
    try:
        yield
    finally:
        os.environ.pop(_COMMAND_NAME)
        if before is not None:
            os.environ[_COMMAND_NAME] = before


def slug(text: str) -> str:
    """Return a text as a short file name: readable, and with a digest where something had to go.

    >>> slug("num_fewshot=4")
    'num_fewshot=4'
    """
    clean = re.sub(r"[^\w.,=\[\]+-]", "_", text)
    if not text:
        return "default"
    return clean if clean == text and len(text.encode()) <= 80 else shorten_name(clean, text, 70)
