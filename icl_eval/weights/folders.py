"""Owns what can be told of a model's folder without loading the model: whether it is whole, and what is in it.

    config.json
    tokenizer.json  tokenizer_config.json  ...
    model.safetensors    or    model.safetensors.index.json and the shards that it lists

A safetensors file states its own size, so that one cut short by a full disk is found without reading it.
"""

import hashlib
import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

from icl_eval.errors import ModelUnavailableError

_TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model")
_IDENTIFYING_SUFFIXES = {".json", ".safetensors", ".bin", ".txt", ".model", ".jinja", ".py"}


def check_whole(folder: Path, allow_pickle: bool, descriptions_only: bool = False) -> None:
    """Raise ModelUnavailableError unless a folder holds a configuration, a tokenizer and all weights."""
    if not (folder / "config.json").is_file():
        raise ModelUnavailableError(f"{folder} holds no config.json: {_contents(folder)}")
    if not any(path.is_file() for pattern in _TOKENIZER_FILES for path in folder.glob(pattern)):
        raise ModelUnavailableError(f"{folder} holds no tokenizer (tokenizer.json): {_contents(folder)}")
    if not descriptions_only:
        find_weight_files(folder, allow_pickle)


def find_weight_files(folder: Path, allow_pickle: bool) -> tuple[Path, ...]:
    """Return the files that hold the weights, none of them cut short; raises ModelUnavailableError."""
    if shards := _list_shards(folder, "model.safetensors"):
        for shard in shards:
            read_safetensors_header(shard)
        return shards
    pickles = _list_shards(folder, "pytorch_model.bin")
    if pickles and not allow_pickle:
        raise ModelUnavailableError(
            f"{folder} has its weights only as pickle files ({pickles[0].name}), which can run code when "
            "opened: convert them to safetensors, or set model.allow_pickle=true if you trust their maker"
        )
    if not pickles:
        raise ModelUnavailableError(f"{folder} holds no weights (model.safetensors): {_contents(folder)}")
    return pickles


def read_safetensors_header(path: Path) -> dict[str, Any]:
    """Return `{tensor name: {dtype, shape, data_offsets}}`, if the file is as long as its header says.

    Layout of the format: 8 bytes n, n bytes of JSON, the tensors. Raises ModelUnavailableError.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        header = _parse(path, file.read(length)) if 8 + length <= size else {}
    if start == b"version ":
        raise ModelUnavailableError(f"{path} only points to a file that Git LFS has not fetched: git lfs pull")
    header.pop("__metadata__", None)
    expected = 8 + length + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    if size != expected:
        raise ModelUnavailableError(f"{path} is damaged: it has {size:,} bytes in place of {expected:,}")
    return header


def count_bytes(folder: Path, allow_pickle: bool, item_bytes: int) -> int:
    """Return the room that the weights take in memory, with `item_bytes` for each number."""
    return sum(_count_items(file) for file in find_weight_files(folder, allow_pickle)) * item_bytes


def digest_folder(folder: Path) -> str:
    """Return a sha256 over the names and the contents of the model's files, wherever the folder lies."""
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in _IDENTIFYING_SUFFIXES:
            whole.update(f"{path.name} {sha256_of(path)}\n".encode())
    return whole.hexdigest()


def sha256_of(path: Path) -> str:
    """Return the file's sha256 as 64 hexadecimal digits; an unchanged file is read once per process."""
    status = path.stat()
    return _sha256(path.resolve(), status.st_size, status.st_mtime_ns)


@lru_cache
def _sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _count_items(file: Path) -> int:
    if file.suffix != ".safetensors":
        return file.stat().st_size // 2  # a pickle does not say how wide its numbers are: assume float16
    return sum(math.prod(tensor["shape"]) for tensor in read_safetensors_header(file).values())


def _list_shards(folder: Path, name: str) -> tuple[Path, ...]:
    """Return `name`, or the shards that its index lists; raises ModelUnavailableError if one is missing."""
    if (folder / name).is_file():
        return (folder / name,)
    index = folder / f"{name}.index.json"
    if not index.is_file():
        return ()
    shard_of = _parse(index, index.read_bytes()).get("weight_map", {})
    shards = tuple(folder / shard for shard in sorted(set(shard_of.values())))
    for shard in shards:
        if not shard.is_file():
            raise ModelUnavailableError(
                f"{folder} lacks {shard.name}, one of the {len(shards)} that {index.name} lists"
            )
    return shards


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError) as error:
        raise ModelUnavailableError(f"{path} is damaged: {error}") from error


def _contents(folder: Path) -> str:
    """Say what lies in the folder, which is often enough to see the mistake."""
    names = sorted(path.name for path in folder.iterdir())
    return f"there is {', '.join(names)}" if names else "it is empty"
