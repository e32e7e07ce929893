"""Switching: what we change in a network is changed for the time of a block, and then is what it was.

All of it are attributes of objects in the network. A switch names one; `switched` sets them and puts back what was
there, also when the block fails. Between two blocks the network is the one that its caller knows.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from threading import RLock
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from transformers import PreTrainedModel

AS_FOUND: Final = object()
"""The value of a switch that changes nothing, and only puts back what the library changes in the block."""
_ABSENT: Final = object()

_LOCKS: "WeakKeyDictionary[PreTrainedModel, RLock]" = WeakKeyDictionary()
"""One thread at a time: two streams may share a network."""


class Switch(NamedTuple):
    """One attribute, and the value that it has in a block."""

    attributes: dict[str, Any]
    """The `vars` of the object."""
    name: str
    value: object


@contextmanager
def switched(network: PreTrainedModel, switches: Sequence[Switch]) -> Iterator[None]:
    """Set attributes in a network for the time of a block."""
    with _LOCKS.setdefault(network, RLock()):
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
    """Return what puts a network into evaluation mode: no dropout, and each input is attended to as the config says."""
    switches = []
    for module in network.modules():
        if module.training:
            switches.append(Switch(vars(module), "training", False))
        if hasattr(module, "set_attention_type"):  # the library turns sparse attention into full for short inputs
            switches.append(Switch(vars(module), "attention_type", AS_FOUND))
            switches += [Switch(module._modules, name, AS_FOUND) for name in module._modules]
    return switches


def evaluating(network: PreTrainedModel) -> AbstractContextManager[None]:
    """Let a network run in evaluation mode for the time of a block; it returns to the mode it was in."""
    return switched(network, evaluation_switches(network))
