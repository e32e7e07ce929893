"""Decode prompts into completions, one token at a time.

To follow a token from its logits to the screen, read the modules in this order:

    stream           rows join, tokens are chosen, finished rows leave
    choosing         the next token of each row: the argmax of its logits, or a sample
    hypotheses       one completion while it is being decoded, and what ends it
    completions      what the stream yields: tokens and completions
    detokenization   token ids to text, in whole characters
    stopping         stop strings in a stream of text
    rules            logits processors from the model's generation config and the search settings
    model_rules      which of those rules come from the model, for reports

From a prompt to the log-likelihood of its continuations:

    log_probs        the log-probabilities of continuations, batch by batch
    parts            which prompts run together, after what all of them begin with
    branches         what the four ways to run continuations after their prompts have in common
    tree_branches    how they run where rows attend to a prefix in place
    trees            the tokens that prompts and their continuations share
    pooled_branches  how they run where rows cannot attend to a prefix in place, but may be padded
    chains           which tokens of a tree form a row, and which rows a pass
    pooled_passes    passes of such rows, and the scores of what comes after them
    pooled_caches    the cache of rows that come after any tokens of other rows
    prompt_branches  how they run after prompts that each have a row, in one of two ways:
    prompt_trees     as trees, after prompts with different inputs of an encoder
    prompt_copies    after copies of their prompts, everywhere else

What makes it fast:

    sharing          prompts with a common prefix, and which prefixes are worth computing once
    prefixes         key/value caches of those prefixes, kept for later prompts
    sessions         rows in a network: join, step, keep
    padded_sessions  rows of any length with copies of their prefix
    networks         forward passes for any architecture
    split_attention  attention to a shared prefix without copying it
    split_caches     the caches that it reads
    kernels          attention with its softmax denominator, by the best kernel of a device
    cuda_graphs      decoding steps on a GPU, recorded once and repeated
    growing          prefix copies that grow in place, for networks without split attention
    linears          oneDNN matrix products on the CPU
    opening          what prompts begin with, and the right session for a group of them after it
    capabilities     what a network supports, measured with a short trial
    preparing        a network set up for one call, and what is cached until the next
    memory           how many rows to begin with; `stream` and `log_probs` halve them if memory runs out

Everything that the stream does not support:

    generate         transformers' own `generate`, with any options
    searches         what a configuration asks for: greedy, sampled, or any search of the library
    decoders         the decoder for a given search

What a run asks, whoever computes it:

    engines          the network in this process, or a server
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
    """Import public names on first use, so that describing a search does not import torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
