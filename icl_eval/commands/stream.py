"""Streaming: completions of plain prompts, token by token, in Python and on the terminal."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from icl_eval.config.options import build_conventions, build_model_spec, build_search, check_model_options
from icl_eval.config.schema import StreamConfig
from icl_eval.decoding import Completion, Decoder, Token, build_decoder
from icl_eval.decoding.searches import Greedy
from icl_eval.errors import ConfigError
from icl_eval.formatting import written
from icl_eval.models.loading import load_model, read_card
from icl_eval.models.weights import ModelSpec
from icl_eval.prompts.building import EncodedPrompt
from icl_eval.prompts.conventions import Asked, find_conventions

DEFAULT_MAX_NEW_TOKENS = 50


def stream(
    source: str,
    prompt: str,
    decoder_prompt: str | None = None,
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    stop: Sequence[str] = (),
    task_prefix: str | None = None,
) -> Iterator[str]:
    """Yield a greedy completion piece by piece while it is made, of any model; the model stays loaded.

    >>> for text in icl_eval.stream("gpt2", "The capital of France is", max_new_tokens=20):
    ...     print(text, end="", flush=True)

    Args:
        source: The model, as `model.source`: a hub name, or a folder such as `./t5`.
        prompt: What an encoder reads, or what a decoder-only model goes on from.
        decoder_prompt: How the answer of an encoder-decoder model begins.
        max_new_tokens: How many tokens there may be.
        stop: Texts that end the completion and are not a part of it.
        task_prefix: The name of a prefix in the model's config that opens the prompt.

    Raises:
        UserError: When the model cannot be had, or the prompt does not fit.
    """
    spec = ModelSpec(source)
    conventions = find_conventions(read_card(spec), Asked(task_prefix))
    encoded = conventions.encode_text("prompt", prompt, decoder_prompt)
    conventions.context(max_new_tokens).require_fit(encoded)
    decoder = build_decoder(load_model(spec), Greedy(), max_new_tokens, stop, settings=conventions.settings)
    for event in decoder.stream([encoded]):
        if isinstance(event, Token):
            yield event.text


def stream_completion(config: StreamConfig) -> None:
    """Load the model and print each prompt's completion on stdout while it is made, then a summary on stderr.

    An encoder-decoder model reads the prompt in its encoder and goes on from `decoder_prompt`, if there is one; a
    decoder-only model goes on from the prompt.

    Raises:
        UserError: When an option is impossible or the prompt does not fit.
    """
    check_model_options(config)
    search = build_search(config.decoding)
    max_new_tokens = config.max_new_tokens or DEFAULT_MAX_NEW_TOKENS
    texts = _texts(config.prompt)
    conventions = build_conventions(config)
    names = [f"prompt {number}" for number in range(1, len(texts) + 1)]
    prompts = [conventions.encode_text(*named, config.decoder_prompt) for named in zip(names, texts, strict=True)]
    context = conventions.context(max_new_tokens)
    for prompt in prompts:
        context.require_fit(prompt, f"{prompt.prompt.example_id}: " if len(prompts) > 1 else "")
    model = load_model(build_model_spec(config.model), config.dtype, config.device)
    decoder = build_decoder(model, search, max_new_tokens, search.stop or (), settings=conventions.settings)
    for text, prompt in zip(texts, prompts, strict=True):
        if len(prompts) > 1:
            print(f"{prompt.prompt.example_id}: {text}", file=sys.stderr, flush=True)
        _show(decoder, prompt)


def _texts(prompt: Any) -> list[str]:
    """Return the texts that a user gave: one, or a list of them."""
    texts = prompt if isinstance(prompt, list) else [prompt]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"prompt={written(prompt)}: must be a text, or a list of texts")
    return texts


def _show(decoder: Decoder, encoded: EncodedPrompt) -> None:
    start = time.perf_counter()
    for event in decoder.stream([encoded]):
        if isinstance(event, Completion):
            seconds = time.perf_counter() - start
            rate = len(event.token_ids) / seconds
            print(flush=True)
            print(
                f"{encoded.num_tokens} prompt tokens, {len(event.token_ids)} new in {seconds:.1f} s "
                f"({rate:.1f} a second), ended by {event.finish_reason}",
                file=sys.stderr,
            )
        else:
            print(event.text, end="", flush=True)
