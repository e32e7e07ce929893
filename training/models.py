"""Build, save and load the model, a small T5 in the classes of transformers."""

from pathlib import Path
from typing import Any

import torch

from icl_eval.models.quiet import quiet_transformers
from training.starting_point import prepare
from training.tokenizers import EOS_ID, PAD_ID, VOCABULARY, build_tokenizer


def build_model(seed: int, width: int = 128, layers: int = 3) -> Any:
    """Build an untrained model; the same seed gives the same weights."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(VOCABULARY),
        d_model=width,
        d_kv=32,
        d_ff=2 * width,
        num_layers=layers,
        num_heads=6,
        relative_attention_num_buckets=64,
        relative_attention_max_distance=256,
        dropout_rate=0.0,
        feed_forward_proj="relu",
        pad_token_id=PAD_ID,
        eos_token_id=EOS_ID,
        decoder_start_token_id=PAD_ID,
        attn_implementation="eager",
    )
    model = T5ForConditionalGeneration(config)
    prepare(model)
    return model


def save_model(model: Any, folder: Path) -> None:
    """Write weights, configuration and tokenizer in the format of `AutoModelForSeq2SeqLM` and `AutoTokenizer`."""
    with quiet_transformers(reports=False):
        model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)


def load_model(folder: Path) -> Any:
    """Load a trained model with eager attention, which uses masks unchanged."""
    from transformers import AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM.from_pretrained(folder, attn_implementation="eager").eval()
