"""Models in memory: what the weights of a network are, as it stands now."""

import hashlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class WeightsInMemory:
    """The weights of a network that a caller has in memory."""

    name: str
    digest: str

    def identify(self) -> str:
        """Return what the weights are: `memory:sha256=DIGEST`."""
        return self.digest


def digest_network(network: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return a digest of everything that decides what a network in memory computes for a prompt.

    It covers weights, buffers, the kinds of all modules, both configurations and the tokenizer. What a hook or a
    replaced `forward` does cannot be known, so a network that has any gets another digest each time: no earlier result
    is taken for its own. 0.5 s per GB.
    """
    import torch

    digest = hashlib.sha256()
    for module_name, module in network.named_modules():
        kind = type(module)
        digest.update(f"{module_name} {kind.__module__}.{kind.__qualname__}\n".encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    for config in (network.config, network.generation_config):
        digest.update(b"" if config is None else str(config.to_json_string()).encode())
    digest.update(_describe_tokenizer(tokenizer).encode())
    if is_altered(network):
        digest.update(uuid.uuid4().bytes)
    return f"memory:sha256={digest.hexdigest()}"


def is_altered(network: "PreTrainedModel") -> bool:
    """Return whether a module of a network has hooks, or a `forward` of its own in place of its class's."""
    return any(
        "forward" in module.__dict__ or module._forward_hooks or module._forward_pre_hooks
        for module in network.modules()
    )


def _describe_tokenizer(tokenizer: "PreTrainedTokenizerBase") -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    pieces = backend.to_str() if backend is not None else str(sorted(tokenizer.get_vocab().items()))
    return f"{type(tokenizer).__qualname__}{pieces}{tokenizer.chat_template}"
