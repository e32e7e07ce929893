"""Convert a GGUF file to a folder in Hugging Face layout, with float32 safetensors.

transformers can read GGUF, but dequantizes the whole file at every load (15 s for 135M parameters, instead of 0.2 s
from safetensors). The conversion runs once and its result is kept; the numbers stay the same.
"""

import errno
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from icl_eval.errors import ModelUnavailableError
from icl_eval.formatting import describe_error
from icl_eval.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# Values of `tokenizer.ggml.pre` for which llama.cpp (llama-vocab.cpp) splits off every digit before it applies
# GPT-2's rule. transformers 5.23 knows none of them and applies only GPT-2's rule, so that "\n\n1" becomes
# "\n" "\n" "1", although the model was trained on "\n\n" "1".
_SPLITS_DIGITS = {"codeshell", "command-r", "exaone", "minerva-7b", "refact", "smollm", "starcoder"}
_GPT2_RULE = {"gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion"}


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write the model and the tokenizer of `gguf` to `folder`; raises ModelUnavailableError.

    Raises OSError if the disk is full.
    """
    with gguf.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelUnavailableError(f"{gguf} is not a GGUF file (it does not start with the bytes 'GGUF')")
    logger.info("converting %s to float32 safetensors, once (%.0f MB)", gguf.name, gguf.stat().st_size / 1e6)
    try:
        with quiet_transformers(reports=False):  # `GgufClaims` checks the weights
            _convert(gguf, folder)
    except Exception as error:  # transformers and gguf raise a dozen types for files that they cannot read
        if number := _find_lack_of_space(error):
            raise OSError(number, os.strerror(number)) from error
        raise ModelUnavailableError(f"{gguf} cannot be converted: {describe_error(error)}") from error


def _find_lack_of_space(error: Exception) -> int | None:
    """Return the `errno` of an error that reports a full disk; safetensors gives it only in its message."""
    match = re.search(r"\(os error (\d+)\)", str(error))
    number = int(match[1]) if match else getattr(error, "errno", None)
    return number if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else None


def _convert(gguf: Path, folder: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    from icl_eval.models.weights.gguf_claims import read_claims

    claims = read_claims(gguf)
    place = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    config = AutoConfig.from_pretrained(**place)
    auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    claims.carry_rope(config)
    claims.check_settings(config)
    claims.check_size(lambda: auto_class.from_config(config))
    unpacked = GgufConfig(dequantize=True)
    network, loading_info = auto_class.from_pretrained(
        **place, config=config, quantization_config=unpacked, dtype="float32", output_loading_info=True
    )
    claims.check_network(network, loading_info)
    # The weights are dequantized now, but transformers refuses to save a network that is marked as quantized.
    network.hf_quantizer = None
    if hasattr(network.config, "quantization_config"):
        del network.config.quantization_config
    network.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(**place)
    _correct_splitting(tokenizer, claims.pre_tokenizer)
    tokenizer.save_pretrained(folder)


def _correct_splitting(tokenizer: "PreTrainedTokenizerBase", name: str | None) -> None:
    """Apply the pre-tokenizer `name` if transformers fell back to GPT-2's rule."""
    from tokenizers import pre_tokenizers

    backend = tokenizer.backend_tokenizer
    if name is None or not isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        return
    if name in _SPLITS_DIGITS:
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])
    elif name not in _GPT2_RULE:
        logger.warning("the pre-tokenizer %r is unknown: words are split by GPT-2's rule, which may be wrong", name)
