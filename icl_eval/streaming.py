"""Streaming: one completion of a plain prompt, shown token by token."""

import sys
import time

from icl_eval.building import build_model_spec, check_model_options
from icl_eval.config import StreamConfig
from icl_eval.decoding import Completion, GreedyDecoder
from icl_eval.models import load_model
from icl_eval.prompts import Context, EncodedPrompt, Prompt
from icl_eval.tokenization import encode_prompt

DEFAULT_MAX_NEW_TOKENS = 50


def stream_completion(config: StreamConfig) -> None:
    """Load the model and print the completion on stdout while it is made, then a summary on stderr.

    An encoder-decoder model reads the prompt in its encoder, a decoder-only model goes on from it.

    Raises:
        UserError: When an option is impossible or the prompt does not fit.
    """
    check_model_options(config)
    max_new_tokens = config.max_new_tokens or DEFAULT_MAX_NEW_TOKENS
    model = load_model(build_model_spec(config.model), config.dtype, config.device)
    has_encoder = model.architecture == "encoder-decoder"
    prompt = Prompt(
        "prompt",
        encoder=config.prompt if has_encoder else None,
        decoder=None if has_encoder else config.prompt,
    )
    encoded = encode_prompt(model.tokenizer, prompt)
    Context(model.max_length, max_new_tokens).require_fit(encoded)
    decoder = GreedyDecoder(model, max_new_tokens, config.decoding.stop or ())
    _show(decoder, encoded)


def _show(decoder: GreedyDecoder, encoded: EncodedPrompt) -> None:
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
