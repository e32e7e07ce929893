"""Inspect a model's folder without loading the model: whether it is complete, and what it contains.

    config.json
    tokenizer.json  tokenizer_config.json  ...
    model.safetensors    or    model.safetensors.index.json and the shards that it lists

A safetensors file states its own size, so that a file truncated by a full disk is detected without reading it. A
damaged file always gives one sentence, no matter what it contains or how large it claims to be.
"""

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from icl_eval.errors import ModelUnavailableError
from icl_eval.formatting import describe_error

FLOATS = ("F64", "F32", "F16", "BF16")
"""The dtypes of tensors that are not quantized, as safetensors files name them."""
_TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model")
_OBJECTS = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""Optional files; transformers treats some of them as absent if they are damaged."""
ADAPTER_CONFIG, ADAPTER_WEIGHTS, ADAPTER_PICKLE = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
)
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.*", "*/adapter_config.json")
_DESCRIBING_SUFFIXES = {".json", ".txt", ".model", ".jinja", ".py"}
_IDENTIFYING_SUFFIXES = _DESCRIBING_SUFFIXES | {".safetensors", ".bin"}
_NAMED_CHAT_TEMPLATES = "additional_chat_templates/*.jinja"
_MODULES = "[0-9]*_*/*"
"""Files that sentence-transformers adds to a network, such as `1_Pooling/config.json`."""


def check_whole(folder: Path, allow_pickle: bool, descriptions_only: bool = False) -> None:
    """Raise ModelUnavailableError unless a folder contains a configuration, a tokenizer and all weights."""
    _refuse_adapters(folder)
    if not (folder / "config.json").is_file():
        raise ModelUnavailableError(f"{folder} contains no config.json: {_describe_contents(folder)}")
    for name in ("config.json", *_OBJECTS):
        if (folder / name).exists():
            read_json_object(folder / name)
    check_tokenizer(folder)
    if not descriptions_only:
        find_weight_files(folder, allow_pickle)


def check_tokenizer(folder: Path) -> None:
    """Raise ModelUnavailableError unless a folder contains a tokenizer."""
    if not any(path.is_file() for pattern in _TOKENIZER_FILES for path in folder.glob(pattern)):
        raise ModelUnavailableError(f"{folder} contains no tokenizer (tokenizer.json): {_describe_contents(folder)}")


def check_adapter(folder: Path, allow_pickle: bool) -> None:
    """Raise ModelUnavailableError unless a folder contains the configuration and the weights of a PEFT adapter."""
    if not (folder / ADAPTER_CONFIG).is_file():
        raise ModelUnavailableError(
            f"{folder} contains no {ADAPTER_CONFIG}, so that it is not a PEFT adapter: {_describe_contents(folder)}"
        )
    read_json_object(folder / ADAPTER_CONFIG)
    if (folder / ADAPTER_WEIGHTS).is_file():
        read_safetensors_header(folder / ADAPTER_WEIGHTS)
    elif not (folder / ADAPTER_PICKLE).is_file():
        raise ModelUnavailableError(
            f"{folder} contains no weights ({ADAPTER_WEIGHTS}) of its adapter: {_describe_contents(folder)}"
        )
    elif not allow_pickle:
        raise ModelUnavailableError(
            f"{folder} has its weights only as a pickle file ({ADAPTER_PICKLE}), which can run code when opened: "
            "convert it to safetensors, or set model.allow_pickle=true if you trust its author"
        )


def find_weight_files(folder: Path, allow_pickle: bool) -> tuple[Path, ...]:
    """Return the weight files of a folder; raises ModelUnavailableError if one is missing, truncated or a pickle."""
    if shards := _list_shards(folder, "model.safetensors"):
        for shard in shards:
            read_safetensors_header(shard)
        return shards
    pickles = _list_shards(folder, "pytorch_model.bin")
    if pickles and not allow_pickle:
        raise ModelUnavailableError(
            f"{folder} has its weights only as pickle files ({pickles[0].name}), which can run code when "
            "opened: convert them to safetensors, or set model.allow_pickle=true if you trust their author"
        )
    if not pickles:
        raise ModelUnavailableError(f"{folder} contains no weights (model.safetensors): {_describe_contents(folder)}")
    return pickles


def read_safetensors_header(path: Path) -> dict[str, Any]:
    """Return `{tensor name: {dtype, shape, data_offsets}}`, after checking the file size against the header.

    The format is an 8-byte length n, n bytes of JSON, and the tensors. Raises ModelUnavailableError.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        header = _parse_object(path, file.read(length)) if 8 + length <= size else {}
    if start == b"version ":
        raise ModelUnavailableError(f"{path} is a Git LFS pointer to a file that is not fetched: run git lfs pull")
    header.pop("__metadata__", None)
    try:
        expected = 8 + length + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    except (TypeError, KeyError, IndexError):
        raise ModelUnavailableError(f"{path} is damaged: its header lacks the data_offsets of a tensor") from None
    if size != expected:
        raise ModelUnavailableError(f"{path} is damaged: it has {size:,} bytes instead of {expected:,}")
    _check_header(path)
    return header


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; raises ModelUnavailableError."""
    if not path.is_file():
        raise ModelUnavailableError(f"{path} is not a file")
    return _parse_object(path, path.read_bytes())


def read_json_list(path: Path) -> list[Any]:
    """Return the list in a JSON file; raises ModelUnavailableError."""
    content = _parse(path, path.read_bytes())
    if not isinstance(content, list):
        raise ModelUnavailableError(f"{path} is damaged: it must contain a list ([…])")
    return content


def count_items(folder: Path, allow_pickle: bool) -> int:
    """Return the number of items in the weight files; an item of a quantized tensor can hold several weights."""
    return sum(_measure(file, 1, 1) for file in find_weight_files(folder, allow_pickle))


def count_bytes(folder: Path, allow_pickle: bool, item_bytes: int) -> int:
    """Return the size of the weights in memory, with `item_bytes` per number; quantized tensors keep their own size."""
    return sum(_measure(file, item_bytes, None) for file in find_weight_files(folder, allow_pickle))


def digest_folder(folder: Path) -> str:
    """Return a sha256 over the names and contents of the model's files; the folder's own path does not enter."""
    return _digest_files(folder, _IDENTIFYING_SUFFIXES)


def digest_descriptions(folder: Path) -> str:
    """Return `digest_folder` without the weights, to identify a tokenizer."""
    return _digest_files(folder, _DESCRIBING_SUFFIXES)


def digest_adapter(folder: Path) -> str:
    """Return a sha256 over the configuration and the weights of an adapter."""
    weights = ADAPTER_WEIGHTS if (folder / ADAPTER_WEIGHTS).is_file() else ADAPTER_PICKLE
    return _digest((folder / name, name) for name in (ADAPTER_CONFIG, weights))


def _digest_files(folder: Path, suffixes: Collection[str]) -> str:
    named = {path: path.name for path in (*sorted(folder.iterdir()), *sorted(folder.glob(_NAMED_CHAT_TEMPLATES)))}
    if (folder / "modules.json").is_file():  # of sentence-transformers
        named |= {path: path.relative_to(folder).as_posix() for path in sorted(folder.glob(_MODULES))}
    return _digest((path, name) for path, name in named.items() if path.is_file() and path.suffix in suffixes)


def _digest(files: Iterable[tuple[Path, str]]) -> str:
    """Return a sha256 over the names and contents of files."""
    whole = hashlib.sha256()
    for path, name in files:
        whole.update(f"{name} {sha256_of(path)}\n".encode())
    return whole.hexdigest()


def sha256_of(path: Path) -> str:
    """Return the file's sha256 as 64 hexadecimal digits; an unchanged file is read once per process."""
    status = path.stat()
    return _sha256(path.resolve(), status.st_size, status.st_mtime_ns)


