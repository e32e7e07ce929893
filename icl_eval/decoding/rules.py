"""What a model's generation config and a search's settings demand of logits before a token is chosen.

Some models are published with rules: BART begins with a forced token, others suppress tokens, ask for a minimum
length or carry a repetition penalty. `generate` obeys them, and so do we, through the library's own processors; a
search that draws adds its temperature and cuts, as the library's own too. They are applied a row at a time to the
row's own tokens, so that neither padding nor neighbours have a say; without rules a step pays nothing.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import LogitsProcessorList, PreTrainedModel

from icl_eval.errors import ConfigError
from icl_eval.models.loading import LanguageModel


def end_ids(network: PreTrainedModel, settings: Mapping[str, Any]) -> frozenset[int]:
    """Return the ids of the tokens that end a sequence.

    Args:
        network: Its generation config says which.
        settings: What differs from that config, as `generate` would be told.
    """
    eos: Any = settings.get("eos_token_id", network.generation_config.eos_token_id)
    if eos is None:
        return frozenset()
    return frozenset([eos] if isinstance(eos, int) else eos)


def stop_strings(network: PreTrainedModel, stop: Sequence[str]) -> tuple[str, ...]:
    """Return the texts to stop at: those given, and those that the model's generation config has."""
    own: Any = network.generation_config.stop_strings or ()
    return (*stop, *([own] if isinstance(own, str) else own))


def start_ids(model: LanguageModel) -> tuple[int, ...]:
    """Return what the decoder begins with before any text: one id for an encoder-decoder network, else none."""
    if model.architecture == "decoder-only":
        return ()
    for config in (model.network.generation_config, model.network.config):
        for name in ("decoder_start_token_id", "bos_token_id"):
            token_id = getattr(config, name, None)
            if token_id is not None:
                return (int(token_id),)
    raise ConfigError("the model's config has neither decoder_start_token_id nor bos_token_id")


def forced_ids(model: LanguageModel, settings: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the token that a decoder which begins with its start token alone is made to go on with, if there is one.

    Args:
        model: Its generation config may force one.
        settings: What differs from that config, as `generate` would be told.
    """
    forced = settings.get("forced_bos_token_id", model.network.generation_config.forced_bos_token_id)
    return () if model.architecture == "decoder-only" or forced is None else (int(forced),)


class Rules:
    """The rules of one model and one search, for rows of any length."""

    def __init__(self, network: PreTrainedModel, max_new_tokens: int, settings: Mapping[str, Any]):
        """Prepare.

        Args:
            network: Its generation config has rules of the model's own.
            max_new_tokens: How many tokens a row may be given.
            settings: What differs from that generation config, as `generate` would be told.
        """
        self._network = network
        self._max_new_tokens = max_new_tokens
        self._config = copy.deepcopy(network.generation_config)
        for name, value in settings.items():
            setattr(self._config, name, value)
        network._prepare_special_tokens(self._config, device=network.device)

    def for_row(self, context: Sequence[int], encoder_ids: Sequence[int]) -> LogitsProcessorList:
        """Return the processors of a row, in the order in which `generate` applies them; often none.

        Args:
            context: The decoder's tokens before the first new one, the start token included.
            encoder_ids: The encoder's tokens; none for a decoder-only model, whose prompt the rules for the input read.
        """
        self._config.max_length = len(context) + self._max_new_tokens
        if self._config.min_new_tokens is not None:  # it takes precedence over min_length
            self._config.min_length = len(context) + self._config.min_new_tokens
        read = encoder_ids or context
        device = self._network.device
        return self._network._get_logits_processor(
            self._config,
            input_ids_seq_length=len(context),
            encoder_input_ids=torch.tensor([list(read)], device=device) if read else None,
            device=device,
        )


def apply_rules(
    rules: Sequence[LogitsProcessorList], histories: Sequence[Sequence[int]], logits: torch.Tensor
) -> torch.Tensor:
    """Apply each row's rules to its logits.

    Args:
        rules: The rules of each row.
        histories: The tokens of each row's decoder so far, the start token included.
        logits: [rows, vocabulary]

    Returns:
        The processed logits, of the same shape.
    """
    processed = []
    for processors, history, row_logits in zip(rules, histories, logits, strict=True):
        ids = torch.tensor([list(history)], device=logits.device)  # [1, tokens]
        processed.append(processors(ids, row_logits[None]))  # [1, vocabulary]
    return torch.cat(processed)
