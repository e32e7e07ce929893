"""Linears: matrix products of a network on a processor, through oneDNN with weights in the order it reads them.

A decoding step multiplies a few rows with every weight of the network, and for so few rows the kernel behind
`torch.nn.functional.linear` is far from what the processor can do (measured: 2 to 3 times in float32). oneDNN's
own takes the same numbers, in the same precision, with the weight laid out in blocks beforehand.
"""

from collections.abc import Iterator
from functools import partial

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from icl_eval.models import free_bytes

_DTYPES = (torch.float32, torch.bfloat16)
_FREE_FACTOR = 4
"""Weights are laid out anew, in memory of their own, where this many times as much memory is free."""


def speed_up_linears(network: PreTrainedModel) -> None:
    """Let the linear layers of a network on a processor compute through oneDNN; other networks stay as they are.

    The layers' parameters are not touched, and must not change from here on.
    """
    if network.device.type != "cpu" or network.dtype not in _DTYPES or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    layers = list(_linear_layers(network))
    has_room = free_bytes("cpu") > _FREE_FACTOR * sum(weight.nbytes for _, weight in layers)
    for module, weight in layers:
        # private operators: the ones that the library's own compiler emits for linear layers
        laid_out = torch.ops.mkldnn._reorder_linear_weight(weight) if has_room else weight
        bias = getattr(module, "bias", None)
        module.forward = partial(_forward, laid_out, bias)


def restore_linears(network: PreTrainedModel) -> None:
    """Undo `speed_up_linears`."""
    for module, _ in _linear_layers(network):
        module.__dict__.pop("forward", None)


def _linear_layers(network: PreTrainedModel) -> Iterator[tuple[torch.nn.Module, torch.Tensor]]:
    """Yield linear layers with their weights, [out, in]."""
    for module in network.modules():
        if type(module) is torch.nn.Linear:
            yield module, module.weight.detach()
        elif type(module) is Conv1D:  # GPT-2's linear layer, with its weight the other way round
            yield module, module.weight.detach().T.contiguous()


def _forward(weight: torch.Tensor, bias: torch.Tensor | None, states: torch.Tensor) -> torch.Tensor:
    """Return states @ weight.T + bias."""
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(states.contiguous(), weight, bias, "none", [], "")
    return product
