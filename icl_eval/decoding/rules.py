"""Apply the rules of a model's generation config and of a search to the logits, before a token is chosen.

Some models are published with rules: BART starts with a forced token, and others suppress tokens, require a minimum
length or set a repetition penalty. `generate` applies them, and this module does the same with the same logits
processors of transformers; sampling adds its temperature, top-k and top-p as processors, too. Rules are applied to one
row at a time and see only its own tokens, so that neither padding nor other rows affect it. Rows without rules cost
nothing.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel

from icl_eval.decoding.networks import copy_to
from icl_eval.errors import ConfigError
from icl_eval.models.loading import LanguageModel


def end_ids(network: PreTrainedModel, settings: Mapping[str, Any]) -> frozenset[int]:
    """Return the ids of the tokens that end a sequence.

    Args:
        network: The network, whose generation config lists them.
        settings: Options of `generate` that override that config.
    """
    eos: Any = settings.get("eos_token_id", network.generation_config.eos_token_id)
    if eos is None:
        return frozenset()
    return frozenset([eos] if isinstance(eos, int) else eos)


def stop_strings(generation: GenerationConfig, stop: Sequence[str]) -> tuple[str, ...]:
    """Return the strings to stop at: the given ones and those of the model's generation config."""
    own: Any = generation.stop_strings or ()
    return (*stop, *([own] if isinstance(own, str) else own))


def start_ids(model: LanguageModel) -> tuple[int, ...]:
    """Return the decoder's start tokens: one id for an encoder-decoder network, no ids for a decoder-only one."""
    if model.architecture == "decoder-only":
        return ()
    for config in (model.network.generation_config, model.network.config):
        for name in ("decoder_start_token_id", "bos_token_id"):
            token_id = getattr(config, name, None)
            if token_id is not None:
                return (int(token_id),)
    raise ConfigError("the model's config has neither decoder_start_token_id nor bos_token_id")


def forced_ids(model: LanguageModel, settings: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the token that is forced after a decoder's start token; empty if there is no such token.

    Args:
        model: The model, whose generation config may force a token.
        settings: Options of `generate` that override that config.
    """
    forced = settings.get("forced_bos_token_id", model.network.generation_config.forced_bos_token_id)
    return () if model.architecture == "decoder-only" or forced is None else (int(forced),)


class Rules:
    """The rules of one model and one search, for rows of any length."""

    def __init__(self, network: PreTrainedModel, max_new_tokens: int, settings: Mapping[str, Any]):
        """Prepare to make logits processors.

        Args:
            network: The network, whose generation config holds the model's rules.
            max_new_tokens: The maximum number of new tokens in a row.
            settings: Options of `generate` that override that config.
        """
        self._network = network
        self._max_new_tokens = max_new_tokens
        self._config = copy.deepcopy(network.generation_config)
        for name, value in settings.items():
            setattr(self._config, name, value)
        network._prepare_special_tokens(self._config, device=network.device)
        self._has_none = False  # the config decides whether a row has processors; its length only sets their options

    def for_row(self, context: Sequence[int], encoder_ids: Sequence[int]) -> LogitsProcessorList:
        """Return the logits processors of a row, in the order in which `generate` applies them; often there are none.

        Args:
            context: The decoder's tokens before the first new one, including the start token.
            encoder_ids: The encoder's tokens. Empty for a decoder-only model, where rules about the encoder's input
                apply to the prompt.
        """
        if self._has_none:
            return LogitsProcessorList()
        self._config.max_length = len(context) + self._max_new_tokens
        if self._config.min_new_tokens is not None:  # it takes precedence over min_length
            self._config.min_length = len(context) + self._config.min_new_tokens
        read = encoder_ids or context
        device = self._network.device
        processors = self._network._get_logits_processor(
            self._config,
            input_ids_seq_length=len(context),
            encoder_input_ids=torch.tensor([list(read)], device=device) if read else None,
            device=device,
        )
        self._has_none = not processors
        return processors


def apply_rules(
    rules: Sequence[LogitsProcessorList], histories: Sequence[Sequence[int]], logits: torch.Tensor
) -> torch.Tensor:
    """Apply each row's rules to its logits.

    Args:
        rules: The rules of each row.
        histories: The decoder tokens of each row so far, including the start token.
        logits: [rows, vocabulary]

    Returns:
        The processed logits, of the same shape.
    """
    processed = []
    for processors, history, row_logits in zip(rules, histories, logits, strict=True):
        ids = copy_to([history], logits.device)  # [1, tokens]
        processed.append(processors(ids, row_logits[None]))  # [1, vocabulary]
    return torch.cat(processed)
