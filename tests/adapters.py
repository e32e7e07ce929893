"""Adapters of tiny models, saved by PEFT as users save theirs."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def save_lora(folder: Path, base: Path, modules: Sequence[str], seed: int = 0, **options: Any) -> Path:
    """Save a LoRA whose effect is large enough to change what a tiny model writes.

    Args:
        folder: Where to save it.
        base: The folder of the model that it adapts.
        modules: The linear layers that it changes.
        seed: The seed of its weights.
        options: More of its configuration.
    """
    from peft import LoraConfig

    return save_adapter(
        folder, base, LoraConfig(target_modules=list(modules), **{"r": 4, "lora_alpha": 64} | options), seed
    )


def save_adapter(folder: Path, base: Path, config: Any, seed: int = 0) -> Path:
    """Save an adapter with this configuration; all its weights are random."""
    import torch
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    is_seq2seq = AutoConfig.from_pretrained(base).is_encoder_decoder
    auto = AutoModelForSeq2SeqLM if is_seq2seq else AutoModelForCausalLM
    config.task_type = config.task_type or ("SEQ_2_SEQ_LM" if is_seq2seq else "CAUSAL_LM")
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        adapted = get_peft_model(auto.from_pretrained(base), config)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1)
        adapted.save_pretrained(folder)
    return folder
