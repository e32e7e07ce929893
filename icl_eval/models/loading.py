"""Load language models, and read what can be known of one without its weights (its card).

A model's architecture and context length are read from its configuration, never from its name. Loaded models stay in
memory for later runs in the same process, such as the cells of a sweep, as long as there is room.
"""

import gc
import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from icl_eval.errors import ConfigError, ModelUnavailableError, UserError
from icl_eval.formatting import list_names
from icl_eval.models.in_memory import WeightsInMemory, digest_network
from icl_eval.models.memory import free_bytes, is_out_of_memory
from icl_eval.models.quiet import quiet_transformers
from icl_eval.models.weights import ModelSpec, Weights, check_generation_config, count_bytes, resolve_weights
from icl_eval.models.weights.fitting import check_layers, check_loading, check_numbers, check_room, check_sizes
from icl_eval.models.weights.folders import read_json_object

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

Architecture = Literal["decoder-only", "encoder-decoder"]

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
_HEADROOM = 1.2
"""Decoding needs memory in addition to the weights."""


@dataclass(frozen=True, eq=False)
class ModelCard:
    """A model without its weights, which is enough to write and check prompts."""

    weights: Weights | WeightsInMemory
    config: "PreTrainedConfig"
    tokenizer: "PreTrainedTokenizerBase"
    architecture: Architecture
    max_length: int | None
    """Number of positions of the encoder and of the decoder; None if positions are relative, without a hard limit."""
    max_encoder_length: int | None
    """Number of positions of the encoder, if it differs from the decoder's (LED)."""
    task_prefixes: Mapping[str, str]
    """The prompt prefix of each task that the model was trained on, from `task_specific_params`."""
    generation: "GenerationConfig"
    """The generation config from the model's files."""

    @property
    def name(self) -> str:
        """The model's name in reports."""
        return self.weights.name

    @property
    def identity(self) -> str:
        """The identity of the weights, independent of where they are stored; see `Weights.identify`."""
        return self.weights.identify()

    def require_vectors(self, ids: Iterable[int]) -> None:
        """Refuse a prompt with tokens that have no embedding in the network; raises ModelUnavailableError."""
        _refuse_unknown(self.tokenizer, self.name, _count_embeddings(self.config), ids)


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
            ModelUnavailableError: If the network does not complete text.
        """
        name = name or Path(network.config._name_or_path).name or type(network).__name__
        architecture = read_architecture(network.config, name)
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


def read_card(spec: ModelSource) -> ModelCard:
    """Read what can be known of a model without its weights; the weights of a hub model are not fetched."""
    from transformers import AutoConfig

    if isinstance(spec, LanguageModel):
        return _card_in_memory(spec)
    weights = resolve_weights(spec, descriptions_only=True)
    _refuse_own_code(spec, weights)
    with _reading(weights, "config.json"):
        config = AutoConfig.from_pretrained(weights.folder, **_local_options(spec))
    check_sizes(config, weights.name)
    architecture = read_architecture(config, weights.name)
    num_tokens = _count_embeddings(config)
    with _reading(weights, "the tokenizer"):
        tokenizer = _load_tokenizer(weights.folder, spec)
    _check_tokenizer(tokenizer, weights.name, num_tokens)
    check_generation_config(weights.folder, num_tokens)
    return ModelCard(
        weights=weights,
        config=config,
        tokenizer=tokenizer,
        architecture=architecture,
        max_length=read_max_length(config),
        max_encoder_length=getattr(config, "max_encoder_position_embeddings", None),
        task_prefixes=read_task_prefixes(config),
        generation=_read_generation(weights, config),
    )


def read_architecture(config: "PreTrainedConfig", name: str) -> Architecture:
    """Return the architecture that a configuration describes; raises ModelUnavailableError if it writes no text."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

    own_classes = getattr(config, "auto_map", {})
    if config.is_encoder_decoder:
        known, auto_class = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, "AutoModelForSeq2SeqLM"
    else:
        known, auto_class = MODEL_FOR_CAUSAL_LM_MAPPING, "AutoModelForCausalLM"
    if type(config) not in known and auto_class not in own_classes:
        raise ModelUnavailableError(f"{name} is a model of type {config.model_type}, which does not complete text")
    return "encoder-decoder" if config.is_encoder_decoder else "decoder-only"


