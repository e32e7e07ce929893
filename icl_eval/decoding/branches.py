"""Run continuations after their prompts, in one of four ways.

tree_branches    for networks with split attention: prompts and their continuations form one tree without padding
pooled_branches  for other decoders whose rows may be padded: a tree, too, but in rows
prompt_trees     the same after prompts with different inputs of an encoder, each of which has a tree of its own
prompt_copies    for every other network: the cache of a prompt is copied for each of its continuations
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from math import ceil
from typing import Protocol

import torch
from transformers import PreTrainedModel

from icl_eval.decoding.networks import MAX_PREFILL_TOKENS, decoder_of
from icl_eval.decoding.sharing import common_length
from icl_eval.decoding.trees import count_inner
from icl_eval.prompts.token_ids import Ids

_LOGITS_BYTES = 256_000_000
"""Upper bound for the logits of one forward pass, which fill the memory if the vocabulary is large."""
COPIES_BYTES = 512_000_000
"""Upper bound for the copies of keys and values that the rows of one forward pass need."""
_PICKED_TOGETHER = 64
"""Columns of logits that are copied at a time; for a long continuation, all would need as much memory again."""


@dataclass(frozen=True)
class ScoredContinuation:
    """The log-probabilities of one continuation of a prompt."""

    logprobs: tuple[float, ...]
    """The natural logarithm of each token's probability."""
    is_greedy: bool | None
    """Whether every token is the most probable one, so that greedy decoding would generate the continuation; None if a
    server does not say."""


ScoredPrompt = tuple[ScoredContinuation, ...]
"""The scores of a prompt's continuations."""


@dataclass(frozen=True)
class BranchingPrompt:
    """One prompt, without the prefix that it shares with the other rows, and its continuations."""

    number: int
    """Index of the prompt."""
    encoder_ids: Ids
    """Empty for a decoder-only network, and if the rows share the encoder's states."""
    own_ids: Ids
    """Decoder tokens after the prefix; at least one."""
    continuations: tuple[Ids, ...]
    """Token ids of each continuation."""

    @cached_property
    def num_inner(self) -> int:
        """The number of tokens that the continuations run, which are all but their last ones."""
        return count_inner(self.continuations)


class Branches(Protocol):
    """A way to run continuations after prompts that share a prefix."""

    def batches(self, rows: Sequence[BranchingPrompt]) -> Iterator[list[BranchingPrompt]]:
        """Group rows into batches of one forward pass each; the grouping depends on the rows alone."""

    def count_prompts(self, batch: Sequence[BranchingPrompt]) -> int:
        """Return the number of the prompts' own tokens in the decoder that a batch runs, without padding."""

    def run(self, rows: Sequence[BranchingPrompt]) -> list[ScoredPrompt]:
        """Return the log-probabilities of each row's continuations."""


def count_as_tree(batch: Sequence[BranchingPrompt]) -> int:
    """Return the number of own tokens of prompts in the order of these tokens, without what neighbours begin with."""
    shared = sum(common_length(one.own_ids, other.own_ids) for one, other in pairwise(batch))
    return sum(len(row.own_ids) for row in batch) - shared


def hand_out(rows: Sequence[BranchingPrompt], scores: Iterable[ScoredContinuation]) -> list[ScoredPrompt]:
    """Return the scores of each row's continuations, from those of all rows one after the other."""
    left = iter(scores)
    return [tuple(islice(left, len(row.continuations))) for row in rows]


def join(parts: Sequence[ScoredContinuation]) -> ScoredContinuation:
    """Return the scores of a continuation from those of its parts, one after the other."""
    logprobs = tuple(value for part in parts for value in part.logprobs)
    return ScoredContinuation(logprobs, all(part.is_greedy for part in parts))


def row_cost(network: PreTrainedModel, num_run: int, num_logits: int, num_copied: int, copied_bytes: float) -> int:
    """Return what a row needs of the room in a pass, in units of tokens that the pass runs; see `divide`.

    Args:
        network: The network.
        num_run: The number of tokens that the row runs.
        num_logits: The number of these tokens whose logits are computed.
        num_copied: The number of tokens whose keys and values the row has copies of.
        copied_bytes: The size of such a copy of one token.
    """
    copying = copied_bytes * MAX_PREFILL_TOKENS / COPIES_BYTES
    return ceil(max(num_run, copying * num_copied, logits_cost(network) * num_logits))


def logits_cost(network: PreTrainedModel) -> float:
    """Return the memory cost of one token's logits, in units of tokens that a forward pass runs."""
    size: int = decoder_of(network).get_input_embeddings().num_embeddings
    per_token: int = size * network.dtype.itemsize
    return per_token * MAX_PREFILL_TOKENS / _LOGITS_BYTES


def pick(logits: torch.Tensor, picks: Sequence[tuple[Sequence[int], Ids]]) -> list[ScoredContinuation]:
    """Score continuations from logits [columns, vocabulary], each with the columns that predict its tokens."""
    log_denominators, best = [], []
    for some in torch.split(logits, _PICKED_TOGETHER):
        wide = some if some.dtype == torch.float64 else some.float()
        log_denominators.append(wide.logsumexp(-1))
        best.append(wide.argmax(-1))
    columns = torch.tensor([column for places, _ in picks for column in places], device=logits.device)
    ids = torch.tensor([token_id for _, text in picks for token_id in text], device=logits.device)
    chosen = logits[columns, ids].to(log_denominators[0].dtype)
    values = iter((chosen - torch.cat(log_denominators)[columns]).tolist())
    greedy = iter((torch.cat(best)[columns] == ids).tolist())
    return [
        ScoredContinuation(tuple(islice(values, len(text))), all(list(islice(greedy, len(text))))) for _, text in picks
    ]
