"""Configurations of models from 1 to 405 billion parameters, as their config.json files have them."""

from collections.abc import Callable
from typing import Any

from transformers import Gemma2Config, LlamaConfig, MistralConfig, MixtralConfig, Qwen2Config


def _llama(layers: int, hidden: int, intermediate: int, heads: int, pairs: int, vocabulary: int, **more: Any) -> Any:
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": intermediate}
    attention = {"num_attention_heads": heads, "num_key_value_heads": pairs, "vocab_size": vocabulary}
    return LlamaConfig(**sizes, **attention, **more)


def _gemma_2_9b() -> Any:
    sizes = {"num_hidden_layers": 42, "hidden_size": 3584, "intermediate_size": 14336, "head_dim": 256}
    return Gemma2Config(**sizes, num_attention_heads=16, num_key_value_heads=8, vocab_size=256000)


def _qwen_2_5_32b() -> Any:
    sizes = {"num_hidden_layers": 64, "hidden_size": 5120, "intermediate_size": 27648, "vocab_size": 152064}
    return Qwen2Config(**sizes, num_attention_heads=40, num_key_value_heads=8)


def _mistral_7b() -> Any:
    sizes = {"num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 32768}
    return MistralConfig(**sizes, num_attention_heads=32, num_key_value_heads=8, sliding_window=None)


def _mixtral_8x7b() -> Any:
    sizes = {"num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 32000}
    experts = {"num_local_experts": 8, "num_experts_per_tok": 2}
    return MixtralConfig(**sizes, **experts, num_attention_heads=32, num_key_value_heads=8, sliding_window=None)


CONFIGS: dict[str, Callable[[], Any]] = {
    "Llama-3.2-1B": lambda: _llama(16, 2048, 8192, 32, 8, 128256, head_dim=64, tie_word_embeddings=True),
    "Llama-2-7B": lambda: _llama(32, 4096, 11008, 32, 32, 32000),
    "Mistral-7B": _mistral_7b,
    "Llama-3-8B": lambda: _llama(32, 4096, 14336, 32, 8, 128256),
    "Gemma-2-9B": _gemma_2_9b,
    "Llama-2-13B": lambda: _llama(40, 5120, 13824, 40, 40, 32000),
    "Qwen2.5-32B": _qwen_2_5_32b,
    "Mixtral-8x7B": _mixtral_8x7b,
    "Llama-3-70B": lambda: _llama(80, 8192, 28672, 64, 8, 128256),
    "Llama-3.1-405B": lambda: _llama(126, 16384, 53248, 128, 8, 128256),
}
