"""Decode with transformers' own `generate`, for what the stream does not support, such as beam search.

Each prompt is decoded alone, so that neither padding nor other prompts affect the result. Its tokens are then processed
like those of the stream: the same code finds the end of the sequence, stop strings and pieces of text.
"""

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from threading import RLock
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation.streamers import BaseStreamer

from icl_eval.decoding.completions import Completion, Token
from icl_eval.decoding.hypotheses import begin_hypothesis
from icl_eval.decoding.networks import not_finite_error, reset_attention
from icl_eval.decoding.rules import end_ids, start_ids, stop_strings
from icl_eval.errors import ConfigError
from icl_eval.models.loading import LanguageModel
from icl_eval.models.memory import is_out_of_memory
from icl_eval.models.quiet import quiet_transformers
from icl_eval.models.switching import evaluating
from icl_eval.prompts.building import EncodedPrompt
from icl_eval.prompts.token_ids import Ids

_DRAWING = RLock()
"""Held by the thread that uses torch's random generators, since all threads share them."""


class GenerateDecoder:
    """Decodes prompts with `generate`, one prompt at a time."""

    def __init__(
        self,
        model: LanguageModel,
        settings: Mapping[str, Any],
        max_new_tokens: int,
        stop: Sequence[str] = (),
        seed: int = 0,
    ):
        """Prepare to decode.

        Args:
            model: The model to decode with.
            settings: Options of `generate` that override the model's generation config.
            max_new_tokens: The maximum number of tokens in a completion.
            stop: Strings that end a completion and are not part of it, in addition to those of the generation config.
            seed: The random seed, used if the settings turn `do_sample` on.
        """
        self._model = model
        self._stop = stop_strings(model.network.generation_config, stop)
        self._seed = seed
        self._config = copy.deepcopy(model.network.generation_config)
        own = {"max_length": None, "max_new_tokens": max_new_tokens, "max_time": float("inf")}
        own |= {"num_return_sequences": 1, "return_dict_in_generate": False}
        for name, value in {**settings, **own}.items():
            setattr(self._config, name, value)
        self._start_ids = start_ids(model)
        self._end_ids = end_ids(model.network, settings)

    def stream(
        self, prompts: Sequence[EncodedPrompt], among: Sequence[EncodedPrompt] | None = None
    ) -> Iterator[Token | Completion]:
        """Yield the tokens and then the completion of each prompt, after the prompt is finished."""
        for prompt in prompts:
            yield from self._replay(prompt, self.generate(prompt))

    def generate(self, prompt: EncodedPrompt, streamer: BaseStreamer | None = None) -> Ids:
        """Return the ids that `generate` appends to a prompt, ignoring the run's stop strings.

        Args:
            prompt: The prompt to complete.
            streamer: Receives every token, if the search has no beams.

        Raises:
            ConfigError: If `generate` rejects its options.
            IclEvalError: If logits are not finite.
        """
        inputs = build_inputs(self._model, prompt)
        context = len(self._start_ids) + len(prompt.decoder)
        network = self._model.network
        with (
            quiet_transformers(reports=False),
            _DRAWING,
            torch.random.fork_rng(_accelerators(self._model)),
            evaluating(network),
        ):
            reset_attention(network)
            torch.manual_seed(_derive_seed(self._seed, prompt.prompt.example_id))
            try:
                ids = network.generate(
                    **inputs,
                    generation_config=self._config,
                    streamer=streamer,
                    tokenizer=self._model.tokenizer,
                    logits_processor=LogitsProcessorList([_NaNCheck(prompt.prompt.example_id, network.dtype)]),
                )
            except (ImportError, IndexError, RuntimeError, TypeError, ValueError) as error:
                if is_out_of_memory(error):
                    raise
                raise ConfigError(f"decoding.options: generate rejects them: {error}") from error
        return tuple(ids[0, context:].tolist())

    def _replay(self, prompt: EncodedPrompt, token_ids: Ids) -> Iterator[Token | Completion]:
        row = begin_hypothesis(self._model, prompt, self._stop)
        for token_id in token_ids:
            # Beam search may stop before max_new_tokens without an end-of-sequence token: its length is the limit then.
            yield row.append(token_id, self._end_ids, len(token_ids))
            if row.finish_reason:
                break
        yield row.completion()


class _NaNCheck(LogitsProcessor):  # type: ignore[misc]  # transformers has no type hints here
    """Raises an error on NaN scores, with which `generate` would continue silently."""

    def __init__(self, example_id: str, dtype: torch.dtype):
        self._example_id = example_id
        self._dtype = dtype

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores, [rows, vocabulary], unchanged."""
        if scores.isnan().any():
            raise not_finite_error(f"{self._example_id}: a logit", self._dtype)
        return scores


def build_inputs(model: LanguageModel, prompt: EncodedPrompt, generated: Ids = ()) -> dict[str, torch.Tensor]:
    """Return a prompt and the tokens generated for it as inputs of a network or of `generate`."""
    device = model.network.device
    decoder_ids = torch.tensor([[*start_ids(model), *prompt.decoder_ids, *generated]], device=device)
    inputs = {"input_ids": decoder_ids}
    if prompt.encoder_ids:
        inputs = {"input_ids": torch.tensor([prompt.encoder_ids], device=device), "decoder_input_ids": decoder_ids}
    return inputs | {"attention_mask": torch.ones_like(inputs["input_ids"])}


def _accelerators(model: LanguageModel) -> list[torch.device]:
    return [model.network.device] if model.network.device.type == "cuda" else []


def _derive_seed(seed: int, example_id: str) -> int:
    digest = hashlib.sha256(json.dumps([seed, example_id]).encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)
