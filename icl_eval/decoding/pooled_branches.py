"""Run prompts and their continuations in rows that come after tokens of any other rows (see `pooled_caches`).

For networks that cannot attend to a prefix in place (because of ALiBi, relative positions, or windows that
are shorter than a row), but whose rows may be padded: chains of any prompts and lengths share a pass (see `chains`).
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate, islice, pairwise
from typing import Any

import numpy as np
import torch
from transformers import Cache, PreTrainedModel

from icl_eval.decoding.branches import (
    COPIES_BYTES,
    BranchingPrompt,
    ScoredContinuation,
    ScoredPrompt,
    count_as_tree,
    logits_cost,
    pick,
)
from icl_eval.decoding.chains import Chain, count_fed, plan_passes
from icl_eval.decoding.networks import MAX_PREFILL_TOKENS, decoder_of, logits_at, rope_switches_at
from icl_eval.decoding.pooled_caches import PooledCache
from icl_eval.decoding.trees import Tree, build_tree
from icl_eval.models.cards import read_max_length

Asked = Mapping[int, Collection[int]]
"""The ids that are scored by the logits of each token of a tree."""
Scores = dict[tuple[int, int], ScoredContinuation]
"""The scores of such ids, by the token and the id."""


class PooledBranches:
    """Runs the chains of a tree, after any tokens of earlier passes."""

    def __init__(
        self, network: PreTrainedModel, prefix: Cache | None, encoded: torch.Tensor | None, bytes_per_token: int
    ):
        """Start from a prefix.

        Args:
            network: A network whose rows can be padded in the decoder.
            prefix: The cache of the shared prefix; None if there is no prefix, which must be there after an encoder.
            encoded: The encoder's states, [1, tokens, size], which all rows share.
            bytes_per_token: Size of one token's keys and values in the cache.
        """
        self._network = network
        self._prefix = prefix
        self._encoded = encoded
        self._prefix_length = 0 if prefix is None else prefix.get_seq_length()
        self._num_shared = self._prefix_length + (0 if encoded is None else encoded.shape[1])
        self._bytes_per_token = bytes_per_token

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
        placed = [
            (path, text)
            for row, in_tree in zip(rows, tree.rows, strict=True)
            for path, text in zip(in_tree.paths, row.continuations, strict=True)
        ]
        asked: defaultdict[int, set[int]] = defaultdict(set)
        for path, text in placed:
            for token, token_id in zip(path, text, strict=True):
                asked[token].add(token_id)
        found = self._run_tree(tree, asked)
        scores = iter([_join([found[place] for place in zip(path, text, strict=True)]) for path, text in placed])
        return [tuple(islice(scores, len(row.continuations))) for row in rows]

    def _run_tree(self, tree: Tree, asked: Asked) -> Scores:
        """Run a tree in passes."""
        plan = plan_passes(tree, lambda chain: self._cost(chain, asked), self._longest_row() - self._prefix_length)
        needed = {token for chains in plan for chain in chains for token in chain.before}
        stays = [any(not needed.isdisjoint(chain.tokens) for chain in chains) for chains in plan]
        sizes = [count_fed(chains) for chains in plan]
        # A pass of which nothing is needed has its columns in common with the next one.
        kept = [size * each for size, each in zip(sizes, stays, strict=True)]
        begins = list(accumulate(kept, initial=self._prefix_length))
        num_columns = max(begin + size for begin, size in zip(begins, sizes, strict=False))
        pool = PooledCache(self._network, self._prefix, self._encoded, num_columns)
        prefix = np.arange(self._prefix_length)
        columns = np.zeros(len(tree.ids), dtype=np.int64)  # of each token
        scores: Scores = {}
        for chains, (begin, end) in zip(plan, pairwise(begins), strict=True):
            ids = [[tree.ids[token] for token in chain.tokens] for chain in chains]
            before = [np.concatenate([prefix, columns[list(chain.before)]]) for chain in chains]
            scores |= self._score(chains, pool.prepare(ids, before, begin), asked)
            for first, chain in zip(range(begin, end, len(ids[0])), chains, strict=False):
                columns[chain.tokens] = range(first, first + len(chain.tokens))
        return scores

    def _longest_row(self) -> float:
        """Return the number of tokens that a row may have, with padding: positions beyond may change all others."""
        config = self._network.config
        limits = (read_max_length(config), rope_switches_at(config))
        return min((limit for limit in limits if limit is not None), default=math.inf)

    def _score(self, chains: Sequence[Chain], inputs: Mapping[str, Any], asked: Asked) -> Scores:
        """Run one pass."""
        wanted = [
            (number, column, token)
            for number, chain in enumerate(chains)
            for column, token in enumerate(chain.tokens)
            if token in asked
        ]
        columns = sorted({column for _, column, _ in wanted} or {0})
        places = {column: place for place, column in enumerate(columns)}
        logits = logits_at(self._network, columns, **inputs).flatten(0, 1)  # [rows * columns, vocabulary]
        picks = {
            (token, token_id): ([number * len(columns) + places[column]], (token_id,))
            for number, column, token in wanted
            for token_id in asked[token]
        }
        return dict(zip(picks, pick(logits, list(picks.values())), strict=True)) if picks else {}

    def _cost(self, chain: Chain, asked: Asked) -> int:
        """Return what a chain needs of the room in a pass, which has copies of one layer at a time."""
        num_kept = self._num_shared + len(chain.before) + len(chain.tokens)
        num_layers: int = decoder_of(self._network).config.get_text_config(decoder=True).num_hidden_layers
        copying = self._bytes_per_token / num_layers * MAX_PREFILL_TOKENS / COPIES_BYTES
        num_logits = sum(token in asked for token in chain.tokens)
        return math.ceil(max(len(chain.tokens), copying * num_kept, logits_cost(self._network) * num_logits))


def _join(tokens: Sequence[ScoredContinuation]) -> ScoredContinuation:
    logprobs = tuple(value for scored in tokens for value in scored.logprobs)
    return ScoredContinuation(logprobs, all(scored.is_greedy for scored in tokens))
