"""Read what a GGUF file says about its network, and check that the converted network matches it.

transformers silently drops keys and tensors that it does not know, which gives another model. Here, anything that
cannot be converted is refused by name. Rotary scaling is converted as follows:

    rope.scaling.type=linear            rope_type linear
    rope.scaling.type=yarn              rope_type yarn
    rope_freqs.weight                   rope_type longrope, with one list of factors for all lengths
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf import GGUFReader

from icl_eval.errors import ModelUnavailableError
from icl_eval.formatting import list_names

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_ROPE_FACTORS = "rope_freqs.weight"
_DEFAULT_BASE = 10_000.0
"""llama.cpp's default for `rope.freq_base`."""

# Needs no check: a tensor of another size does not fit into the network, and every layer must be present.
# The last two only describe how the file was made.
_SEEN_IN_TENSORS = {
    "vocab_size",
    "block_count",
    "decoder_block_count",
    "embedding_length",
    "feed_forward_length",
    "expert_feed_forward_length",
    "expert_shared_feed_forward_length",
    "tensor_data_layout",
    "rope.scaling.finetuned",
}
_CONFIG_NAMES = {
    "context_length": ("max_position_embeddings", "n_positions"),
    "attention.head_count": ("num_attention_heads",),
    "attention.head_count_kv": ("num_key_value_heads", "num_attention_heads"),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps", "layer_norm_epsilon"),
    "attention.layer_norm_epsilon": ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps"),
    "attention.sliding_window": ("sliding_window",),
    "attention.relative_buckets_count": ("relative_attention_num_buckets",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "logit_scale": ("logit_scale",),
    "use_parallel_residual": ("use_parallel_residual",),
    "decoder_start_token_id": ("decoder_start_token_id",),
    "expert_count": ("num_experts", "num_local_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_weights_norm": ("norm_topk_prob",),
    "ssm.conv_kernel": ("conv_kernel",),
    "ssm.state_size": ("state_size",),
    "ssm.time_step_rank": ("time_step_rank",),
    "ssm.inner_size": ("intermediate_size",),
    "shortconv.l_cache": ("conv_L_cache",),
}
_ROPE_KEYS = {
    "rope.dimension_count",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
}
_NEVER_USED = ".cross_attn_rel_b.weight"
"""T5's checkpoints have this tensor, but neither transformers nor llama.cpp uses it."""
_MOST_SHARED = 4
"""Maximum number of network parameters that one tensor can fill: tied embeddings, as input and output of both sides."""
_YARN_ONES = ("rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_ext_factor")
"""Keys that transformers supports only with the value 1."""


class _BoundedReader(GGUFReader):  # type: ignore[misc]  # gguf has no types
    """A reader that stops at the end of the file; gguf's own reader follows a length of 2^60 in a damaged file."""

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
        if offset + np.dtype(dtype).itemsize * int(count) > self.data.nbytes:
            raise ModelUnavailableError(f"it is truncated: it ends after {self.data.nbytes:,} bytes")
        return super()._get(offset, dtype, count, override_order)


@dataclass(frozen=True)
class GgufClaims:
    """What a GGUF file says about its network."""

    architecture: str
    settings: Mapping[str, Any]
    """The metadata of the architecture, without its name: `rope.freq_base` for `llama.rope.freq_base`."""
    tensors: tuple[str, ...]
    num_items: int
    """The number of items in all tensors together."""
    rope_factors: tuple[float, ...] | None
    """Divisor of the rotary frequency of each pair of dimensions; None if the file has no such tensor."""
    pre_tokenizer: str | None
    """The name of the pre-tokenizer, which splits text into words."""

    def carry_rope(self, config: "PreTrainedConfig") -> None:
        """Copy the file's rotary settings to a configuration that has the same rotation in all layers.

        Raises ModelUnavailableError for a kind of scaling that the configuration cannot express.
        """
        parameters = getattr(config, "rope_parameters", None)
        if not parameters or "rope_type" not in parameters:
            return  # `check_network` compares the result
        base = {"rope_theta": float(self.settings.get("rope.freq_base", _DEFAULT_BASE))}
        if "partial_rotary_factor" in parameters:
            base["partial_rotary_factor"] = parameters["partial_rotary_factor"]
        config.rope_parameters = base | self._scaling(config.max_position_embeddings)

    def check_size(self, build: Callable[[], "PreTrainedModel"]) -> None:
        """Refuse a network that is too large for the file, before it is allocated; raises ModelUnavailableError."""
        import torch

        layers = self.settings.get("block_count", 0)
        if not isinstance(layers, int) or not 0 < layers <= len(self.tensors):
            raise ModelUnavailableError(f"it says block_count={layers}, but has only {len(self.tensors)} tensors")
        with torch.device("meta"):
            described = build().num_parameters()
        if described > _MOST_SHARED * self.num_items:
            raise ModelUnavailableError(
                f"its sizes give {described:,} parameters, but its tensors have only {self.num_items:,}"
            )

    def check_settings(self, config: "PreTrainedConfig") -> None:
        """Refuse settings of the file that the configuration lacks; raises ModelUnavailableError."""
        for key, expected in self.settings.items():
            if key in _SEEN_IN_TENSORS | _ROPE_KEYS or key.startswith("attention.scale"):
                continue
            actual = _read_setting(config, key)
            if not _is_same(expected, actual):
                raise ModelUnavailableError(f"it says {key}={expected}, but transformers converts it to {actual}")

    def check_network(self, network: "PreTrainedModel", loading_info: Mapping[str, Any]) -> None:
        """Refuse a network that the file does not fill, or that differs from the file; raises ModelUnavailableError."""
        if missing := sorted(loading_info["missing_keys"]):
            raise ModelUnavailableError(f"it lacks {len(missing)} of its network's weights: {list_names(missing)}")
        known = _list_known_tensors(network, self.architecture) | {_ROPE_FACTORS}
        if unused := sorted(name for name in self.tensors if name not in known and not name.endswith(_NEVER_USED)):
            raise ModelUnavailableError(
                f"its network has no place for {len(unused)} of its tensors: {list_names(unused)}"
            )
        expected = self.settings.get("attention.scale")
        scales = {module.scaling for module in network.modules() if isinstance(getattr(module, "scaling", 0), float)}
        if expected and not all(_is_same(expected, scale) for scale in scales):
            raise ModelUnavailableError(f"it says attention.scale={expected}, but its conversion has {sorted(scales)}")
        self._check_rotation(network)

    @property
    def _scaling_type(self) -> str:
        # llama.cpp's default is linear, with a factor of 1.
        return str(self.settings.get("rope.scaling.type", "linear"))

    @property
    def _scaling_factor(self) -> float:
        factor = self.settings.get("rope.scaling.factor") or self.settings.get("rope.scale_linear")
        return float(factor or 1.0) if self._scaling_type != "none" else 1.0

    def _scaling(self, max_length: int) -> dict[str, Any]:
        kind, factor = self._scaling_type, self._scaling_factor
        if self.rope_factors is not None:
            if factor != 1 or kind not in ("none", "linear"):
                raise ModelUnavailableError(f"it has both {_ROPE_FACTORS} and rope.scaling.type={kind}")
            factors = list(self.rope_factors)
            both = {"short_factor": factors, "long_factor": factors, "attention_factor": 1.0}
            return {"rope_type": "longrope", "original_max_position_embeddings": max_length, **both}
        if kind == "yarn":
            return self._yarn(max_length)
        if kind not in ("none", "linear"):
            raise ModelUnavailableError(f"its rope.scaling.type={kind} must be one of none, linear, yarn")
        return {"rope_type": "default"} if factor == 1 else {"rope_type": "linear", "factor": factor}

    def _yarn(self, max_length: int) -> dict[str, Any]:
        for key in _YARN_ONES:
            if self.settings.get(key, 1.0) != 1.0:
                raise ModelUnavailableError(f"its {key}={self.settings[key]} cannot be converted: it must be 1")
        return {
            "rope_type": "yarn",
            "factor": self._scaling_factor,
            "original_max_position_embeddings": self.settings.get("rope.scaling.original_context_length", max_length),
            "beta_fast": float(self.settings.get("rope.scaling.yarn_beta_fast", 32.0)),
            "beta_slow": float(self.settings.get("rope.scaling.yarn_beta_slow", 1.0)),
        }

    def _check_rotation(self, network: "PreTrainedModel") -> None:
        """Compare the rotary frequencies of the network with those of the file; raises ModelUnavailableError."""
        angles = {
            name: buffer.float().numpy()
            for name, buffer in network.named_buffers()
            if name.endswith("inv_freq") and "original" not in name
        }
        keys = sorted(key for key in self.settings if key in _ROPE_KEYS and key != "rope.scaling.type")
        if not angles and (keys or self.rope_factors is not None):
            raise ModelUnavailableError(
                f"it says {list_names(keys or [_ROPE_FACTORS])}, but its network has no rotation"
            )
        for name, actual in angles.items():
            self._check_angles(name, actual)

    def _check_angles(self, name: str, actual: Any) -> None:
        pairs = int(self.settings.get("rope.dimension_count", 2 * len(actual))) // 2
        if pairs != len(actual):
            raise ModelUnavailableError(
                f"it says rope.dimension_count={2 * pairs}, but its network has {2 * len(actual)}"
            )
        if self._scaling_type == "yarn":
            return  # `_yarn` wrote all its settings
        windowed = "sliding" in name
        base = self.settings.get("rope.freq_base_swa" if windowed else "rope.freq_base", _DEFAULT_BASE)
        slowed = np.ones(pairs) if windowed else np.array(self.rope_factors or np.ones(pairs)) * self._scaling_factor
        expected = base ** -(np.arange(pairs) / pairs) / slowed
        if not np.allclose(actual, expected, rtol=1e-4, atol=1e-12):
            raise ModelUnavailableError(
                f"its rotation (rope.freq_base={base}, rope.scaling.type={self._scaling_type}) differs from the one "
                "that transformers converts it to"
            )


def read_claims(gguf: Path) -> GgufClaims:
    """Read the metadata of a GGUF file; raises ModelUnavailableError if it does not contain one whole model."""
    reader = _BoundedReader(gguf)
    metadata = {
        name: field.contents() for name, field in reader.fields.items() if name.partition(".")[0] != "tokenizer"
    }
    if (kind := metadata.get("general.type", "model")) != "model":
        raise ModelUnavailableError(f"it does not contain a model: its general.type is {kind}")
    if (parts := metadata.get("split.count", 0)) > 1:
        raise ModelUnavailableError(f"it is one of {parts} parts: merge them first (llama-gguf-split --merge)")
    architecture = str(metadata.get("general.architecture"))
    prefix = f"{architecture}."
    factors = [tensor.data for tensor in reader.tensors if tensor.name == _ROPE_FACTORS]
    rule = reader.fields.get("tokenizer.ggml.pre")
    return GgufClaims(
        architecture=architecture,
        settings={name.removeprefix(prefix): value for name, value in metadata.items() if name.startswith(prefix)},
        tensors=tuple(tensor.name for tensor in reader.tensors),
        num_items=sum(tensor.n_elements for tensor in reader.tensors),
        rope_factors=tuple(map(float, factors[0])) if factors else None,
        pre_tokenizer=str(rule.contents()) if rule else None,
    )


def _list_known_tensors(network: "PreTrainedModel", architecture: str) -> set[str]:
    """Return the names of the GGUF tensors that transformers loads into a network, from its own map."""
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

    processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=network.config.to_dict())
    names = set(get_gguf_hf_weights_map(network, processor))
    # Stacked experts are mapped without their suffix, and GPT-2's output layer is loaded without the map.
    return names | {f"{name}.weight" for name in names} | ({"output.weight"} if architecture == "gpt2" else set())


def _read_setting(config: "PreTrainedConfig", key: str) -> Any:
    """Return the value of a GGUF setting in a configuration, or None if the configuration does not have it."""
    if key == "attention.causal":
        return True
    if key in ("attention.key_length", "attention.value_length"):
        width = getattr(config, "head_dim", None) or getattr(config, "d_kv", None)
        return width or config.hidden_size // config.num_attention_heads
    return next((getattr(config, name) for name in _CONFIG_NAMES.get(key, ()) if hasattr(config, name)), None)


def _is_same(expected: Any, actual: Any) -> bool:
    """Compare two values of a setting; the file may list one value per layer, or 0 for a feature that is off."""
    if isinstance(expected, list):
        return all(_is_same(value, actual) for value in expected if value)
    if isinstance(expected, float) and isinstance(actual, int | float):
        return math.isclose(expected, actual, rel_tol=1e-6)
    return bool(expected == actual) or (not expected and not actual)
