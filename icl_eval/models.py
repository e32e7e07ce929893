"""Owns language models: what can be known of one without its weights (its card), and loading it.

What a model is, and how long its context may be, is read from its configuration, never from its name.
Loaded models stay for later runs in the same process, as a sweep has them, for as long as there is room.
"""

import gc
import json
import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from icl_eval.errors import ConfigError, ModelUnavailableError
from icl_eval.weights import ModelSpec, Weights, count_bytes, resolve_weights

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

Architecture = Literal["decoder-only", "encoder-decoder"]

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
_HEADROOM = 1.2
"""Decoding needs room beside the weights."""


@dataclass(frozen=True, eq=False)
class ModelCard:
    """A model without its weights: enough to write and check prompts."""

    weights: Weights
    tokenizer: "PreTrainedTokenizerBase"
    architecture: Architecture
    max_length: int | None
    """Number of positions that each side of the model has; None without a hard limit (relative positions)."""

    @property
    def name(self) -> str:
        """What reports call the model."""
        return self.weights.name

    @property
    def identity(self) -> str:
        """What the weights are, wherever they lie; see `Weights.identify`."""
        return self.weights.identify()


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A loaded model: its network is in evaluation mode and takes no gradients."""

    network: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    architecture: Architecture
    name: str
    max_length: int | None
    identity: str
    dtype: str
    device: str


_loaded: OrderedDict[tuple[ModelSpec, str, str, str], LanguageModel] = OrderedDict()
"""The least recently used one comes first."""


def load_model(spec: ModelSpec, dtype: str = "float32", device: str = "auto") -> LanguageModel:
    """Load a model, or return it if it is still loaded.

    Args:
        spec: Where its weights come from.
        dtype: float32, bfloat16, float16 or float64.
        device: auto (cuda if there is one, else cpu), cpu, cuda, cuda:N or mps.

    Raises:
        ConfigError: For a dtype or a device that does not exist here.
        ModelUnavailableError: When weights cannot be fetched, read or trusted, or do not complete text.
    """
    device = choose_device(device)
    if dtype not in _ITEM_BYTES:
        raise ConfigError(f"dtype={dtype!r} is not one of {', '.join(_ITEM_BYTES)}")
    read_architecture(load_config(spec))  # before weights are fetched for nothing
    weights = resolve_weights(spec)
    key = (spec, weights.identify(), dtype, device)
    if key not in _loaded:
        _make_room(count_bytes(weights.folder, spec.allow_pickle, _ITEM_BYTES[dtype]), device)
        _loaded[key] = _load(spec, weights, dtype, device)
    _loaded.move_to_end(key)
    return _loaded[key]


def read_card(spec: ModelSpec) -> ModelCard:
    """Read what can be known without weights; of a hub model, nothing else is fetched."""
    weights = resolve_weights(spec, descriptions_only=True)
    config = load_config(spec)
    return ModelCard(weights, load_tokenizer(spec), read_architecture(config), read_max_length(config))


def load_config(spec: ModelSpec) -> "PreTrainedConfig":
    """Load the model's configuration; raises ModelUnavailableError."""
    from transformers import CONFIG_MAPPING, AutoConfig

    weights = resolve_weights(spec, descriptions_only=True)
    with _reading(weights, "config.json"):
        raw = json.loads((weights.folder / "config.json").read_text(encoding="utf-8"))
        known = raw.get("model_type") in CONFIG_MAPPING
    if "auto_map" in raw and not known and not spec.trust_remote_code:
        raise ModelUnavailableError(
            f"{weights.name} runs Python code of its own (transformers does not know its model type "
            f"{raw.get('model_type')}): set model.trust_remote_code=true if you trust whoever wrote it"
        )
    with _reading(weights, "config.json"):
        return AutoConfig.from_pretrained(weights.folder, **_local(spec))


def load_tokenizer(spec: ModelSpec) -> "PreTrainedTokenizerBase":
    """Load the model's tokenizer; raises ModelUnavailableError."""
    from transformers import AutoTokenizer

    weights = resolve_weights(spec, descriptions_only=True)
    with _reading(weights, "the tokenizer"):
        return AutoTokenizer.from_pretrained(weights.folder, **_local(spec))


