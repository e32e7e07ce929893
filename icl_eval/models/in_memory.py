"""Models in memory: what the weights of a network are, as it stands now."""

import hashlib
import json
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

    It covers the numbers in all tensors, the classes of all modules, both configurations and the tokenizer. What a hook
    or a replaced `forward` computes cannot be known, so a network that has one gets a new digest each time, and no
    earlier result is taken for its own.
    """
    from icl_eval.models.states import read_state

    digest = hashlib.sha256()
    for name, module in network.named_modules():
        digest.update(f"{name} {type(module).__module__}.{type(module).__qualname__}\n".encode())
    state = read_state(network)
    if state is None:
        digest.update(uuid.uuid4().bytes)
    else:
        for name, content in sorted(state.contents.items()):
            digest.update(name.encode() + content)
    for config in (network.config, network.generation_config):
        digest.update(b"" if config is None else str(config.to_json_string()).encode())
    digest.update(_describe_tokenizer(tokenizer).encode())
    return f"memory:sha256={digest.hexdigest()}"


def _describe_tokenizer(tokenizer: "PreTrainedTokenizerBase") -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        pieces = str(sorted(tokenizer.get_vocab().items()))
    else:  # how the last call padded and truncated stays in it, and changes no other call
        pieces = json.dumps({**json.loads(backend.to_str()), "padding": None, "truncation": None})
    return f"{type(tokenizer).__qualname__}{pieces}{tokenizer.chat_template}"
