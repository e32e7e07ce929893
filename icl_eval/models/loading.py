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
    build_local_options,
    describe_in_memory,
    read_architecture,
    read_card,
    read_max_length,
    reading,
)
from icl_eval.models.in_memory import WeightsInMemory, digest_network
from icl_eval.models.memory import free_bytes
from icl_eval.models.weights import ModelSpec, Weights, count_bytes, resolve_weights
from icl_eval.models.weights.fitting import check_layers, check_loading, check_numbers, check_room

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
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
    device = choose_device(device)
    if dtype not in _ITEM_BYTES:
        raise ConfigError(f"dtype={dtype!r}: must be one of {', '.join(_ITEM_BYTES)}")
    key = (source, resolve_weights(source, descriptions_only=True).identify(), dtype, device)
    if key not in _loaded:
        _loaded[key] = load_own(source, dtype, device)
    _loaded.move_to_end(key)
    return _loaded[key]


def find_card(source: ModelSource) -> ModelCard:
    """Return the card of a model on disk or in memory."""
    if isinstance(source, LanguageModel):
        weights = WeightsInMemory(source.name, source.identify())
        return describe_in_memory(source.network, source.tokenizer, weights)
    return read_card(source)


def choose_device(name: str) -> str:
    """Return the device for a name; raises ConfigError if this machine does not have it."""
    import torch

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    available = ["cpu"] + ["cuda", *gpus] * bool(gpus) + ["mps"] * torch.backends.mps.is_available()
    if name == "auto":
        return "cuda" if gpus else "cpu"
    if name not in available:
        raise ConfigError(
            f"device={name!r}: not available on this machine; must be one of auto, {', '.join(available)}"
        )
    return name


def load_own(spec: ModelSpec, dtype: str, device: str) -> LanguageModel:
    """Load a model as a private copy, which the caller may change; see `load_model`."""
    card = read_card(spec)  # first, so that no weights are fetched for a refused model
    weights = resolve_weights(spec)
    _check_described(spec, card, weights)
    _make_room(count_bytes(weights.folder, spec.allow_pickle, _ITEM_BYTES[dtype]), device)
    network = _load_network(spec, card, weights, dtype, device)
    with reading(weights, "config.json"):
        require_causal(network, card.architecture, card.name)
    return LanguageModel(
        network=network,
        tokenizer=card.tokenizer,
        architecture=card.architecture,
        name=card.name,
        max_length=card.max_length,
        identity=card.identity,
        dtype=dtype,
        device=device,
    )


def _check_described(spec: ModelSpec, card: ModelCard, weights: Weights) -> None:
    """Refuse a configuration that describes a larger network than the files can fill, before allocating it."""
    import torch

    check_layers(weights.folder, spec.allow_pickle, card.config, card.name)
    if not type(card.config).__module__.startswith("transformers."):
        return  # building it would run the model's own code
    with reading(weights, "config.json"), torch.device("meta"):
        described = _auto_class(card).from_config(card.config).num_parameters()
    check_room(weights.folder, spec.allow_pickle, described, card.name)


def _auto_class(card: ModelCard) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if card.architecture == "encoder-decoder" else AutoModelForCausalLM


def _load_network(spec: ModelSpec, card: ModelCard, weights: Weights, dtype: str, device: str) -> "PreTrainedModel":
    import torch

    with reading(weights, "the weights", reports=False):  # reported below
        network, loading_info = _auto_class(card).from_pretrained(
            weights.folder,
            dtype=getattr(torch, dtype),
            device_map={"": device},
            use_safetensors=None if spec.allow_pickle else True,
            ignore_mismatched_sizes=True,  # refused below; transformers would refer to its report, which is hidden
            output_loading_info=True,
            **build_local_options(spec),
        )
    check_loading(card.name, network, loading_info)
    check_numbers(weights.folder, card.name, network, dtype)
    if network.generation_config and network.generation_config.max_time is not None:
        logger.warning(
            "%s: max_time=%s of its generation config is ignored: completions have no time limit",
            card.name,
            network.generation_config.max_time,
        )
    return network.eval().requires_grad_(False)


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
    pairs = torch.tensor([[0, 1], [0, 2]], device=network.device)
    with torch.inference_mode():
        first, second = network(input_ids=pairs).logits[:, 0].float()
    return bool((first - second).abs().max() <= 0.01 * first.abs().max())


def _make_room(needed: int, device: str) -> None:
    """Unload models, the least recently used first, until `needed` bytes are free."""
    while _loaded and free_bytes(device) < needed * _HEADROOM:
        _loaded.popitem(last=False)
        gc.collect()
