"""Decoding: from prompts to completions, one token at a time.

To follow a token from logits to screen, read in this order:

    stream           rows join, tokens are chosen, finished rows leave
    choosing         the next token of each row, from its logits: the most likely one, or a draw
    hypotheses       one completion while it is being decoded
    completions      what the stream yields: tokens, and completions
    detokenization   token ids to text, never a part of a character
    stopping         stop strings in a stream of text
    rules            what a model's generation config and a search demand of logits
    model_rules      which of those demands are the model's, for reports

from a prompt to the probability of what could follow it:

    log_probs        which texts are run together
    branches         running texts after prompts
    trees            what the texts of one prompt share

and for how it is made fast:

    sharing          which prompts begin alike, and which beginnings are worth computing once
    prefixes         the caches of those beginnings, kept for later prompts
    sessions         rows in a network: join, step, keep
    networks         running one, whatever its architecture
    split_attention  attending to a shared prefix in place
    growing          copies of a prefix that grow in place, where attention cannot be split
    linears          matrix products on a processor
    opening          the right session for a group of prompts
    capabilities     what a network can do, found by trying it
    preparing        a network for one call, and what is kept of it until the next
    memory           how many rows fit

and for what the stream does not do:

    library          `generate` itself, with whatever options
    decoders         which of the two a search asks for
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icl_eval.decoding.completions import Completion, FinishReason, Token
    from icl_eval.decoding.decoders import Decoder, build_decoder
    from icl_eval.decoding.log_probs import LikelihoodScorer
    from icl_eval.decoding.stream import StreamDecoder

__all__ = [
    "Completion",
    "Decoder",
    "FinishReason",
    "LikelihoodScorer",
    "StreamDecoder",
    "Token",
    "build_decoder",
]

_MODULES = {
    "Completion": "completions",
    "Decoder": "decoders",
    "FinishReason": "completions",
    "LikelihoodScorer": "log_probs",
    "StreamDecoder": "stream",
    "Token": "completions",
    "build_decoder": "decoders",
}


def __getattr__(name: str) -> Any:
    """Import what is public when it is first asked for: a search can be described without torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
