"""Compute a network's linear layers on the CPU with oneDNN and prepacked weights.

A decoding step multiplies a few rows with every weight of the network. For so few rows, the kernel behind
`torch.nn.functional.linear` is far below what the CPU can do (measured: 2 to 3 times slower in float32). oneDNN's own
kernel computes the same products in the same precision, from weights packed into blocks beforehand.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from icl_eval.models.memory import free_bytes
from icl_eval.models.states import has_hooks
from icl_eval.models.switching import Switch

_DTYPES = (torch.float32, torch.bfloat16)
_FREE_FACTOR = 4
"""Weights are packed, which copies them, only if this multiple of their size is free in memory."""
_FORWARDS = {torch.nn.Linear: torch.nn.Linear.forward, Conv1D: Conv1D.forward}
"""The layers that run on oneDNN; Conv1D is GPT-2's layer, with a transposed weight."""


class Layouts:
    """The packed weights of one model's linear layers, keyed by their contents."""

    def __init__(self) -> None:
        self._kept: dict[tuple[type, bytes], torch.Tensor] = {}

    def get(self, layers: Mapping[str, Any], contents: Mapping[str, bytes]) -> dict[str, torch.Tensor]:
        """Return the packed weight of each layer, or an empty dict if the weights do not fit in memory.

        Args:
            layers: The layers, by name.
            contents: Digests of all tensors of the network, by name.
        """
        keys = {name: (type(layer), contents[f"{name}.weight"]) for name, layer in layers.items()}
        self._kept = {key: self._kept[key] for key in keys.values() if key in self._kept}
        missing = {key: layers[name] for name, key in keys.items() if key not in self._kept}
        if missing and free_bytes("cpu") <= _FREE_FACTOR * sum(layer.weight.nbytes for layer in missing.values()):
            return {}
        for key, layer in missing.items():
            # a private operator, like the one in `_multiply`; torch's own compiler emits both for linear layers
            self._kept[key] = torch.ops.mkldnn._reorder_linear_weight(_read_weight(layer))
        return {name: self._kept[key] for name, key in keys.items()}


def product_switches(network: PreTrainedModel, layouts: Layouts, contents: Mapping[str, bytes] | None) -> list[Switch]:
    """Return the switches that run a network's linear layers on the CPU with oneDNN.

    Args:
        network: The network. Layers on other devices, of other dtypes, with hooks or with a replaced `forward` stay
            as they are.
        layouts: The packed weights of the model.
        contents: Digests of all tensors, by name; None if the weights may change in every pass, so that they cannot
            be packed.
    """
    if network.dtype not in _DTYPES or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return []
    layers = dict(_linear_layers(network))
    head = network.get_output_embeddings()
    body = {name: layer for name, layer in layers.items() if layer is not head}
    laid_out = {} if contents is None else layouts.get(body, contents)
    forwards = {name: partial(_multiply, laid_out[name], layer) for name, layer in layers.items() if name in laid_out}
    for name, layer in layers.items():
        if name not in laid_out and type(layer) is torch.nn.Linear:
            forwards[name] = partial(_multiply_in_place, layer)
    return [Switch(vars(layers[name]), "forward", forward) for name, forward in forwards.items()]


def _linear_layers(network: PreTrainedModel) -> Iterator[tuple[str, Any]]:
    for name, module in network.named_modules():
        computes_as_usual = _FORWARDS.get(type(module)) is type(module).forward and "forward" not in vars(module)
        if computes_as_usual and _holds_plain_numbers(module) and not has_hooks(module):
            yield name, module


def _holds_plain_numbers(layer: Any) -> bool:
    tensors = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    return layer.weight.dtype in _DTYPES and all(
        type(tensor) is torch.nn.Parameter and tensor.device.type == "cpu" and tensor.dtype is layer.weight.dtype
        for tensor in tensors
    )


def _read_weight(layer: Any) -> torch.Tensor:
    """Return a layer's weight, [out, in]."""
    weight: torch.Tensor = layer.weight.detach()
    return weight.T.contiguous() if type(layer) is Conv1D else weight


def _multiply(weight: torch.Tensor, layer: Any, states: torch.Tensor) -> torch.Tensor:
    """Return states @ weight.T + bias, as the layer does if the network computes it in another dtype (as routers)."""
    if states.dtype is not weight.dtype:
        plain: torch.Tensor = type(layer).forward(layer, states)
        return plain
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(states.contiguous(), weight, layer.bias, "none", [], "")
    return product


def _multiply_in_place(layer: Any, states: torch.Tensor) -> torch.Tensor:
    return _multiply(layer.weight, layer, states)
