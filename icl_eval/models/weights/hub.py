"""Fetch models from the Hugging Face Hub; files in its local cache are used without the network.

Only missing files are fetched, after one quick request that distinguishes an unknown name, a gated repository and a
missing network. The settings of huggingface_hub apply: HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, proxies.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from icl_eval.errors import ModelUnavailableError
from icl_eval.formatting import describe_error
from icl_eval.models.specs import ModelSpec
from icl_eval.models.weights.folders import (
    ADAPTER_CONFIG,
    ADAPTER_PICKLE,
    ADAPTER_WEIGHTS,
    check_adapter,
    check_tokenizer,
    check_whole,
)

_TIMEOUT_S = 5.0
_DESCRIPTIONS = re.compile(r"(?!.*\.index\.json$).*\.(json|txt|model|jinja)")
_SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
_PICKLES = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin(\.index\.json)?")
_CODE = re.compile(r".*\.py")
_MODULES = re.compile(r"\d+_\w+/(config\.json|model\.safetensors)")
"""Files that sentence-transformers adds to a network, such as `1_Pooling/config.json`."""
_NAMED_CHAT_TEMPLATES = re.compile(r"additional_chat_templates/[^/]+\.jinja")


@dataclass(frozen=True)
class Part:
    """What is needed of a repository."""

    markers: tuple[str, ...]
    """Files of which it has at least one, by which it is found in the hub's cache."""
    choose: Callable[[Sequence[str], ModelSpec], list[str]]
    """Chooses the files to fetch from the names of all files."""
    check: Callable[[Path, ModelSpec], None]
    """Raises ModelUnavailableError if a folder lacks one of them."""


def fetch_snapshot(spec: ModelSpec, part: Part) -> Path:
    """Return the folder of a repository in the hub's cache, after fetching missing files.

    Raises ModelUnavailableError.
    """
    folder = _find_in_cache(spec, part)
    if folder is None:
        return _download(spec, part, lacking="it is not in the hub's cache")
    try:
        part.check(folder, spec)
    except ModelUnavailableError as error:
        # The folder is named after its commit; missing files must come from that commit, even if main has moved on.
        return _download(replace(spec, revision=folder.name), part, lacking=str(error))
    return folder


def choose_files(names: Sequence[str], spec: ModelSpec, descriptions_only: bool) -> list[str]:
    """Return the files of a repository to fetch: no pickle files and no code unless they are trusted."""
    top = [name for name in names if "/" not in name]
    wanted = [_DESCRIPTIONS] + [_CODE] * spec.trust_remote_code
    if "config.json" not in top:
        raise ModelUnavailableError(f"{spec.source} has no config.json on the hub{_suggest_gguf(top)}")
    if not descriptions_only:
        wanted.append(_choose_weights(top, spec))
    chosen = [name for name in top if any(pattern.fullmatch(name) for pattern in wanted)]
    chosen += filter(_NAMED_CHAT_TEMPLATES.fullmatch, names)
    if "modules.json" in top:
        chosen += filter(_MODULES.fullmatch, names)
    return chosen


def choose_tokenizer_files(names: Sequence[str], spec: ModelSpec) -> list[str]:
    """Return the files of a repository to fetch for its tokenizer."""
    wanted = [_DESCRIPTIONS] + [_CODE] * spec.trust_remote_code
    chosen = [name for name in names if "/" not in name and any(pattern.fullmatch(name) for pattern in wanted)]
    return chosen + list(filter(_NAMED_CHAT_TEMPLATES.fullmatch, names))


def choose_adapter_files(names: Sequence[str], spec: ModelSpec) -> list[str]:
    """Return the files of a repository to fetch for an adapter: no pickle file unless it is trusted."""
    if ADAPTER_CONFIG not in names:
        raise ModelUnavailableError(f"{spec.source} has no {ADAPTER_CONFIG} on the hub: it is not a PEFT adapter")
    if ADAPTER_WEIGHTS in names:
        return [ADAPTER_CONFIG, ADAPTER_WEIGHTS]
    if ADAPTER_PICKLE in names and not spec.allow_pickle:
        raise ModelUnavailableError(
            f"{spec.source} has its weights only as a pickle file, which can run code when opened: set "
            "model.allow_pickle=true if you trust its author"
        )
    return [ADAPTER_CONFIG, ADAPTER_PICKLE]


