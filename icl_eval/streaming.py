"""Streaming: completions of plain prompts, one after the other, shown token by token."""

import sys
import time
from typing import Any

from icl_eval.building import build_conventions, build_model_spec, build_search, check_model_options
from icl_eval.config import StreamConfig, written
from icl_eval.decoding import Completion, Decoder, build_decoder
from icl_eval.errors import ConfigError
from icl_eval.models import load_model
from icl_eval.prompts import EncodedPrompt

DEFAULT_MAX_NEW_TOKENS = 50


def stream_completion(config: StreamConfig) -> None:
    """Load the model and print each prompt's completion on stdout while it is made, then a summary on stderr.

    An encoder-decoder model reads the prompt in its encoder, a decoder-only model goes on from it.

    Raises:
        UserError: When an option is impossible or the prompt does not fit.
    """
    check_model_options(config)
    search = build_search(config.decoding)
    max_new_tokens = config.max_new_tokens or DEFAULT_MAX_NEW_TOKENS
    texts = _texts(config.prompt)
    conventions = build_conventions(config)
    names = [f"prompt {number}" for number in range(1, len(texts) + 1)]
    prompts = [conventions.encode_text(name, text) for name, text in zip(names, texts, strict=True)]
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