def read_architecture(config: "PreTrainedConfig") -> Architecture:
    """Tell from a configuration which sides a model has; raises ModelUnavailableError if it writes no text."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

    own_classes = getattr(config, "auto_map", {})
    if config.is_encoder_decoder:
        classes, auto_class = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, "AutoModelForSeq2SeqLM"
    else:
        classes, auto_class = MODEL_FOR_CAUSAL_LM_MAPPING, "AutoModelForCausalLM"
    if type(config) not in classes and auto_class not in own_classes:
        raise ModelUnavailableError(f"a model of type {config.model_type} cannot complete text ({auto_class})")
    return "encoder-decoder" if config.is_encoder_decoder else "decoder-only"


def read_max_length(config: "PreTrainedConfig") -> int | None:
    """Tell from a configuration how many positions a model has; None if its positions are relative."""
    length = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    return None if length is None else int(length)


def choose_device(name: str) -> str:
    """Return the device that `name` stands for; raises ConfigError if this machine does not have it."""
    import torch

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    available = ["cpu"] + ["cuda", *gpus] * bool(gpus) + ["mps"] * torch.backends.mps.is_available()
    if name == "auto":
        return "cuda" if gpus else "cpu"
    if name not in available:
        raise ConfigError(f"device={name!r} is not available here: auto, {', '.join(available)} are")
    return name


def _load(spec: ModelSpec, weights: Weights, dtype: str, device: str) -> LanguageModel:
    card = read_card(spec)
    network = _load_network(spec, card, dtype, device)
    if card.architecture == "decoder-only" and not _is_causal(network):
        raise ModelUnavailableError(
            f"{card.name} is neither decoder-only nor encoder-decoder: its tokens see those that follow them"
        )
    identity = card.identity
    return LanguageModel(
        network, card.tokenizer, card.architecture, card.name, card.max_length, identity, dtype, device
    )


def _load_network(spec: ModelSpec, card: ModelCard, dtype: str, device: str) -> "PreTrainedModel":
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    auto_class = AutoModelForSeq2SeqLM if card.architecture == "encoder-decoder" else AutoModelForCausalLM
    with _reading(card.weights, "the weights", quiet=True):
        network, found = auto_class.from_pretrained(
            card.weights.folder,
            dtype=getattr(torch, dtype),
            device_map={"": device},
            use_safetensors=None if spec.allow_pickle else True,
            output_loading_info=True,
            **_local(spec),
        )
    if missing := sorted(found["missing_keys"]):
        raise ModelUnavailableError(f"{card.name} lacks {len(missing)} of its weights: {_some(missing)}")
    if unexpected := sorted(found["unexpected_keys"]):
        logger.warning("%s has weights that its network does not use: %s", card.name, _some(unexpected))
    return network.eval().requires_grad_(False)


def _is_causal(network: "PreTrainedModel") -> bool:
    """Try whether the first token's logits stay the same when the second token changes."""
    import torch

    pairs = torch.tensor([[0, 1], [0, 2]], device=network.device)
    with torch.inference_mode():
        first, second = network(input_ids=pairs).logits[:, 0].float()
    return bool((first - second).abs().max() <= 0.01 * first.abs().max())


def _make_room(needed: int, device: str) -> None:
    """Let go of loaded models, the least recently used first, until `needed` bytes are free."""
    while _loaded and _free_bytes(device) < needed * _HEADROOM:
        _loaded.popitem(last=False)
        gc.collect()
        if device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()


def _free_bytes(device: str) -> int:
    """Return how much memory can still be had, or 0 where that cannot be told."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    try:
        memory = Path("/proc/meminfo").read_text()
    except OSError:
        return 0
    return int(memory.split("MemAvailable:")[1].split()[0]) * 1024


def _local(spec: ModelSpec) -> dict[str, Any]:
    return {"local_files_only": True, "trust_remote_code": spec.trust_remote_code}


@contextmanager
def _reading(weights: Weights, what: str, quiet: bool = False) -> Iterator[None]:
    """Say in one sentence what could not be read; with `quiet`, without transformers' reports on the way."""
    from transformers.utils import logging as library

    verbosity, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.disable_progress_bar()
    if quiet:
        library.set_verbosity_error()
    try:
        yield
    except Exception as error:  # a damaged file can raise nearly anything in transformers and below
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        message = f"{what} of {weights.name} cannot be read ({reason}): {weights.remedy}"
        raise ModelUnavailableError(message) from error
    finally:
        library.set_verbosity(verbosity)
        if bars:
            library.enable_progress_bar()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
