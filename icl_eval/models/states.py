"""Read the state of a network: everything that its output depends on, so that caches are dropped when it changes.

A network is plain if only code of torch, transformers and the libraries that it loads with runs in its forward pass.
Its output then depends on the modules and their settings (`structure`) and on the numbers in parameters and buffers
(`contents`). The numbers themselves are compared, since edits of `parameter.data` change no version counter. Code of
the caller, such as a steering hook, may depend on anything, so a network with such code has no known state.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import xxhash
from torch.nn.modules import module as torch_module
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from icl_eval.models.switching import locked

_LIBRARIES = (
    "torch",
    "transformers",
    "transformers_modules",
    "accelerate",
    "bitsandbytes",
    "optimum",
    "peft",
    "torchao",
)
"""Packages whose code counts as plain; transformers_modules holds the code that comes with a model
(`trust_remote_code`)."""
_IGNORED = frozenset({*vars(torch.nn.Module()), "config", "generation_config"})
"""Module attributes that are not settings: submodules and configs are read separately, and the training flag and the
generation config do not change logits."""

Structure = tuple[Any, ...]


class Observer:
    """A hook that observes inputs and outputs and changes nothing."""

    def __init__(self, observe: Callable[..., None]):
        """Take the function to call with the hook's arguments."""
        self._observe = observe

    def __call__(self, *arguments: Any) -> None:
        """Pass the hook's arguments on."""
        self._observe(*arguments)


@dataclass(frozen=True)
class State:
    """The state of a plain network."""

    structure: Structure
    contents: Mapping[str, bytes]
    """Digests of all tensors, by name."""


def read_state(network: PreTrainedModel) -> State | None:
    """Return the state of a network, or None if it is unknown."""
    with locked(network):
        if not _is_plain(network):
            return None
        try:
            plain = (each for name, tensor in _list_tensors(network) for each in _list_parts(name, tensor))
            contents = {name: _digest(tensor) for name, tensor in plain}
        except (NotImplementedError, RuntimeError, TypeError):  # a kind of tensor whose numbers cannot be read
            return None
        return State(_read_structure(network), contents)


def has_hooks(module: torch.nn.Module) -> bool:
    """Return whether a module has hooks that could change its inputs or outputs."""
    return not all(isinstance(hook, Observer) or _is_capturing(hook) for hook in _hooks_of(module))


def is_observed(network: PreTrainedModel) -> bool:
    """Return whether a module of a network has an observer."""
    return any(isinstance(hook, Observer) for module in network.modules() for hook in _hooks_of(module))


def _hooks_of(module: torch.nn.Module) -> list[Any]:
    return [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]


def _is_capturing(hook: Any) -> bool:
    """Return whether a hook collects outputs; transformers leaves such hooks behind after `output_hidden_states`."""
    return getattr(hook, "__module__", None) == "transformers.utils.output_capturing"


def _is_plain(network: PreTrainedModel) -> bool:
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return False
    functions = (ALL_ATTENTION_FUNCTIONS.get(config._attn_implementation) for config in configs_of(network))
    return all(map(_is_plain_module, network.modules())) and all(map(_is_library_code, filter(None, functions)))


def _is_plain_module(module: torch.nn.Module) -> bool:
    own = vars(module)
    if ("forward" in own and not _is_dispatched(module)) or has_hooks(module):
        return False
    code = [type(module), type(module).forward, *filter(callable, own.values())]
    return all(map(_is_library_code, code))


def _is_dispatched(module: torch.nn.Module) -> bool:
    """Return whether a module's `forward` is replaced by accelerate's, which moves its inputs to its device."""
    forward = vars(module)["forward"]
    code = forward.func if isinstance(forward, partial) else forward
    return getattr(code, "__module__", None) == "accelerate.hooks" and _is_library_code(type(vars(module)["_hf_hook"]))


def _is_library_code(code: Any) -> bool:
    while isinstance(code, partial):
        code = code.func
    return str(getattr(code, "__module__", None)).partition(".")[0] in _LIBRARIES


def configs_of(network: PreTrainedModel) -> list[PreTrainedConfig]:
    """Return the distinct config objects in a network; an encoder often has its own."""
    by_id: dict[int, PreTrainedConfig] = {}
    unread = [module.config for module in network.modules() if isinstance(vars(module).get("config"), PreTrainedConfig)]
    while unread:
        config = unread.pop()
        if id(config) not in by_id:
            by_id[id(config)] = config
            parts = (getattr(config, name, None) for name in config.sub_configs)
            unread += [part for part in parts if isinstance(part, PreTrainedConfig)]
    return list(by_id.values())


def _read_structure(network: PreTrainedModel) -> Structure:
    modules = tuple(
        (name, type(part), type(part).forward, _read_settings(part)) for name, part in network.named_modules()
    )
    configs = tuple((str(config.to_dict()), config._attn_implementation) for config in configs_of(network))
    return modules, configs, network.dtype, network.device


def _read_settings(module: torch.nn.Module) -> tuple[tuple[str, Any], ...]:
    """Return the attributes of a module that are settings, such as numbers and names."""
    own = vars(module)
    return tuple((name, _describe_setting(own[name])) for name in own if name not in _IGNORED)


def _describe_setting(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return type(value)  # its numbers are part of the contents
    return value if callable(value) else repr(value)


def _list_tensors(network: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    for name, parameter in network.named_parameters(remove_duplicate=False):
        yield name, parameter
        for key, scale in vars(getattr(parameter, "quant_state", parameter)).items():  # of bitsandbytes
            if isinstance(scale, torch.Tensor):
                yield f"{name}.{key}", scale
    yield from network.named_buffers(remove_duplicate=False)
    for module_name, module in network.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, torch.Tensor):
                yield f"{module_name}.{name}", value


def _list_parts(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a tensor, or the tensors of which a quantized one consists, such as integers and their scales."""
    if not is_traceable_wrapper_subclass(tensor):
        yield name, tensor
        return
    for part in tensor.__tensor_flatten__()[0]:
        yield from _list_parts(f"{name}.{part}", getattr(tensor, part))


def _digest(tensor: torch.Tensor) -> bytes:
    """Return a digest of a tensor's dtype, shape and numbers."""
    numbers = tensor.detach()
    if numbers.device.type != "cpu":
        numbers = _sum_bits(numbers).cpu()  # instead of copying gigabytes
    content: Any = numbers.reshape(-1).view(torch.uint8).numpy()
    return f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + xxhash.xxh3_128_digest(content)


def _sum_bits(numbers: torch.Tensor) -> torch.Tensor:
    """Sum the numbers' bits, as integers, over rows and over columns; no edit in practice preserves both sums."""
    table = numbers.reshape(len(numbers) if numbers.dim() else 1, -1)
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[table.element_size()]
    whole = table.contiguous().view(bits)
    return torch.cat([whole.sum(0, dtype=torch.int64), whole.sum(1, dtype=torch.int64)])
