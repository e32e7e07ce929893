"""Load the network of a model: check everything that can be checked without its weights, then read them."""

import logging
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from icl_eval.errors import ConfigError, ModelUnavailableError
from icl_eval.formatting import describe_error
from icl_eval.models.adapters import apply_adapter, read_adapter_config, require_fit
from icl_eval.models.attention import check_attention, require_attention
from icl_eval.models.cards import ModelCard, build_local_options, reading
from icl_eval.models.devices import check_covers, is_offloaded, require_input_device
from icl_eval.models.quantization import build_quantization_config, count_quantized_bytes, open_quantizer
from icl_eval.models.quiet import quiet_transformers
from icl_eval.models.specs import ModelSpec
from icl_eval.models.weights import Weights, count_bytes, resolve_weights
from icl_eval.models.weights.fitting import check_layers, check_loading, check_numbers, check_room

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel
    from transformers.quantizers import HfQuantizer

logger = logging.getLogger(__name__)

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
"""The dtypes in which networks compute, with the size of a number."""


@dataclass(frozen=True)
class NetworkPlan:
    """A network that can be loaded, as far as can be told without its weights."""

    spec: ModelSpec
    card: ModelCard
    weights: Weights
    adapter_config: "PeftConfig | None"
    num_bytes: int
    """The size of the weights in memory."""
    dtype: str
    device: str


def plan_network(spec: ModelSpec, card: ModelCard, dtype: str, device: str) -> NetworkPlan:
    """Fetch a model's weights if necessary, and check that they and its options fit its network.

    Raises:
        ConfigError: If an option is refused.
        ModelUnavailableError: If the files are refused.
    """
    check_attention(spec.attn_implementation, dtype, spec.trust_remote_code)
    quantizer = open_quantizer(card.config, spec.quantization, card.name, spec.device_map or {"": device})
    adapter_config = read_adapter_config(card.adapter) if card.adapter else None
    weights = resolve_weights(spec)
    check_layers(weights.folder, spec.allow_pickle, card.config, card.name)
    num_bytes = count_bytes(weights.folder, spec.allow_pickle, ITEM_BYTES[dtype])
    if type(card.config).__module__.startswith("transformers."):  # building another would run the model's own code
        described = _describe(card, weights, dtype)
        check_room(weights.folder, spec.allow_pickle, described.num_parameters(), card.name)
        check_covers(spec.device_map, dict(described.named_modules()), dict(described.named_parameters()))
        _check_attention_of(described, spec.attn_implementation, card.name)
        if card.adapter and adapter_config:
            require_fit(card.adapter, adapter_config, _describe(card, weights, dtype), card.name)
        if quantizer is not None and not quantizer.pre_quantized:
            num_bytes = _count_quantized(quantizer, described, num_bytes)
    return NetworkPlan(spec, card, weights, adapter_config, num_bytes, dtype, device)


def load_network(plan: NetworkPlan) -> "PreTrainedModel":
    """Load a network, in evaluation mode and without gradients; raises ModelUnavailableError."""
    spec, card = plan.spec, plan.card
    network = _read_weights(plan)
    require_attention(network, spec.attn_implementation, card.name)
    require_input_device(network, card.name)
    if card.adapter and plan.adapter_config:
        if is_offloaded(network):
            raise ModelUnavailableError(
                f"{card.name}: model.device_map offloads some of its layers, and an adapter can only change weights "
                "that are on a device"
            )
        network = apply_adapter(network, card.adapter, plan.adapter_config, merge=not card.quantization)
    check_numbers(plan.weights.folder, card.name, network, plan.dtype)
    if network.generation_config and network.generation_config.max_time is not None:
        logger.warning(
            "%s: max_time=%s of its generation config is ignored: completions have no time limit",
            card.name,
            network.generation_config.max_time,
        )
    return network.eval().requires_grad_(False)


def _read_weights(plan: NetworkPlan) -> "PreTrainedModel":
    import torch

    spec = plan.spec
    options = build_local_options(spec)
    if spec.attn_implementation:
        options["attn_implementation"] = spec.attn_implementation
    if spec.quantization:
        options["quantization_config"] = build_quantization_config(spec.quantization)
    with reading(plan.weights, "the weights", reports=False):  # reported below
        network, loading_info = _auto_class(plan.card).from_pretrained(
            plan.weights.folder,
            dtype=getattr(torch, plan.dtype),
            device_map=spec.device_map or {"": plan.device},
            use_safetensors=None if spec.allow_pickle else True,
            ignore_mismatched_sizes=True,  # refused below; transformers would refer to its report, which is hidden
            output_loading_info=True,
            **options,
        )
    check_loading(plan.card.name, network, loading_info)
    checked: PreTrainedModel = network
    return checked


def _describe(card: ModelCard, weights: Weights, dtype: str) -> "PreTrainedModel":
    """Return the network that a configuration describes, without weights."""
    import torch

    with reading(weights, "config.json"), torch.device("meta"):
        described: PreTrainedModel = _auto_class(card).from_config(deepcopy(card.config), dtype=getattr(torch, dtype))
    return described


def _auto_class(card: ModelCard) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if card.architecture == "encoder-decoder" else AutoModelForCausalLM


def _check_attention_of(described: "PreTrainedModel", name: str | None, model: str) -> None:
    """Refuse an attention implementation that a network does not support, or that is not installed."""
    if name is None:
        return
    with quiet_transformers(reports=False):
        try:
            described.set_attn_implementation(name)
        except Exception as error:  # ValueError, ImportError and what importing a kernel raises
            raise ConfigError(f"model.attn_implementation={name}: {describe_error(error)}") from error
    require_attention(described, name, model)


def _count_quantized(quantizer: "HfQuantizer", described: "PreTrainedModel", otherwise: int) -> int:
    """Return the size of the weights after quantization; `otherwise` if the method cannot tell beforehand."""
    try:
        with quiet_transformers(reports=False):
            return count_quantized_bytes(quantizer, described)
    except Exception:  # what this raises for a network without weights differs between methods
        logger.debug("the size of the quantized weights is unknown", exc_info=True)
        return otherwise
