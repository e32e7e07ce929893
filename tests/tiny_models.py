"""Tiny random models for tests, saved to folders in the layout of the hub: two layers, 32 dimensions.

Weights are seeded, in float32, and large enough that greedy completions are not one token over and over.
"""

import json
import math
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

CORPUS = (
    "Translate English to German.\nEnglish: The house is small.\nGerman: Das Haus ist klein.",
    "Q: What is 12 + 30?\nA: 42\n\nQ: What is 7 + 8?\nA: 15\n\nQ: What is 100 - 1?\nA: 99",
    "Input: café, naïve, über\nOutput: coffee, simple, over\n\nInput: one two three\nOutput: three two one",
    "The answer is yes. The answer is no. Question: is the sky blue? Answer: yes",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|eos|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_BOS, _EOS, _PAD = "<|bos|>", "<|eos|>", "<|pad|>"
_STD = 0.3


def save_gpt2(folder: Path, seed: int = 0, chat_template: str | None = None) -> Path:
    """Save a GPT-2: 256 learned positions, one token that starts and ends a text, no padding token."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = train_bpe(single_special=True, chat_template=chat_template)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": _STD}
    config = GPT2Config(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, **sizes)
    return _save(folder, seed, lambda: GPT2LMHeadModel(config), tokenizer)


def save_llama(folder: Path, seed: int = 0, chat_template: str | None = None, **changes: Any) -> Path:
    """Save a Llama: rotary positions, 4 query heads that share 2 key/value heads; `changes` are of its config."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = train_bpe(chat_template=chat_template)
    config = LlamaConfig(**(_decoder_sizes(len(tokenizer)) | {"num_key_value_heads": 2} | changes))
    return _save(folder, seed, lambda: LlamaForCausalLM(config), tokenizer)


def save_phi(folder: Path, seed: int = 0, chat_template: str | None = None) -> Path:
    """Save a Phi: rotary positions on half of each head, attention and feed-forward side by side."""
    from transformers import PhiConfig, PhiForCausalLM

    tokenizer = train_bpe(chat_template=chat_template)
    config = PhiConfig(**_decoder_sizes(len(tokenizer)), partial_rotary_factor=0.5)
    return _save(folder, seed, lambda: PhiForCausalLM(config), tokenizer)


def save_t5(folder: Path, seed: int = 0) -> Path:
    """Save a T5: encoder-decoder, relative positions without a limit, a Unigram tokenizer."""
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = train_unigram()
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    tokens = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "tie_word_embeddings": False}
    config = T5Config(vocab_size=len(tokenizer), initializer_factor=2.0, **sizes, **tokens)
    return _save(folder, seed, lambda: T5ForConditionalGeneration(config), tokenizer)


def save_bert(folder: Path, seed: int = 0) -> Path:
    """Save a BERT, which cannot complete text."""
    from transformers import BertConfig, BertForMaskedLM

    tokenizer = train_bpe()
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(tokenizer), initializer_range=_STD, **sizes)
    return _save(folder, seed, lambda: BertForMaskedLM(config), tokenizer)


def train_bpe(single_special: bool = False, chat_template: str | None = None) -> Any:
    """Train a byte-level BPE tokenizer, through which any text round-trips.

    It has the special tokens bos = 0, eos = 1, pad = 2, or, like GPT-2's, only eos = bos = 0.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = [_EOS] if single_special else [_BOS, _EOS, _PAD]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS * 2, trainer)
    names = {"bos_token": special[0], "eos_token": _EOS} | ({} if single_special else {"pad_token": _PAD})
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=chat_template, **names)


def train_unigram() -> Any:
    """Make a T5 tokenizer: pad = 0, eos = 1 behind every text, no bos; any whitespace becomes one space.

    Its pieces are the corpus' words and all characters, the more frequent the likelier: the library's trainer finds
    other pieces in every process.
    """
    from transformers import T5Tokenizer

    words = Counter(f"\u2581{word}" for text in CORPUS for word in text.split())
    characters = {"\u2581", *map(chr, range(33, 127)), *"".join(words)}
    pieces = [(word, math.log(count) - 5.0) for word, count in words.items() if word not in characters]
    pieces += [(character, -8.0) for character in sorted(characters)]
    special = [(token, 0.0) for token in ("<pad>", "</s>", "<unk>")]
    return T5Tokenizer(vocab=[*special, *pieces], extra_ids=10)


def write_gguf(
    path: Path,
    seed: int = 0,
    pre_tokenizer: str = "smollm",
    settings: Mapping[str, Any] = MappingProxyType({}),
    tensors: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Write a one-layer Llama with a byte-level BPE tokenizer in llama.cpp's format.

    `settings` are more of its metadata, and `tensors` are added to its own, or left out where they are None.
    """
    from gguf import GGUFWriter, TokenType

    bpe = json.loads(train_bpe().backend_tokenizer.to_str())["model"]
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].__getitem__)
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL] * 3 + [TokenType.NORMAL] * (len(tokens) - 3))
    writer.add_token_merges([" ".join(pair) for pair in bpe["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    for key, value in settings.items():
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32, list: writer.add_array}
        add[type(value)](key, value)
    for name, values in (_gguf_tensors(len(tokens), seed) | dict(tensors)).items():
        if values is not None:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_wheel(folder: Path, *members: Path, name: str = "tiny_model", version: str = "1.0") -> Path:
    """Write a wheel that contains the files `members` and that pip can download."""
    stem = f"{name}-{version}"
    wheel = folder / f"{stem}-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        for member in members:
            archive.write(member, f"{name}/{member.name}")
        archive.writestr(f"{stem}.dist-info/METADATA", metadata)
        archive.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{stem}.dist-info/RECORD", "")
    return wheel


def _decoder_sizes(vocabulary: int) -> dict[str, Any]:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokens = {"vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    return sizes | tokens | {"max_position_embeddings": 512, "initializer_range": _STD}


def _gguf_tensors(vocabulary: int, seed: int) -> dict[str, Any]:
    """Random float32 tensors under llama.cpp's names; the output layer is the embedding."""
    import numpy as np

    random = np.random.default_rng(seed)
    shapes = {
        "token_embd.weight": (vocabulary, 32),
        "blk.0.attn_q.weight": (32, 32),
        "blk.0.attn_k.weight": (16, 32),
        "blk.0.attn_v.weight": (16, 32),
        "blk.0.attn_output.weight": (32, 32),
        "blk.0.ffn_gate.weight": (64, 32),
        "blk.0.ffn_up.weight": (64, 32),
        "blk.0.ffn_down.weight": (32, 64),
    }
    matrices = {name: random.normal(0, _STD, shape).astype(np.float32) for name, shape in shapes.items()}
    norms = ("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight")
    return matrices | {name: np.ones(32, np.float32) for name in norms}


def _save(folder: Path, seed: int, build: Callable[[], Any], tokenizer: Any) -> Path:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        build().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
