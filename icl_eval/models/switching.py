"""Change attributes of a network for the duration of a block, and restore them afterwards.

A switch names an attribute of an object in the network and its value; `switched` sets the attributes and restores the
original values, even if the block fails. Outside such blocks, the network is as its caller left it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from threading import RLock
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel

AS_FOUND: Final = object()
"""The value of a switch that changes nothing, but restores what transformers changes inside the block."""
_ABSENT: Final = object()

_LOCKS: "WeakKeyDictionary[PreTrainedModel, RLock]" = WeakKeyDictionary()
"""One lock per network, since two streams in different threads may share a network."""


class Switch(NamedTuple):
    """An attribute and its value inside a block."""

    attributes: dict[str, Any]
    """The `vars` of the object that has the attribute."""
    name: str
    value: object


def locked(network: PreTrainedModel) -> RLock:
    """Return a network's lock: whoever holds it finds the network as its caller left it, and not inside a block."""
    return _LOCKS.setdefault(network, RLock())


@contextmanager
def switched(network: PreTrainedModel, switches: Sequence[Switch]) -> Iterator[None]:
    """Set attributes of a network for the duration of a block, in which it computes in its own dtype.

    New tensors are then on the CPU where nothing else is said, whatever default device the caller has set.
    """
    on_cpu = torch.get_default_device().type == "cpu"
    with (
        locked(network),
        torch.autocast(network.device.type, enabled=False),
        nullcontext() if on_cpu else torch.device("cpu"),
    ):
        before = [attributes.get(name, _ABSENT) for attributes, name, _ in switches]
        try:
            for attributes, name, value in switches:
                if value is not AS_FOUND:
                    attributes[name] = value
            yield
        finally:
            for (attributes, name, _), value in zip(switches, before, strict=True):
                if value is _ABSENT:
                    attributes.pop(name, None)
                else:
                    attributes[name] = value


def evaluation_switches(network: PreTrainedModel) -> list[Switch]:
    """Return the switches for evaluation mode: no dropout, and the attention type of the config for each input.

    The caller holds the network's lock: inside another thread's block, a network is in evaluation mode already.
    """
    switches = []
    for module in network.modules():
        if module.training:
            switches.append(Switch(vars(module), "training", False))
        if hasattr(module, "set_attention_type"):  # transformers switches sparse attention to full for short inputs
            switches.append(Switch(vars(module), "attention_type", AS_FOUND))
            switches += [Switch(module._modules, name, AS_FOUND) for name in module._modules]
    return switches


@contextmanager
def evaluating(network: PreTrainedModel) -> Iterator[None]:
    """Run a network in evaluation mode for the duration of a block, and then return it to its previous mode."""
    with locked(network), switched(network, evaluation_switches(network)):
        yield
