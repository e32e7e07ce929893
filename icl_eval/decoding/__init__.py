"""Decoding: from prompts to completions, one token at a time.

greedy          the stream: chooses tokens, ends completions, lets finished rows leave the batch
sessions        runs the network: prefill, step, keep; one class an architecture
batching        which prompts are decoded together
rules           what a model's generation config demands of greedy search
detokenization  token ids to text, never a part of a character
stopping        stop strings in a stream of text
"""

from icl_eval.decoding.completions import Completion, FinishReason, Token
from icl_eval.decoding.greedy import GreedyDecoder

__all__ = ["Completion", "FinishReason", "GreedyDecoder", "Token"]