def read_max_length(config: "PreTrainedConfig") -> int | None:
    """Return the number of positions in a configuration, or None if positions are relative."""
    decoder = config.get_text_config(decoder=True)
    for name in ("max_position_embeddings", "max_decoder_position_embeddings", "max_seq_len"):
        length = getattr(decoder, name, None)
        if length is not None:
            return int(length)
    return None


def read_task_prefixes(config: "PreTrainedConfig") -> dict[str, str]:
    """Return the prompt prefix of each task for which a configuration has parameters."""
    params = getattr(config, "task_specific_params", None) or {}
    if not isinstance(params, dict) or not all(isinstance(options, dict) for options in params.values()):
        raise ModelUnavailableError(
            f"config.json is damaged: task_specific_params={params!r} must map each task to its options"
        )
    prefixes = {task: options["prefix"] for task, options in params.items() if options.get("prefix")}
    for task, prefix in prefixes.items():
        if not isinstance(prefix, str):
            raise ModelUnavailableError(
                f"config.json is damaged: the prefix of task {task!r} must be a string, not {prefix!r}"
            )
    return prefixes


def _card_in_memory(model: LanguageModel) -> ModelCard:
    config = model.network.config
    generation = model.network.generation_config or GenerationConfig.from_model_config(config)
    return ModelCard(
        weights=WeightsInMemory(model.name, model.identify()),
        config=config,
        generation=generation,
        tokenizer=model.tokenizer,
        architecture=model.architecture,
        max_length=model.max_length,
        max_encoder_length=getattr(config, "max_encoder_position_embeddings", None),
        task_prefixes=read_task_prefixes(config),
    )


def _read_generation(weights: Weights, config: "PreTrainedConfig") -> "GenerationConfig":
    from transformers import GenerationConfig

    with _reading(weights, "generation_config.json"):
        try:
            return GenerationConfig.from_pretrained(weights.folder, local_files_only=True)
        except OSError:  # the file is missing: older models have these keys in config.json
            return GenerationConfig.from_model_config(config)


def _count_embeddings(config: "PreTrainedConfig") -> int | None:
    """Return the number of tokens that have an embedding; None if the configuration does not say."""
    count: Any = getattr(config.get_text_config(decoder=True), "vocab_size", None)
    return count if isinstance(count, int) else None


def _load_tokenizer(folder: Path, spec: ModelSpec) -> Any:
    from transformers import AutoTokenizer
    from transformers.utils import is_protobuf_available

    try:
        return AutoTokenizer.from_pretrained(folder, **_local_options(spec))
    except Exception as error:
        # transformers then falls back to tiktoken and asks for that package, which cannot read the file either.
        if "tiktoken" in str(error) and any(folder.glob("*.model")) and not is_protobuf_available():
            raise ImportError("reading a SentencePiece model requires protobuf: pip install protobuf") from error
        raise


def _check_tokenizer(tokenizer: "PreTrainedTokenizerBase", name: str, num_tokens: int | None) -> None:
    """Refuse a tokenizer that does not fit the network, or a damaged one that transformers accepted."""
    longest, template = tokenizer.model_max_length, tokenizer.chat_template
    if isinstance(longest, bool) or not isinstance(longest, int | float) or longest <= 0:
        raise ModelUnavailableError(
            f"the tokenizer of {name} is damaged: model_max_length={longest!r} must be a number above 0"
        )
    if template is not None and not isinstance(template, str | dict):
        raise ModelUnavailableError(f"the tokenizer of {name} is damaged: chat_template={template!r} must be a string")
    # Added tokens, such as padding or images, often have no embedding; `ModelCard.require_vectors` checks prompts.
    ordinary = set(tokenizer.get_vocab().values()) - set(tokenizer.get_added_vocab().values())
    _refuse_unknown(tokenizer, name, num_tokens, ordinary)