@lru_cache
def _sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _measure(file: Path, float_size: int, other_size: int | None) -> int:
    """Sum the sizes of a file's items: `float_size` of numbers, `other_size` of others (None for their bytes)."""
    if file.suffix != ".safetensors":
        return file.stat().st_size // 2 * float_size  # a pickle file does not state its dtype: assume float16
    total = 0
    for tensor in read_safetensors_header(file).values():
        size = float_size if tensor["dtype"] in FLOATS else other_size
        begin, end = tensor["data_offsets"]
        total += end - begin if size is None else math.prod(tensor["shape"]) * size
    return total


def _refuse_adapters(folder: Path) -> None:
    """Refuse a folder with an adapter, since no run would apply it."""
    adapters = [str(path.relative_to(folder)) for pattern in _ADAPTER_FILES for path in sorted(folder.glob(pattern))]
    if adapters and not (folder / "config.json").exists():
        raise ModelUnavailableError(
            f"{folder} contains only an adapter ({adapters[0]}): give its base model as model.source, and this folder "
            "as model.adapter"
        )
    if adapters:
        raise ModelUnavailableError(
            f"{folder} contains an adapter ({adapters[0]}), which would not be applied: move it to another folder, and "
            "give that one as model.adapter"
        )


def _check_header(path: Path) -> None:
    """Check the dtypes and sizes of all tensors with the safetensors library; raises ModelUnavailableError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        raise ModelUnavailableError(f"{path} is damaged: {describe_error(error)}") from error


def _list_shards(folder: Path, name: str) -> tuple[Path, ...]:
    """Return `name`, or the shards that its index lists; raises ModelUnavailableError if one is missing."""
    index = folder / f"{name}.index.json"
    content = read_json_object(index) if index.exists() else None
    shards = () if content is None else _read_shards(index, content)
    if (folder / name).is_file():
        if set(shards) - {folder / name}:
            raise ModelUnavailableError(
                f"{folder} has two sets of weights, {name} and the files listed in {index.name}: keep one set"
            )
        return (folder / name,)
    for shard in shards:
        if not shard.is_file():
            raise ModelUnavailableError(
                f"{folder} lacks {shard.name}, one of the {len(shards)} files listed in {index.name}"
            )
    if content is not None and not isinstance(content.get("metadata"), dict):  # transformers reads it
        raise ModelUnavailableError(f"{index} is damaged: its metadata must be an object ({{…}})")
    return shards


def _read_shards(index: Path, content: Mapping[str, Any]) -> tuple[Path, ...]:
    """Return the shards listed in an index; raises ModelUnavailableError if the index is damaged."""
    shard_of = content.get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
        raise ModelUnavailableError(f"{index} is damaged: its weight_map must map each tensor to a file")
    for tensor, shard in shard_of.items():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise ModelUnavailableError(
                f"{index} is damaged: its weight_map has {shard!r} for {tensor}, which is not a file name"
            )
    return tuple(index.parent / shard for shard in sorted(set(shard_of.values())))


def _parse_object(path: Path, text: bytes) -> dict[str, Any]:
    content = _parse(path, text)
    if not isinstance(content, dict):
        raise ModelUnavailableError(f"{path} is damaged: it must contain an object ({{…}})")
    return content


def _parse(path: Path, text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelUnavailableError(f"{path} is damaged: {error}") from error


def _describe_contents(folder: Path) -> str:
    """Return a phrase that lists the files of a folder, which often shows the mistake."""
    names = sorted(path.name for path in folder.iterdir())
    return f"it contains {', '.join(names)}" if names else "it is empty"
