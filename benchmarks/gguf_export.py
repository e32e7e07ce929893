"""Write a Llama-like network in llama.cpp's format, so that llama.cpp computes with the same numbers.

The file has no vocabulary, since prompts are given as token ids.
"""

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

_LAYER_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(network: PreTrainedModel, path: Path) -> None:
    """Write a network of the Llama family, matrices in its own precision and vectors in float32."""
    config = network.config
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    for name, weight in _tensors(network):
        is_bfloat16 = weight.dtype == torch.bfloat16 and weight.ndim == 2
        kind = gguf.GGMLQuantizationType.BF16 if is_bfloat16 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(_array(weight), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(network: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    config, body = network.config, network.model
    yield "token_embd.weight", body.embed_tokens.weight
    yield "output_norm.weight", body.norm.weight
    if not config.tie_word_embeddings:
        yield "output.weight", network.lm_head.weight
    num_heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for number, layer in enumerate(body.layers):
        for theirs, name in _LAYER_NAMES.items():
            weight = layer.get_submodule(theirs).weight
            if name in num_heads:
                weight = _interleave(weight, num_heads[name])
            yield f"blk.{number}.{name}.weight", weight


def _interleave(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Reorder each head's rows: llama.cpp rotates neighbouring pairs, transformers the two halves of a head."""
    half = weight.shape[0] // num_heads // 2
    return weight.view(num_heads, 2, half, -1).transpose(1, 2).reshape(weight.shape)


def _array(weight: torch.Tensor) -> npt.NDArray[np.float32]:
    return weight.detach().float().contiguous().numpy()
