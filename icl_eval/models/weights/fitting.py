"""Owns whether a network and its files are the same model: before room is taken for it, and once it is filled.

transformers builds what config.json describes, makes up what the files lack and passes over what they have besides.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_eval.errors import ModelUnavailableError
from icl_eval.formatting import listed
from icl_eval.models.weights.folders import count_bytes, find_weight_files, read_safetensors_header

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

logger = logging.getLogger(__name__)

_COUNTS_LAYERS = re.compile(r"(n|num|num_\w+|encoder|decoder)_(layers?|blocks)")
_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings")
_MOST_PACKED = 16
"""How many numbers of a network one item of a file can hold: eight of 4 bits, or sixteen of 2, in one of 32."""
_FLOATS = ("F64", "F32", "F16", "BF16")
_NUMBERED = re.compile(r"\.\d+\.")


def check_sizes(config: "PreTrainedConfig", name: str) -> None:
    """Refuse sizes below 1; raises ModelUnavailableError."""
    for key in _SIZES:
        if isinstance(size := getattr(config, key, None), int) and size < 1:
            raise ModelUnavailableError(f"config.json of {name} is damaged: {key}={size} must be 1 or more")


def check_layers(folder: Path, allow_pickle: bool, config: "PreTrainedConfig", name: str) -> None:
    """Refuse a number of layers that the files cannot have, which may take a day to build.

    Raises ModelUnavailableError.
    """
    files = find_weight_files(folder, allow_pickle)
    tensors = sum(len(read_safetensors_header(file)) for file in files if file.suffix == ".safetensors")
    most = tensors or count_bytes(folder, allow_pickle, item_bytes=1)  # a pickle does not say
    for key, value in config.to_dict().items():
        if _COUNTS_LAYERS.fullmatch(key) and isinstance(value, int) and not 0 <= value <= most:
            raise ModelUnavailableError(
                f"config.json of {name} is damaged: {key}={value}, with {most:,} tensors for them"
            )


def check_room(folder: Path, allow_pickle: bool, described: int, name: str) -> None:
    """Refuse a network of `described` numbers that the files can never fill; raises ModelUnavailableError."""
    count = count_bytes(folder, allow_pickle, item_bytes=1)
    if described > _MOST_PACKED * max(count, 1):
        raise ModelUnavailableError(
            f"config.json of {name} is damaged: its sizes make {described:,} numbers, and the weights are {count:,}"
        )


def check_found(name: str, network: "PreTrainedModel", found: Mapping[str, Any]) -> None:
    """Refuse weights that leave part of the network random, or lose part of it: transformers merely warns of that."""
    if missing := sorted(found["missing_keys"]):
        raise ModelUnavailableError(f"{name} lacks {len(missing)} of its weights: {listed(missing)}")
    if mismatched := sorted(key for key, *_ in found["mismatched_keys"]):
        raise ModelUnavailableError(f"{name} has weights of other sizes than config.json says: {listed(mismatched)}")
    known = {_NUMBERED.sub(".#.", key) for key, _ in network.named_parameters()}
    unexpected = sorted(found["unexpected_keys"])
    # Further layers like the network's own, or a bias of what has none in it.
    if lost := [key for key in unexpected if _NUMBERED.sub(".#.", re.sub(r"\.bias$", ".weight", key)) in known]:
        raise ModelUnavailableError(f"{name} has weights for which config.json has no place: {listed(lost)}")
    if unexpected:
        logger.warning("%s has weights that its network does not use: %s", name, listed(unexpected))


def check_numbers(folder: Path, name: str, network: "PreTrainedModel", dtype: str) -> None:
    """Refuse weights that are not numbers, or of a kind that only means something with its quantization.

    Raises ModelUnavailableError.
    """
    for key, parameter in network.named_parameters():
        # One sum for each tensor costs next to nothing, and is not finite either.
        if not parameter.sum().isfinite() and not parameter.isfinite().all():
            raise ModelUnavailableError(
                f"{name} has weights that are not finite numbers in {dtype} ({key}): take another dtype, or a copy of "
                "the model that is whole"
            )
    for key, buffer in network.named_buffers():
        if key.endswith("inv_freq") and not (buffer.isfinite().all() and buffer.abs().sum() > 0):
            raise ModelUnavailableError(f"config.json of {name} is damaged: its rope_parameters turn nothing ({key})")
    if getattr(network.config, "quantization_config", None) is None:
        _refuse_packed(folder, name, network)


def _refuse_packed(folder: Path, name: str, network: "PreTrainedModel") -> None:
    own = {key for key, _ in network.named_parameters()}
    for file in find_weight_files(folder, allow_pickle=True):
        header = read_safetensors_header(file) if file.suffix == ".safetensors" else {}
        for key, tensor in header.items():
            if tensor["dtype"] not in _FLOATS and {key, f"{network.base_model_prefix}.{key}"} & own:
                raise ModelUnavailableError(
                    f"{name} has weights of dtype {tensor['dtype']} ({key}), and its config.json has no "
                    f"quantization_config that says what they mean: only {', '.join(_FLOATS)} mean themselves"
                )
