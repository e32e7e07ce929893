"""States: everything that decides what a network computes, so that nothing is kept beyond a change of it.

A network is plain when only the library's code runs in its forward pass. What that computes is decided by the modules
and their settings (`structure`) and by the numbers in parameters and buffers (`contents`). The numbers themselves are
compared, since edits of `parameter.data` change no version counter. Code of the caller's, such as a steering hook, may
go by anything; where there is some, no state can be told.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import xxhash
from torch.nn.modules import module as torch_module
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

_LIBRARIES = ("torch", "transformers", "transformers_modules")
"""Where the library's code is, the last for what comes with a model (`trust_remote_code`)."""
_IGNORED = frozenset({*vars(torch.nn.Module()), "config", "generation_config"})
"""Attributes of any module: its parts and its config, which are looked at by themselves, whether it is being trained,
and what decides of tokens alone."""

Structure = tuple[Any, ...]


class Observer:
    """A hook that looks at what passes and changes nothing."""

    def __init__(self, look: Callable[..., None]):
        """Take what is to be called with the hook's arguments."""
        self._look = look

    def __call__(self, *arguments: Any) -> None:
        """Look."""
        self._look(*arguments)


@dataclass(frozen=True)
class State:
    """What a plain network computes with."""

    structure: Structure
    contents: Mapping[str, bytes]
    """Digests of all tensors, by name."""


def read_state(network: PreTrainedModel) -> State | None:
    """Return the state of a network, None where it cannot be told."""
    if not _is_plain(network):
        return None
    try:
        contents = {name: _digest(tensor) for name, tensor in _tensors(network)}
    except (NotImplementedError, RuntimeError, TypeError):  # a kind of tensor that shows no numbers
        return None
    return State(_structure(network), contents)


def has_hooks(module: torch.nn.Module) -> bool:
    """Return whether hooks could change what a module gets or gives."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return not all(isinstance(hook, Observer) for hook in hooks)


def _is_plain(network: PreTrainedModel) -> bool:
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return False
    functions = (ALL_ATTENTION_FUNCTIONS.get(config._attn_implementation) for config in configs_of(network))
    return all(map(_is_plain_module, network.modules())) and all(map(_is_the_librarys, filter(None, functions)))


def _is_plain_module(module: torch.nn.Module) -> bool:
    own = vars(module)
    if "forward" in own or has_hooks(module):
        return False
    code = [type(module), type(module).forward, *filter(callable, own.values())]
    return all(map(_is_the_librarys, code))


def _is_the_librarys(code: Any) -> bool:
    while isinstance(code, partial):
        code = code.func
    return str(getattr(code, "__module__", None)).partition(".")[0] in _LIBRARIES


def configs_of(network: PreTrainedModel) -> list[PreTrainedConfig]:
    """Return the different config objects in a network; an encoder often has its own."""
    found: dict[int, PreTrainedConfig] = {}
    unread = [module.config for module in network.modules() if isinstance(vars(module).get("config"), PreTrainedConfig)]
    while unread:
        config = unread.pop()
        if id(config) not in found:
            found[id(config)] = config
            parts = (getattr(config, name, None) for name in config.sub_configs)
            unread += [part for part in parts if isinstance(part, PreTrainedConfig)]
    return list(found.values())


def _structure(network: PreTrainedModel) -> Structure:
    modules = tuple((name, type(part), type(part).forward, _settings(part)) for name, part in network.named_modules())
    configs = tuple((str(config.to_dict()), config._attn_implementation) for config in configs_of(network))
    return modules, configs, network.dtype, network.device


def _settings(module: torch.nn.Module) -> tuple[tuple[str, Any], ...]:
    """Return the numbers, names and choices that are attributes of a module."""
    own = vars(module)
    return tuple((name, _setting(own[name])) for name in own if name not in _IGNORED)


def _setting(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return type(value)  # its numbers are contents
    return value if callable(value) else repr(value)


def _tensors(network: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    yield from network.named_parameters(remove_duplicate=False)
    yield from network.named_buffers(remove_duplicate=False)
    for module_name, module in network.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, torch.Tensor):
                yield f"{module_name}.{name}", value


def _digest(tensor: torch.Tensor) -> bytes:
    """Return a digest of a tensor's numbers, in their order."""
    numbers = tensor.detach()
    if numbers.device.type != "cpu":
        numbers = _sums(numbers).cpu()  # in place of gigabytes
    content: Any = numbers.reshape(-1).view(torch.uint8).numpy()
    return f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + xxhash.xxh3_128_digest(content)


def _sums(numbers: torch.Tensor) -> torch.Tensor:
    """Return the sums over lines and over columns, of the numbers' bits: no two edits in use leave both as they are."""
    table = numbers.reshape(len(numbers) if numbers.dim() else 1, -1)
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[table.element_size()]
    whole = table.contiguous().view(bits)
    return torch.cat([whole.sum(0, dtype=torch.int64), whole.sum(1, dtype=torch.int64)])
