"""Loading: language models, from files or from a caller's memory.

Loaded models stay in memory for later runs in the same process, such as the cells of a sweep, as long as there is room.
"""

import gc
import logging
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_eval.errors import ConfigError, ModelUnavailableError
from icl_eval.models.cards import (
    Architecture,
    ModelCard,
    describe_in_memory,
    read_architecture,
    read_card,
    read_max_length,
    reading,
)
from icl_eval.models.devices import check_device_map, choose_device
from icl_eval.models.in_memory import WeightsInMemory, digest_network
from icl_eval.models.memory import free_bytes, swap_bytes
from icl_eval.models.networks import ITEM_BYTES, load_network, plan_network
from icl_eval.models.quantization import find_quantization
from icl_eval.models.specs import ModelSpec
from icl_eval.models.weights import identify, list_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


_HEADROOM = 1.2
"""Decoding needs memory in addition to the weights."""


@dataclass(frozen=True, eq=False, repr=False)
class LanguageModel:
    """A loaded model; every function that runs its network leaves it unchanged.

    A network loaded by `load_model` is in evaluation mode and needs no gradients. Any other network is switched to
    evaluation mode while it runs.
    """

    network: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    architecture: Architecture
    name: str
    max_length: int | None
    identity: str | None
    """The identity of the weights on disk; None for a network that a caller has in memory."""
    dtype: str
    device: str

    def __repr__(self) -> str:
        return f"<LanguageModel {self.name}: {self.architecture}, {self.dtype} on {self.device}>"

    @classmethod
    def of(
        cls, network: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", name: str | None = None
    ) -> "LanguageModel":
        """Return a network and a tokenizer in memory as a model; neither is changed.

        >>> loaded = icl_eval.load_model("icl_t5")
        >>> model = icl_eval.LanguageModel.of(loaded.network, loaded.tokenizer, name="mine")
        >>> model.name, model.architecture
        ('mine', 'encoder-decoder')

        Args:
            network: A decoder-only or encoder-decoder network of transformers. Its weights, hooks and modules may
                change at any time: each call uses the network in its current state.
            tokenizer: Its tokenizer.
            name: The model's name in reports; None for the name in the network's configuration.

        Raises:
            ConfigError: If an argument is of another kind.
            ModelUnavailableError: If the network does not complete text.
        """
        _check_kinds(network, tokenizer, name)
        name = name or Path(network.config._name_or_path).name or type(network).__name__
        architecture = read_architecture(network.config, name)
        _require_generation(network, name)
        require_causal(network, architecture, name)
        return cls(
            network=network,
            tokenizer=tokenizer,
            architecture=architecture,
            name=name,
            max_length=read_max_length(network.config),
            identity=None,
            dtype=str(network.dtype).removeprefix("torch."),
            device=str(network.device),
        )

    def pin(self) -> "LanguageModel":
        """Return the model with the identity of its current contents, no matter where it was loaded from."""
        return replace(self, identity=digest_network(self.network, self.tokenizer))

    def identify(self) -> str:
        """Return the identity of the weights; if it is unknown, a digest of their current contents."""
        return self.identity or digest_network(self.network, self.tokenizer)


ModelSource = ModelSpec | LanguageModel
"""Where a model comes from: a specification, or a model that a caller has in memory."""

_loaded: OrderedDict[tuple[ModelSpec, str, str, str], LanguageModel] = OrderedDict()
"""Loaded models by source, weights identity, dtype and device; the least recently used one comes first."""


def load_model(source: ModelSource, dtype: str = "float32", device: str = "auto") -> LanguageModel:
    """Load a model, or return it if it is still loaded.

    Args:
        source: Where the weights come from; a model in memory is returned unchanged.
        dtype: float32, bfloat16, float16 or float64.
        device: auto (cuda if available, else cpu), cpu, cuda, cuda:N or mps.

    Raises:
        ConfigError: If the dtype is unknown or the device is not available.
        ModelUnavailableError: If the weights cannot be fetched or read, are not trusted, or do not complete text.
    """
    if isinstance(source, LanguageModel):
        return source
    check_device_map(source.device_map, device)
    device = choose_device(device)
    if dtype not in ITEM_BYTES:
        raise ConfigError(f"dtype={dtype!r}: must be one of {', '.join(ITEM_BYTES)}")
    key = (source, identify(source), dtype, device)
    if key not in _loaded:
        _loaded[key] = _load(source, find_card(source), dtype, device)
    _loaded.move_to_end(key)
    return _loaded[key]


def describe_loaded(source: ModelSource, dtype: str, device: str) -> dict[str, Any]:
    """Return how the network of a loaded model runs, for the report; an empty dict if it is not loaded."""
    if isinstance(source, LanguageModel):
        return _describe_network(source.network)
    models = (model for key, model in _loaded.items() if key[0] == source and key[2:] == (dtype, choose_device(device)))
    model = next(models, None)
    return {} if model is None else _describe_network(model.network)


