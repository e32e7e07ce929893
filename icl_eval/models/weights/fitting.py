"""Check that a network and its files are the same model, before it is allocated and after it is loaded.

transformers builds the network that config.json describes, initializes missing weights at random and ignores the rest.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_eval.errors import ModelUnavailableError
from icl_eval.formatting import list_names
from icl_eval.models.weights.folders import FLOATS, count_items, find_weight_files, read_safetensors_header

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

logger = logging.getLogger(__name__)

_COUNTS_LAYERS = re.compile(r"(n|num|num_\w+|encoder|decoder)_(layers?|blocks)")
_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings")
_MOST_PACKED = 16
"""Maximum number of weights packed into one item of a file: eight of 4 bits, or sixteen of 2 bits, in 32 bits."""
_NUMBERED = re.compile(r"\.\d+\.")


def check_sizes(config: "PreTrainedConfig", name: str) -> None:
    """Refuse a configuration with a size below 1; raises ModelUnavailableError."""
    for key in _SIZES:
        if isinstance(size := getattr(config, key, None), int) and size < 1:
            raise ModelUnavailableError(f"config.json of {name} is damaged: {key}={size} must be 1 or more")


def check_layers(folder: Path, allow_pickle: bool, config: "PreTrainedConfig", name: str) -> None:
    """Refuse more layers than the files can hold, since building them could take a day.

    Raises ModelUnavailableError.
    """
    files = find_weight_files(folder, allow_pickle)
    tensors = sum(len(read_safetensors_header(file)) for file in files if file.suffix == ".safetensors")
    most = tensors or count_items(folder, allow_pickle)  # a pickle file does not list its tensors
    for key, value in config.to_dict().items():
        if _COUNTS_LAYERS.fullmatch(key) and isinstance(value, int) and not 0 <= value <= most:
            raise ModelUnavailableError(
                f"config.json of {name} is damaged: {key}={value}, but the files have only {most:,} tensors"
            )


def check_room(folder: Path, allow_pickle: bool, described: int, name: str) -> None:
    """Refuse a network with more parameters (`described`) than the files can fill; raises ModelUnavailableError."""
    count = count_items(folder, allow_pickle)
    if described > _MOST_PACKED * max(count, 1):
        raise ModelUnavailableError(
            f"config.json of {name} is damaged: its sizes give {described:,} parameters, but the files have {count:,}"
        )


def check_loading(name: str, network: "PreTrainedModel", loading_info: Mapping[str, Any]) -> None:
    """Refuse weights that leave part of the network random or that have no place in it, where transformers only warns.

    Raises ModelUnavailableError.
    """
    if missing := sorted(loading_info["missing_keys"]):
        raise ModelUnavailableError(f"{name} lacks {len(missing)} of its weights: {list_names(missing)}")
    if mismatched := sorted(key for key, *_ in loading_info["mismatched_keys"]):
        raise ModelUnavailableError(f"{name} has weights whose sizes contradict config.json: {list_names(mismatched)}")
    known = {_NUMBERED.sub(".#.", key) for key, _ in network.named_parameters()}
    unexpected = sorted(loading_info["unexpected_keys"])
    # More layers of the network's kind, or a bias for a layer that has none here.
    if lost := [key for key in unexpected if _NUMBERED.sub(".#.", re.sub(r"\.bias$", ".weight", key)) in known]:
        raise ModelUnavailableError(f"{name} has weights that config.json does not describe: {list_names(lost)}")
    if unexpected:
        logger.warning("%s has weights that its network does not use: %s", name, list_names(unexpected))


def check_numbers(folder: Path, name: str, network: "PreTrainedModel", dtype: str) -> None:
    """Refuse weights that are not finite, and packed weights without a quantization config.

    Raises ModelUnavailableError.
    """
    for key, parameter in network.named_parameters():
        if not _holds_numbers(parameter):
            continue
        # The sum of a tensor is cheap, and it is not finite if one of its numbers is not.
        if not parameter.sum().isfinite() and not parameter.isfinite().all():
            raise ModelUnavailableError(
                f"{name} has weights that are not finite in {dtype} ({key}): use another dtype, or an undamaged copy "
                "of the model"
            )
    for key, buffer in network.named_buffers():
        if key.endswith("inv_freq") and not (buffer.isfinite().all() and buffer.abs().sum() > 0):
            raise ModelUnavailableError(
                f"config.json of {name} is damaged: its rope_parameters give no valid rotary frequencies ({key})"
            )
    if getattr(network.config, "quantization_config", None) is None:
        _refuse_packed(folder, name, network)


def _holds_numbers(parameter: Any) -> bool:
    """Return whether a parameter is a plain tensor in memory: not quantized, and not offloaded."""
    import torch

    is_plain = type(parameter.data) is torch.Tensor
    return is_plain and parameter.is_floating_point() and parameter.device.type != "meta"


def _refuse_packed(folder: Path, name: str, network: "PreTrainedModel") -> None:
    own = {key for key, _ in network.named_parameters()}
    for file in find_weight_files(folder, allow_pickle=True):
        header = read_safetensors_header(file) if file.suffix == ".safetensors" else {}
        for key, tensor in header.items():
            if tensor["dtype"] not in FLOATS and {key, f"{network.base_model_prefix}.{key}"} & own:
                raise ModelUnavailableError(
                    f"{name} has weights of dtype {tensor['dtype']} ({key}), but config.json has no "
                    f"quantization_config to decode them: only {', '.join(FLOATS)} need none"
                )
