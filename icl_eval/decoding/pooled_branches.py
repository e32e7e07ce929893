"""Run prompts and their continuations in rows that come after tokens of any other rows (see `pooled_caches`).

For networks that cannot attend to a prefix in place (because of ALiBi, relative positions, or windows that are shorter
than a row), but whose rows may be padded: chains of any prompts and lengths share a pass (see `chains`). Where a
network counts positions from the length of its cache, these chains must come after equally many tokens.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from icl_eval.decoding.branches import (
    COPIES_BYTES,
    BranchingPrompt,
    ScoredPrompt,
    count_as_tree,
    hand_out,
    join,
    row_cost,
)
from icl_eval.decoding.chains import Chain, plan_passes
from icl_eval.decoding.networks import MAX_PREFILL_TOKENS, decoder_of
from icl_eval.decoding.opening import Beginning
from icl_eval.decoding.pooled_caches import PooledCache
from icl_eval.decoding.pooled_passes import NextIds, Place, find_next_ids, longest_row, run_plan
from icl_eval.decoding.trees import build_tree


class PooledBranches:
    """Runs the chains of a tree, after any tokens of earlier passes."""

    def __init__(
        self,
        network: PreTrainedModel,
        beginning: Beginning,
        bytes_per_token: int,
        aligned: bool,
    ):
        """Start from what all rows begin with.

        Args:
            network: A network whose rows can be padded in the decoder.
            beginning: What all rows begin with; after an encoder, there must be a prefix.
            bytes_per_token: Size of one token's keys and values in the cache.
            aligned: Whether the rows of a pass must come after equally many tokens.
        """
        self._network = network
        self._beginning = beginning
        self._bytes_per_token = bytes_per_token
        self._aligned = aligned

    def batches(self, rows: Sequence[BranchingPrompt]) -> Iterator[list[BranchingPrompt]]:
        """Group rows that begin alike, as many as the pool has room for, and enough for a pass."""
        room = max(MAX_PREFILL_TOKENS, COPIES_BYTES // self._bytes_per_token)
        batch: list[BranchingPrompt] = []
        num_tokens = 0
        for row in sorted(rows, key=lambda row: (row.own_ids, row.number)):
            num_tokens += len(row.own_ids) + row.num_inner
            if batch and num_tokens > room:
                yield batch
                batch, num_tokens = [], len(row.own_ids) + row.num_inner
            batch.append(row)
        if batch:
            yield batch

    def count_prompts(self, batch: Sequence[BranchingPrompt]) -> int:
        """Return the number of the prompts' own tokens in the decoder that a batch runs, without padding."""
        return count_as_tree(batch)

    @torch.inference_mode()
    def run(self, rows: Sequence[BranchingPrompt]) -> list[ScoredPrompt]:
        """Return the log-probabilities of each row's continuations."""
        tree = build_tree([(row.own_ids, row.continuations) for row in rows])
        scored = [each for row in tree.rows for each in row.scored]
        next_ids = find_next_ids(scored)
        begun = self._beginning
        room = longest_row(self._network) - begun.length
        prefix = np.arange(begun.length)
        found = run_plan(
            self._network,
            tree,
            plan_passes(tree, lambda chain: self._cost(chain, next_ids), room, self._aligned),
            next_ids,
            lambda count: PooledCache(self._network, begun.prefix, begun.encoded, begun.length + count),
            lambda chain: Place(prefix, chain.before, None),
        )
        return hand_out(rows, [join([found[each] for each in zip(path, text, strict=True)]) for path, text in scored])

    def _cost(self, chain: Chain, next_ids: NextIds) -> int:
        """Return what a chain needs of the room in a pass, which has copies of one layer at a time."""
        num_copied = self._beginning.num_tokens + len(chain.before) + len(chain.tokens)
        num_layers: int = decoder_of(self._network).config.get_text_config(decoder=True).num_hidden_layers
        num_logits = sum(token in next_ids for token in chain.tokens)
        return row_cost(self._network, len(chain.tokens), num_logits, num_copied, self._bytes_per_token / num_layers)