def _describe_network(network: "PreTrainedModel") -> dict[str, Any]:
    places = getattr(network, "hf_device_map", None) or {"": network.device}
    quantization = find_quantization(network.config)
    return {
        "attn_implementation": network.config._attn_implementation,
        "devices": {str(module): str(place) for module, place in places.items()},
        "quantization": None if quantization is None else quantization["quant_method"],
    }


_MOST_CARDS = 4
_cards: OrderedDict[ModelSpec, tuple[object, ModelCard]] = OrderedDict()
"""The cards that were read last, each with the state of its files; the cells of a sweep read the same ones."""


def find_card(source: ModelSource) -> ModelCard:
    """Return the card of a model on disk, read again if a file has changed, or in memory."""
    if isinstance(source, LanguageModel):
        weights = WeightsInMemory(source.name, source.identify())
        return describe_in_memory(source.network, source.tokenizer, weights)
    files = list_files(source)
    if source in _cards and _cards[source][0] == files:
        return _cards[source][1]
    card = read_card(source)
    _cards[source] = (files, card)
    while len(_cards) > _MOST_CARDS:
        _cards.popitem(last=False)
    return card


def load_own(spec: ModelSpec, dtype: str, device: str) -> LanguageModel:
    """Load a model as a private copy, which the caller may change; see `load_model`."""
    return _load(spec, read_card(spec), dtype, device)  # the card first: no weights are fetched for a refused model


def _load(spec: ModelSpec, card: ModelCard, dtype: str, device: str) -> LanguageModel:
    plan = plan_network(spec, card, dtype, device)
    if spec.device_map is None:
        _make_room(card.name, plan.num_bytes, dtype, device)
    network = load_network(plan)
    with reading(plan.weights, "config.json"):
        require_causal(network, card.architecture, card.name)
    return LanguageModel(
        network=network,
        tokenizer=card.tokenizer,
        architecture=card.architecture,
        name=card.name,
        max_length=card.max_length,
        identity=identify(spec),
        dtype=dtype,
        device=str(network.device) if spec.device_map else device,
    )


def _check_kinds(network: object, tokenizer: object, name: object) -> None:
    """Refuse what is no network, tokenizer or name; a compiled network and one with adapters have its attributes."""
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    if not isinstance(getattr(network, "config", None), PreTrainedConfig):
        raise ConfigError(f"network: a {type(network).__name__}, but must be a network of transformers")
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ConfigError(f"tokenizer: a {type(tokenizer).__name__}, but must be a tokenizer of transformers")
    if not isinstance(name, str | None):
        raise ConfigError(f"name={name!r}: must be a string")


def _require_generation(network: "PreTrainedModel", name: str) -> None:
    """Refuse a network without a language modeling head, a generation config or weights."""
    if getattr(network, "generation_config", None) is None:
        raise ModelUnavailableError(
            f"{name}: a {type(network).__name__} without a generation config, which does not complete text; must be a "
            "network with a language modeling head, such as those of AutoModelForCausalLM and AutoModelForSeq2SeqLM"
        )
    if network.device.type == "meta":
        raise ModelUnavailableError(f"{name}: its network is on the device 'meta', without weights")


def require_causal(network: "PreTrainedModel", architecture: Architecture, name: str) -> None:
    """Raise ModelUnavailableError for a network without an encoder whose attention is not causal."""
    if architecture == "decoder-only" and not _is_causal(network):
        raise ModelUnavailableError(
            f"{name} is neither decoder-only nor encoder-decoder: its tokens attend to later tokens"
        )


def _is_causal(network: "PreTrainedModel") -> bool:
    """Return whether tokens attend only to earlier tokens.

    `is_decoder` is false for encoders such as BERT, but also for GPT-NeoX (transformers 5.23). In that case a trial
    decides: the first token's logits must stay the same when the second token changes.
    """
    import torch

    if getattr(network.config, "is_decoder", True):
        return True
    from icl_eval.models.switching import evaluating

    pairs = torch.tensor([[0, 1], [0, 2]], device=network.device)
    with torch.inference_mode(), evaluating(network):
        first, second = network(input_ids=pairs).logits[:, 0].float()
    return bool((first - second).abs().max() <= 0.01 * first.abs().max())


def _make_room(name: str, needed: int, dtype: str, device: str) -> None:
    """Unload models, the least recently used first, until `needed` bytes are free.

    Raises:
        ModelUnavailableError: If the weights do not fit even then.
    """
    while _loaded and free_bytes(device) < needed * _HEADROOM:
        _loaded.popitem(last=False)
        gc.collect()
    free = free_bytes(device) + swap_bytes(device)
    if 0 < free < needed:
        raise ModelUnavailableError(
            f"{name} needs {needed / 1e9:,.1f} GB in {dtype}, and {device} has {free / 1e9:,.1f} GB free: use another "
            "dtype, model.quantization, or model.device_map=auto, which spreads its layers over devices"
        )