MODEL = Part(
    ("config.json",),
    lambda names, spec: choose_files(names, spec, descriptions_only=False),
    lambda folder, spec: check_whole(folder, spec.allow_pickle),
)
DESCRIPTIONS = Part(
    ("config.json",),
    lambda names, spec: choose_files(names, spec, descriptions_only=True),
    lambda folder, spec: check_whole(folder, spec.allow_pickle, descriptions_only=True),
)
TOKENIZER = Part(
    ("tokenizer_config.json", "tokenizer.json", "config.json"),
    choose_tokenizer_files,
    lambda folder, spec: check_tokenizer(folder),
)
ADAPTER = Part((ADAPTER_CONFIG,), choose_adapter_files, lambda folder, spec: check_adapter(folder, spec.allow_pickle))


def _choose_weights(names: Sequence[str], spec: ModelSpec) -> re.Pattern[str]:
    if any(_SAFETENSORS.fullmatch(name) for name in names):
        return _SAFETENSORS
    if not any(_PICKLES.fullmatch(name) for name in names):
        raise ModelUnavailableError(f"{spec.source} has no model.safetensors on the hub{_suggest_gguf(names)}")
    if not spec.allow_pickle:
        raise ModelUnavailableError(
            f"{spec.source} has its weights only as pickle files, which can run code when opened: look for a "
            "model.revision with safetensors, or set model.allow_pickle=true if you trust their author"
        )
    return _PICKLES


def _suggest_gguf(names: Sequence[str]) -> str:
    ggufs = [name for name in names if name.endswith(".gguf")]
    return f": download {ggufs[0]} yourself and set model.source to its path" if ggufs else ""


def _find_in_cache(spec: ModelSpec, part: Part) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for marker in part.markers:
        try:
            found = try_to_load_from_cache(spec.source, marker, revision=spec.revision)
        except HFValidationError as error:
            raise ModelUnavailableError(f"{spec.key}={spec.source} is not a valid hub name: {error}") from error
        if isinstance(found, str):
            return Path(found).parent
    return None


def _download(spec: ModelSpec, part: Part, lacking: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    try:
        siblings = HfApi().model_info(spec.source, revision=spec.revision, timeout=_TIMEOUT_S).siblings or []
        wanted = part.choose([sibling.rfilename for sibling in siblings], spec)
        return Path(snapshot_download(spec.source, revision=spec.revision, allow_patterns=wanted))
    except ModelUnavailableError:
        raise
    except Exception as error:  # connection errors come from httpx or httpx2, depending on huggingface_hub's version
        raise ModelUnavailableError(_explain(spec, error, lacking)) from error


def _explain(spec: ModelSpec, error: Exception, lacking: str) -> str:
    """Return a sentence that says why a download failed and what to do about it."""
    from huggingface_hub import constants, errors

    wanted = f"{spec.source} (revision {spec.revision or 'main'})"
    if isinstance(error, errors.GatedRepoError):
        return f"{wanted} is gated: accept its terms on {constants.ENDPOINT}/{spec.source} and set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError):
        local = f" (the folder of that name is ./{spec.source})" if Path(spec.source).is_dir() else ""
        return f"{wanted} is not on {constants.ENDPOINT}, or is private: check the name, or set HF_TOKEN{local}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{spec.source} has no revision {spec.revision} on {constants.ENDPOINT}"
    if isinstance(error, errors.OfflineModeIsEnabled):
        reason, remedy = "HF_HUB_OFFLINE is set", "unset it once"
    else:
        reason, remedy = describe_error(error), "connect to the network once"
        if _goes_through_proxy(constants.ENDPOINT):
            reason += ", through the proxy set in the environment"
    return (
        f"{wanted} cannot be fetched from {constants.ENDPOINT} ({reason}), and {lacking}: {remedy}, "
        f"or set {spec.key} to ./FOLDER{' or ./FILE.gguf' if spec.key == 'model.source' else ''}"
    )


def _goes_through_proxy(address: str) -> bool:
    parts = urlsplit(address)
    return bool({parts.scheme, "all"} & getproxies().keys()) and not proxy_bypass(parts.hostname or "")
