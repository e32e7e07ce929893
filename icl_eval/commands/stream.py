"""Stream completions of free prompts token by token, in Python and on the terminal."""

import sys
import time
from collections.abc import Iterator
from typing import Any

from icl_eval.config.free_prompts import FreePrompts, open_prompts
from icl_eval.config.schema import StreamConfig
from icl_eval.decoding import Completion, Decoder, Token, build_decoder
from icl_eval.decoding.searches import build_search
from icl_eval.errors import ConfigError
from icl_eval.formatting import escape_controls, format_value
from icl_eval.models.loading import LanguageModel
from icl_eval.prompts.building import EncodedPrompt


def stream_pieces(config: StreamConfig, model: LanguageModel | None = None) -> Iterator[str]:
    """Check and encode one prompt, and return an iterator over the pieces of its completion; see `icl_eval.stream`.

    Raises:
        UserError: When an option is invalid, there are several prompts, or the prompt does not fit.
    """
    if not isinstance(config.prompt, str):
        raise ConfigError(
            f"prompt={format_value(config.prompt)}: must be a single string; stream prompts one at a time"
        )
    opened = open_prompts(config, build_search(config.decoding), [config.prompt], config.decoder_prompt, model)
    return (event.text for event in _build_decoder(opened).stream(opened.encoded) if isinstance(event, Token))


def print_completions(config: StreamConfig) -> None:
    """Print each prompt's completion on stdout while it is generated, then a summary on stderr.

    An encoder-decoder model reads the prompt in its encoder and continues `decoder_prompt`, if there is one; a
    decoder-only model continues the prompt.

    Raises:
        UserError: When an option is invalid or a prompt does not fit.
    """
    prompts = _list_prompts(config.prompt)
    opened = open_prompts(config, build_search(config.decoding), prompts, config.decoder_prompt)
    decoder = _build_decoder(opened)
    for text, prompt in zip(prompts, opened.encoded, strict=True):
        if len(prompts) > 1:
            print(f"{prompt.prompt.example_id}: {escape_controls(text)}", file=sys.stderr, flush=True)
        _show(decoder, prompt)


def _build_decoder(opened: FreePrompts) -> Decoder:
    stop, settings = opened.search.stop or (), opened.conventions.settings
    return build_decoder(opened.model, opened.search, opened.max_new_tokens, stop, settings=settings)


def _list_prompts(prompt: Any) -> list[str]:
    """Return the user's prompts: `prompt` is a string or a list of strings."""
    prompts = prompt if isinstance(prompt, list) else [prompt]
    if not prompts or not all(isinstance(text, str) for text in prompts):
        raise ConfigError(f"prompt={format_value(prompt)}: must be a string or a list of strings")
    return prompts


def _show(decoder: Decoder, encoded: EncodedPrompt) -> None:
    start = time.perf_counter()
    for event in decoder.stream([encoded]):
        if isinstance(event, Completion):
            seconds = time.perf_counter() - start
            rate = len(event.token_ids) / seconds
            print(flush=True)
            print(
                f"{encoded.num_tokens} prompt tokens, {len(event.token_ids)} new tokens in {seconds:.1f} s "
                f"({rate:.1f} per second), ended by {event.finish_reason}",
                file=sys.stderr,
            )
        else:
            print(escape_controls(event.text), end="", flush=True)
