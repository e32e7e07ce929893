"""Identify the weights of a network in memory by their current contents."""

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
        """Return the identity of the weights, `memory:sha256=DIGEST`."""
        return self.digest


def digest_network(network: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return a digest of everything that determines the output of a network in memory for a prompt.

    The digest covers the numbers in all tensors, the classes of all modules, both configurations and the tokenizer. It
    cannot cover the computation of a hook or of a replaced `forward`. A network that has one gets a new digest each
    time, so that no earlier result is reused for it.
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
    else:  # the padding and truncation of the last call are stored in it, but affect no other call
        pieces = json.dumps({**json.loads(backend.to_str()), "padding": None, "truncation": None})
    return f"{type(tokenizer).__qualname__}{pieces}{tokenizer.chat_template}"
