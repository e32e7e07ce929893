"""Decode one prompt as `StreamDecoder` does, and record the numbers of every step.

Every step is one plain forward pass of the network with its own cache. The probabilities are the softmax of the logits
of that pass. The parts of the decoder apply the rules of the generation config, choose the token and detokenise it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from transformers import Cache, LogitsProcessorList

from icl_eval.commands.trace.caches import describe_cache
from icl_eval.commands.trace.tokens import describe_inputs, describe_tokens
from icl_eval.commands.trace.traces import Candidate, ChosenToken, Shape, Side, Step
from icl_eval.decoding.capabilities import check_history
from icl_eval.decoding.choosing import build_pick, choose
from icl_eval.decoding.completions import Completion
from icl_eval.decoding.hypotheses import Hypothesis, begin_hypothesis
from icl_eval.decoding.networks import decoder_of, encode, new_cache, run
from icl_eval.decoding.preparing import prepare
from icl_eval.decoding.rules import Rules, apply_rules, end_ids, stop_strings
from icl_eval.decoding.searches import Greedy, Sample
from icl_eval.models.loading import LanguageModel
from icl_eval.prompts.building import EncodedPrompt


@dataclass(frozen=True)
class Limits:
    """The limits of a completion."""

    max_new_tokens: int
    stop: tuple[str, ...]
    """Strings that end a completion and are not part of it."""


@dataclass(frozen=True)
class DecodedPrompt:
    """What was recorded while one prompt was decoded."""

    encoder: Side | None
    encoder_output: Shape | None
    decoder: Side
    steps: tuple[Step, ...]
    completion: Completion
    stop_string: str | None
    """The stop string that ended the completion; None if it ended otherwise."""


class Tracer:
    """Decodes one prompt at a time with a model and records every step."""

    def __init__(
        self,
        model: LanguageModel,
        limits: Limits,
        search: Greedy | Sample,
        num_runners_up: int,
        settings: Mapping[str, Any] = MappingProxyType({}),
    ):
        """Prepare to trace.

        Args:
            model: The model to decode with.
            limits: The limits of a completion.
            search: How tokens are chosen.
            num_runners_up: How many of the tokens that were not chosen to record at each step.
            settings: Generation settings that differ from the model's generation config.
        """
        self._model = model
        self._limits = limits
        self._num_runners_up = num_runners_up
        self._rules = Rules(model.network, limits.max_new_tokens, {**search.settings, **settings})
        self._pick = build_pick(search)
        self._end_ids = end_ids(model.network, settings)

    def trace(self, prompt: EncodedPrompt) -> DecodedPrompt:
        """Decode a prompt.

        Raises:
            ConfigError: When the model cannot be decoded token by token, or its cache does not support the prompt.
            IclEvalError: When logits are NaN.
        """
        network = self._model.network
        stop = stop_strings(network.generation_config, self._limits.stop)
        row = begin_hypothesis(self._model, prompt, stop, self._rules)
        prepared = prepare(self._model)
        check_history(self._model, prepared.capabilities, row.history, self._limits.max_new_tokens)
        with prepared.accelerated():
            encoded, encoder_embeddings = self._encode(prompt)
            with _watch_embeddings(decoder_of(network)) as decoder_embeddings:
                steps = tuple(self._steps(row, new_cache(network.config), encoded))
        encoder_tokens, decoder_tokens = describe_inputs(self._model, prompt)
        encoder = None
        if encoded is not None:
            encoder = Side(prompt.prompt.encoder, encoder_tokens, encoder_embeddings)
        return DecodedPrompt(
            encoder=encoder,
            encoder_output=None if encoded is None else tuple(encoded.shape),
            decoder=Side(prompt.prompt.decoder, decoder_tokens, decoder_embeddings[0]),
            steps=steps,
            completion=row.completion(),
            stop_string=row.stop_string,
        )

    def _encode(self, prompt: EncodedPrompt) -> tuple[torch.Tensor | None, Shape]:
        """Return the encoder's output, [1, tokens, size], and the shape of its embeddings; None without an encoder."""
        if self._model.architecture == "decoder-only":
            return None, ()
        with _watch_embeddings(self._model.network.get_encoder()) as embeddings:
            encoded, _ = encode(self._model.network, [prompt.encoder_ids])
        return encoded, embeddings[0]

    def _steps(self, row: Hypothesis, cache: Cache, encoded: torch.Tensor | None) -> Iterator[Step]:
        fed: Sequence[int] = row.history
        while not row.finish_reason:
            logits = run(self._model.network, [fed], cache, encoded)  # [1, vocabulary]
            (token_id,) = choose([row], logits.clone(), self._pick)  # a rule may modify the logits in place
            choice = self._describe(logits[0], token_id, _find_decisive_rules(row, logits))
            token = row.append(token_id, self._end_ids, self._limits.max_new_tokens)
            yield Step(len(fed), describe_cache(cache), tuple(logits.shape), choice, token.text)
            fed = [token_id]

    def _describe(self, logits: torch.Tensor, chosen: int, rules: tuple[str, ...]) -> ChosenToken:
        """Describe the choice of a token from the network's logits, [vocabulary]."""
        log_probabilities = logits.double().log_softmax(-1)
        count = min(self._num_runners_up + 1, len(log_probabilities))
        likeliest: list[int] = log_probabilities.topk(count).indices.tolist()
        others = [token_id for token_id in likeliest if token_id != chosen][: self._num_runners_up]
        return ChosenToken(
            chosen=self._candidate(log_probabilities, chosen),
            log_probability=float(log_probabilities[chosen]),
            entropy_bits=float(torch.special.entr(log_probabilities.exp()).sum()) / math.log(2),
            runners_up=tuple(self._candidate(log_probabilities, token_id) for token_id in others),
            rules=rules,
        )

    def _candidate(self, log_probabilities: torch.Tensor, token_id: int) -> Candidate:
        (token,) = describe_tokens(self._model.tokenizer, [token_id])
        return Candidate(token, float(log_probabilities[token_id].exp()))


def _find_decisive_rules(row: Hypothesis, logits: torch.Tensor) -> tuple[str, ...]:
    """Return the names of the rules that change the likeliest token, given logits [1, vocabulary]."""
    scores = logits.float().clone()
    likeliest = int(scores.max(-1).indices)
    names = []
    for rule in row.rules:
        scores = apply_rules([LogitsProcessorList([rule])], [row.history], scores)
        before, likeliest = likeliest, int(scores.max(-1).indices)
        if likeliest != before:
            names.append(type(rule).__name__.removesuffix("LogitsProcessor"))
    return tuple(names)


@contextmanager
def _watch_embeddings(network: Any) -> Iterator[list[Shape]]:
    """Yield a list that collects the shape of a network's token embeddings at each forward pass."""
    shapes: list[Shape] = []
    embeddings = network.get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    try:
        yield shapes
    finally:
        handle.remove()
