"""Loading the model that `--model_args` names, for the harness to run.

`pretrained` names the model in the harness's results. It is also where the weights come from, unless `source` says
otherwise: a local folder or a GGUF file can be evaluated under the name that it has on the hub.
"""

import copy
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from icl_eval.errors import ConfigError
from icl_eval.harnesses.model_arguments import ModelArguments, read_model_arguments
from icl_eval.models.devices import choose_device
from icl_eval.models.loading import LanguageModel

logger = logging.getLogger(__name__)

_ASSUMED_DEVICE = "cuda:0"
"""The device that the harness passes if none is asked for."""
_OTHERS = ("pretrained", "batch_size", "max_length", "add_bos_token", "prefix_token_id", "prefix_cache_mb")
"""The arguments that `IclEvalLM` takes itself."""


def load_source(pretrained: Any, given: Mapping[str, Any]) -> LanguageModel:
    """Load a model by name and place, or return one that is already in memory.

    Args:
        pretrained: The model's name and place, or a `LanguageModel`.
        given: The other arguments; see `ModelArguments`. The device that the harness assumes is replaced if this
            machine has no GPU, as `hf` does.

    Raises:
        ConfigError: If an argument is not what it must be.
        ModelUnavailableError: If the weights cannot be fetched, read or trusted.
    """
    arguments = read_model_arguments(ModelArguments, given, _OTHERS)
    if isinstance(pretrained, LanguageModel):
        return pretrained
    if not isinstance(pretrained, str) or not pretrained:
        raise ConfigError(
            f"pretrained={pretrained!r}: must be a model's name, folder or file: --model_args pretrained=…"
        )
    if arguments.device == _ASSUMED_DEVICE and choose_device("auto") == "cpu":
        logger.warning("device=%s: not on this machine; the model runs on the CPU", arguments.device)
        arguments = replace(arguments, device="auto")
    return arguments.load(pretrained)


def open_texts(model: LanguageModel, add_bos_token: bool | None) -> LanguageModel:
    """Return a model whose tokenizer opens a text with its first token, or does not, as asked; None changes nothing."""
    if add_bos_token is None:
        return model
    if not isinstance(add_bos_token, bool):
        raise ConfigError(f"add_bos_token={add_bos_token!r}: must be True or False")
    tokenizer: Any = copy.deepcopy(model.tokenizer)
    tokenizer.add_bos_token = add_bos_token
    return replace(model, tokenizer=tokenizer)


def read_count(key: str, value: Any, least: int = 1) -> int:
    """Return a number of a model's arguments; raises ConfigError if it is none."""
    if isinstance(value, bool) or not str(value).isdecimal() or int(value) < least:
        raise ConfigError(f"{key}={value!r}: must be a whole number of {least} or more")
    return int(value)