def _refuse_unknown(
    tokenizer: "PreTrainedTokenizerBase", name: str, num_tokens: int | None, ids: Iterable[int]
) -> None:
    """Refuse tokens that have no embedding in the network; raises ModelUnavailableError."""
    beyond = sorted({token_id for token_id in ids if num_tokens is not None and token_id >= num_tokens})
    if beyond:
        names = list_names(
            [str(token) for token in tokenizer.convert_ids_to_tokens(beyond[:3])] + [""] * len(beyond[3:])
        )
        raise ModelUnavailableError(
            f"the tokenizer of {name} has {len(tokenizer):,} tokens and its network only {num_tokens:,}: {names} "
            "cannot be embedded (the tokenizer, or vocab_size in config.json, belongs to another model)"
        )


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


def needs_own_code(weights: Weights) -> bool:
    """Return whether loading a model requires running Python code that comes with it."""
    from transformers import CONFIG_MAPPING

    config = read_json_object(weights.folder / "config.json")
    model_type = config.get("model_type")
    return "auto_map" in config and not (isinstance(model_type, str) and model_type in CONFIG_MAPPING)


def _refuse_own_code(spec: ModelSpec, weights: Weights) -> None:
    if needs_own_code(weights) and not spec.trust_remote_code:
        model_type = read_json_object(weights.folder / "config.json").get("model_type")
        raise ModelUnavailableError(
            f"{weights.name} runs its own Python code (transformers does not know its model type {model_type}): set "
            "model.trust_remote_code=true if you trust its author"
        )


def load_own(spec: ModelSpec, dtype: str, device: str) -> LanguageModel:
    """Load a model as a private copy, which the caller may change; see `load_model`."""
    card = read_card(spec)  # first, so that no weights are fetched for a refused model
    weights = resolve_weights(spec)
    _check_described(spec, card, weights)
    _make_room(count_bytes(weights.folder, spec.allow_pickle, _ITEM_BYTES[dtype]), device)
    network = _load_network(spec, card, weights, dtype, device)
    with _reading(weights, "config.json"):
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
    with _reading(weights, "config.json"), torch.device("meta"):
        described = _auto_class(card).from_config(card.config).num_parameters()
    check_room(weights.folder, spec.allow_pickle, described, card.name)


def _auto_class(card: ModelCard) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if card.architecture == "encoder-decoder" else AutoModelForCausalLM


def _load_network(spec: ModelSpec, card: ModelCard, weights: Weights, dtype: str, device: str) -> "PreTrainedModel":
    import torch

    with _reading(weights, "the weights", reports=False):  # reported below
        network, loading_info = _auto_class(card).from_pretrained(
            weights.folder,
            dtype=getattr(torch, dtype),
            device_map={"": device},
            use_safetensors=None if spec.allow_pickle else True,
            ignore_mismatched_sizes=True,  # refused below; transformers would refer to its report, which is hidden
            output_loading_info=True,
            **_local_options(spec),
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


def _local_options(spec: ModelSpec) -> dict[str, Any]:
    return {"local_files_only": True, "trust_remote_code": spec.trust_remote_code}


@contextmanager
def _reading(weights: Weights, what: str, reports: bool = True) -> Iterator[None]:
    """Turn any error inside a block into a ModelUnavailableError that says what could not be read."""
    try:
        with quiet_transformers(reports):
            yield
    except UserError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything in transformers and below
        if is_out_of_memory(error):
            raise ModelUnavailableError(
                f"memory ran out while loading {weights.name}: use a smaller model or dtype (bfloat16 needs half as "
                "much as float32), or close other programs"
            ) from error
        reason = _first_sentence(error)
        message = f"{what} of {weights.name} cannot be read ({reason}): {weights.remedy}"
        raise ModelUnavailableError(message) from error


def _first_sentence(error: Exception) -> str:
    """Return the first line of a library's message, and the second line if the first one ends with a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
