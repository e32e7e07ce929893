"""Model cards: what can be known of a model without its weights, from its configuration and its tokenizer.

A model's architecture and context length are read from its configuration, never from its name.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from icl_eval.errors import ModelUnavailableError, UserError
from icl_eval.formatting import list_names
from icl_eval.models.in_memory import WeightsInMemory
from icl_eval.models.memory import is_out_of_memory
from icl_eval.models.quantization import check_quantization
from icl_eval.models.quiet import quiet_transformers
from icl_eval.models.specs import ModelSpec
from icl_eval.models.weights import (
    Weights,
    check_generation_config,
    resolve_adapter,
    resolve_tokenizer,
    resolve_weights,
)
from icl_eval.models.weights.fitting import check_sizes
from icl_eval.models.weights.folders import read_json_object

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

Architecture = Literal["decoder-only", "encoder-decoder"]


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
    adapter: Weights | None = None
    """The adapter that changes the weights, if any."""
    other_tokenizer: Weights | None = None
    """The files of the tokenizer, if they are not the model's own."""
    quantization: Mapping[str, Any] = field(default_factory=dict)
    """The quantization config in effect; empty if the weights are not quantized."""

    @property
    def name(self) -> str:
        """The model's name in reports."""
        return self.weights.name

    @property
    def identity(self) -> str:
        """The identity of the weights, independent of where they are stored; see `Weights.identify`."""
        return self.weights.identify()

    @property
    def parts(self) -> dict[str, Weights]:
        """What is loaded besides or instead of the model's own files, by name."""
        parts = {"adapter": self.adapter, "tokenizer": self.other_tokenizer}
        return {name: part for name, part in parts.items() if part is not None}

    def require_vectors(self, ids: Iterable[int]) -> None:
        """Refuse a prompt with tokens that have no embedding in the network; raises ModelUnavailableError."""
        _refuse_unknown(self.tokenizer, self.name, _count_embeddings(self.config), ids)


def read_card(spec: ModelSpec) -> ModelCard:
    """Read what can be known of a model without its weights; the weights of a hub model are not fetched."""
    from transformers import AutoConfig

    weights = resolve_weights(spec, descriptions_only=True)
    _refuse_own_code(spec, weights)
    with reading(weights, "config.json"):
        config = AutoConfig.from_pretrained(weights.folder, **build_local_options(spec))
    check_sizes(config, weights.name)
    architecture = read_architecture(config, weights.name)
    num_tokens = _count_embeddings(config)
    other_tokenizer = resolve_tokenizer(spec)
    with reading(other_tokenizer or weights, "the tokenizer"):
        tokenizer = _load_tokenizer((other_tokenizer or weights).folder, spec)
    _check_tokenizer(tokenizer, (other_tokenizer or weights).name, num_tokens)
    quantization = check_quantization(config, spec.quantization, weights.name)
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
        adapter=resolve_adapter(spec),
        other_tokenizer=other_tokenizer,
        quantization=quantization,
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


def describe_in_memory(
    network: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", weights: WeightsInMemory
) -> ModelCard:
    """Return the card of a network that a caller has in memory."""
    config = network.config
    return ModelCard(
        weights=weights,
        config=config,
        tokenizer=tokenizer,
        architecture=read_architecture(config, weights.name),
        max_length=read_max_length(config),
        max_encoder_length=getattr(config, "max_encoder_position_embeddings", None),
        task_prefixes=read_task_prefixes(config),
        generation=network.generation_config,
        quantization=check_quantization(config, None, weights.name),
    )


def _read_generation(weights: Weights, config: "PreTrainedConfig") -> "GenerationConfig":
    from transformers import GenerationConfig

    with reading(weights, "generation_config.json"):
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
        return AutoTokenizer.from_pretrained(folder, **build_local_options(spec))
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


def build_local_options(spec: ModelSpec) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` that keep it from fetching files and from running untrusted code."""
    return {"local_files_only": True, "trust_remote_code": spec.trust_remote_code}


@contextmanager
def reading(weights: Weights, what: str, reports: bool = True) -> Iterator[None]:
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
                "much as float32), model.quantization or model.device_map=auto, or close other programs"
            ) from error
        reason = _first_sentence(error)
        message = f"{what} of {weights.name} cannot be read ({reason}): {weights.remedy}"
        raise ModelUnavailableError(message) from error


def _first_sentence(error: Exception) -> str:
    """Return the first line of a library's message, and the second line if the first one ends with a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
