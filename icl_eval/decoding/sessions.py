"""Sessions: one batch of rows in a network, with its key/value cache. One class for each architecture.

A session knows tensors and nothing of text, stopping or streaming:

    session.prefill(prompts)     ─▶ logits of each row's first new token        [rows, vocabulary]
    session.step(token_ids)      ─▶ logits of each row's next token             [rows, vocabulary]
    session.keep(rows)              the other rows leave, and cost nothing any more

Rows of different lengths are padded on the left, so that their last tokens stand in one column:

    mask       0 0 1 1 1        positions  . . 0 1 2
               1 1 1 1 1                   0 1 2 3 4
"""

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel

from icl_eval.errors import ConfigError
from icl_eval.models import LanguageModel
from icl_eval.prompts import EncodedPrompt


class Session(Protocol):
    """Rows that are decoded together."""

    def prefill(self, prompts: Sequence[EncodedPrompt]) -> torch.Tensor:
        """Run all prompts and return the logits after them, [rows, vocabulary]."""

    def step(self, token_ids: Sequence[int]) -> torch.Tensor:
        """Append one token a row and return the logits after it, [rows, vocabulary]."""

    def keep(self, rows: Sequence[int]) -> None:
        """Let all rows but these leave."""


def open_session(model: LanguageModel) -> Session:
    """Return an empty session for the model's architecture."""
    if model.architecture == "encoder-decoder":
        return Seq2SeqSession(model.network, start_ids(model))
    return CausalSession(model.network)


class CausalSession:
    """A decoder-only network."""

    def __init__(self, network: PreTrainedModel):
        self._network = network
        parameters = inspect.signature(network.forward).parameters
        self._takes_positions = "position_ids" in parameters
        # Without it a network returns logits for every position of the prompt.
        self._options: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}

    def prefill(self, prompts: Sequence[EncodedPrompt]) -> torch.Tensor:
        """Run all prompts and return the logits after them, [rows, vocabulary]."""
        self._cache = DynamicCache(config=self._network.config)
        input_ids, self._mask = _pad([prompt.decoder_ids for prompt in prompts], "left", self._network.device)
        return self._forward(input_ids)

    def step(self, token_ids: Sequence[int]) -> torch.Tensor:
        """Append one token a row and return the logits after it, [rows, vocabulary]."""
        input_ids = _column(token_ids, self._mask)
        self._mask = _with_column_of_ones(self._mask)
        return self._forward(input_ids)

    def keep(self, rows: Sequence[int]) -> None:
        """Let all rows but these leave."""
        index = _index(rows, self._mask)
        self._mask = self._mask[index]
        self._cache.batch_select_indices(index)

    @torch.inference_mode()
    def _forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        options = dict(self._options)
        if self._takes_positions:
            positions = (self._mask.cumsum(-1) - 1).clamp(min=0)  # [rows, columns]
            options["position_ids"] = positions[:, -input_ids.shape[1] :]
        output = self._network(
            input_ids=input_ids,
            attention_mask=self._mask,
            past_key_values=self._cache,
            use_cache=True,
            **options,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits


class Seq2SeqSession:
    """An encoder-decoder network. The encoder runs once; its keys and values are cached for all steps.

    Decoders of some families count positions from the left edge, so rows must bring decoder prompts of one
    length; batching sees to it.
    """

    def __init__(self, network: PreTrainedModel, start_ids: Sequence[int]):
        self._network = network
        self._start_ids = tuple(start_ids)

    def prefill(self, prompts: Sequence[EncodedPrompt]) -> torch.Tensor:
        """Run the encoder on its texts and the decoder on its own; return [rows, vocabulary]."""
        device = self._network.device
        self._cache = EncoderDecoderCache(
            DynamicCache(config=self._network.config), DynamicCache(config=self._network.config)
        )
        encoder_ids, self._mask = _pad([prompt.encoder_ids for prompt in prompts], "right", device)
        with torch.inference_mode():
            self._encoded = self._network.get_encoder()(input_ids=encoder_ids, attention_mask=self._mask)
        decoder_ids = [[*self._start_ids, *prompt.decoder_ids] for prompt in prompts]
        return self._forward(torch.tensor(decoder_ids, device=device))

    def step(self, token_ids: Sequence[int]) -> torch.Tensor:
        """Append one token a row and return the logits after it, [rows, vocabulary]."""
        return self._forward(_column(token_ids, self._mask))

    def keep(self, rows: Sequence[int]) -> None:
        """Let all rows but these leave."""
        index = _index(rows, self._mask)
        self._mask = self._mask[index]
        self._encoded.last_hidden_state = self._encoded.last_hidden_state[index]
        self._cache.batch_select_indices(index)

    @torch.inference_mode()
    def _forward(self, decoder_ids: torch.Tensor) -> torch.Tensor:
        output = self._network(
            encoder_outputs=self._encoded,
            attention_mask=self._mask,
            decoder_input_ids=decoder_ids,
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits


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


def _pad(rows: Sequence[Sequence[int]], side: str, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask, both [rows, longest]. Which id pads does not matter: it is masked."""
    width = max(len(row) for row in rows)
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        columns = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        input_ids[number, columns] = torch.tensor(row, dtype=torch.long)
        mask[number, columns] = 1
    return input_ids.to(device), mask.to(device)


def _column(token_ids: Sequence[int], mask: torch.Tensor) -> torch.Tensor:
    return mask.new_tensor(token_ids)[:, None]  # [rows, 1]


def _with_column_of_ones(mask: torch.Tensor) -> torch.Tensor:
    return torch.cat([mask, mask.new_ones(mask.shape[0], 1)], dim=1)


def _index(rows: Sequence[int], mask: torch.Tensor) -> torch.Tensor:
    return mask.new_tensor(rows)
