"""Fetch models from the Hugging Face Hub; files in its local cache are used without the network.

Only missing files are fetched, after one quick request that distinguishes an unknown name, a gated repository and a
missing network. The settings of huggingface_hub apply: HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, proxies.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from icl_eval.errors import ModelUnavailableError
from icl_eval.formatting import describe_error
from icl_eval.models.weights.folders import check_whole
from icl_eval.models.weights.specs import ModelSpec

_TIMEOUT_S = 5.0
_DESCRIPTIONS = re.compile(r"(?!.*\.index\.json$).*\.(json|txt|model|jinja)")
_SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
_PICKLES = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin(\.index\.json)?")
_CODE = re.compile(r".*\.py")
_MODULES = re.compile(r"\d+_\w+/(config\.json|model\.safetensors)")
"""Files that sentence-transformers adds to a network, such as `1_Pooling/config.json`."""
_NAMED_CHAT_TEMPLATES = re.compile(r"additional_chat_templates/[^/]+\.jinja")


def fetch_snapshot(spec: ModelSpec, descriptions_only: bool) -> Path:
    """Return the folder of a repository in the hub's cache, after fetching missing files.

    With `descriptions_only`, only the configuration and the tokenizer are fetched. Raises ModelUnavailableError.
    """
    folder = _find_in_cache(spec)
    if folder is None:
        return _download(spec, descriptions_only, lacking="it is not in the hub's cache")
    try:
        check_whole(folder, spec.allow_pickle, descriptions_only)
    except ModelUnavailableError as error:
        # The folder is named after its commit; missing files must come from that commit, even if main has moved on.
        return _download(replace(spec, revision=folder.name), descriptions_only, lacking=str(error))
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


def _find_in_cache(spec: ModelSpec) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(spec.source, "config.json", revision=spec.revision)
    except HFValidationError as error:
        raise ModelUnavailableError(f"model.source={spec.source} is not a valid hub name: {error}") from error
    return Path(config).parent if isinstance(config, str) else None


def _download(spec: ModelSpec, descriptions_only: bool, lacking: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    try:
        siblings = HfApi().model_info(spec.source, revision=spec.revision, timeout=_TIMEOUT_S).siblings or []
        wanted = choose_files([sibling.rfilename for sibling in siblings], spec, descriptions_only)
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
        "or set model.source to ./FOLDER or ./FILE.gguf"
    )


def _goes_through_proxy(address: str) -> bool:
    parts = urlsplit(address)
    return bool({parts.scheme, "all"} & getproxies().keys()) and not proxy_bypass(parts.hostname or "")
