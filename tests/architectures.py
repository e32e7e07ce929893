"""Tiny random networks of every architecture that decoding is tested on."""

import pytest
import torch
import transformers as hf
from tiny_models import train_bpe

from icl_eval.models.loading import LanguageModel

VOCABULARY = 200
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
GROUPED = SIZE | {"num_key_value_heads": 2}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 128,
}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
WINDOWED = GROUPED | {"vocab_size": VOCABULARY, "head_dim": 8, "sliding_window": 8}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [2.0, 3.0, 4.0, 5.0],
    "original_max_position_embeddings": 45,
}

DECODER_ONLY = {
    "gpt2": (hf.GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "gpt_neox": (hf.GPTNeoXConfig, SIZE | {"rotary_pct": 0.5}),
    "opt": (
        hf.OPTConfig,
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 32},
    ),
    "bloom": (hf.BloomConfig, {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "falcon": (hf.FalconConfig, {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}),
    "falcon_alibi": (
        hf.FalconConfig,
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
    ),
    "phi": (hf.PhiConfig, SIZE),
    "phi3": (hf.Phi3Config, GROUPED | {"pad_token_id": 0}),
    "phi3_longrope": (
        hf.Phi3Config,
        GROUPED
        | {
            "pad_token_id": 0,
            "max_position_embeddings": 256,
            "original_max_position_embeddings": 45,
            "rope_parameters": LONGROPE,
        },
    ),
    "llama": (hf.LlamaConfig, GROUPED),
    "mistral": (hf.MistralConfig, GROUPED | {"sliding_window": 45}),  # longer than the rows of most tests
    "mistral_sliding": (hf.MistralConfig, GROUPED | {"sliding_window": 8}),
    "qwen2": (hf.Qwen2Config, GROUPED),
    "qwen3": (hf.Qwen3Config, GROUPED | {"head_dim": 8}),
    "llama4": (  # scales queries by their place in the cache
        hf.Llama4TextConfig,
        GROUPED
        | {
            "head_dim": 8,
            "num_local_experts": 2,
            "intermediate_size_mlp": 48,
            "pad_token_id": 0,
            "floor_scale": 8,
            "attn_scale": 0.5,
        }
        | {"attention_chunk_size": 64, "no_rope_layers": [1, 0], "interleave_moe_layer_step": 2},
    ),
    "gemma2": (hf.Gemma2Config, GROUPED | {"head_dim": 8, "sliding_window": 8}),
    "gemma2_capped": (hf.Gemma2Config, GROUPED | {"head_dim": 8, "sliding_window": 64, "attn_logit_softcapping": 0.1}),
    "gemma3": (
        hf.Gemma3TextConfig,
        GROUPED | {"head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "mpt": (hf.MptConfig, {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128}),
    "stablelm": (hf.StableLmConfig, GROUPED),
    "gptj": (hf.GPTJConfig, {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}),
    "bart_decoder": (hf.BartConfig, BART | {"is_encoder_decoder": False, "is_decoder": True}),
    "roberta": (hf.RobertaConfig, SIZE | {"is_decoder": True}),  # by itself it begins with another position
    "mamba": (hf.MambaConfig, {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
}
ENCODER_DECODER = {
    "t5": (hf.T5Config, T5),
    "mt5": (hf.MT5Config, T5),
    "umt5": (hf.UMT5Config, T5),
    "bart": (hf.BartConfig, BART | {"forced_eos_token_id": 2}),
    "mbart": (hf.MBartConfig, BART | {"decoder_start_token_id": 5}),
    "pegasus": (hf.PegasusConfig, BART),
    "marian": (hf.MarianConfig, BART | {"pad_token_id": 1, "decoder_start_token_id": 1}),
    "marian_vocabularies": (  # the decoder's ends below the middle of the encoder's
        hf.MarianConfig,
        BART
        | {"pad_token_id": 1, "decoder_start_token_id": 1}
        | {"decoder_vocab_size": 90, "share_encoder_decoder_embeddings": False},
    ),
    "m2m_100": (hf.M2M100Config, BART),
    "nllb_moe": (hf.NllbMoeConfig, BART | {"num_experts": 4, "encoder_sparse_step": 2, "decoder_sparse_step": 2}),
    "switch_transformers": (
        hf.SwitchTransformersConfig,
        T5
        | {"num_decoder_layers": 2, "num_experts": 4, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1},
    ),
    "bigbird_pegasus": (hf.BigBirdPegasusConfig, BART | {"block_size": 2, "num_random_blocks": 1}),
    "t5gemma": (hf.T5GemmaConfig, {"encoder": WINDOWED, "decoder": WINDOWED}),
}

LIKE_OTHERS = {
    *("bigbird_pegasus", "gemma2", "gemma3", "llama4", "m2m_100", "marian_vocabularies", "mbart", "mt5", "nllb_moe"),
    *("pegasus", "phi3_longrope", "qwen2", "switch_transformers", "t5gemma", "umt5"),
}
"""Networks that have most in common with another one; they are tested with the slow tests."""
EVERY_NETWORK = [
    pytest.param(name, marks=pytest.mark.slow) if name in LIKE_OTHERS else name
    for name in (*DECODER_ONLY, *ENCODER_DECODER)
    if name != "mamba"
]


def build(name: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> LanguageModel:
    """Build a random network whose greedy completion is not one repeated token."""
    is_seq2seq = name in ENCODER_DECODER
    config_class, options = (ENCODER_DECODER if is_seq2seq else DECODER_ONLY)[name]
    config = config_class(vocab_size=VOCABULARY, tie_word_embeddings=False, **options)
    torch.manual_seed(seed)
    auto_class = hf.AutoModelForSeq2SeqLM if is_seq2seq else hf.AutoModelForCausalLM
    network = auto_class.from_config(config, dtype=dtype).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)  # the default of 0.02 makes every position look alike
    return LanguageModel(
        network=network,
        tokenizer=train_bpe(),
        architecture="encoder-decoder" if is_seq2seq else "decoder-only",
        name=name,
        max_length=None,
        identity=name,
        dtype=str(dtype).removeprefix("torch."),
        device="cpu",
    )
