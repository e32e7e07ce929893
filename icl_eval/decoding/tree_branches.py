"""Run prompts and their continuations as one tree, for networks with split attention (see `trees`).

A tree runs in one pass without padding, in which a token attends only to the tokens before it in its own row.
"""

from collections.abc import Iterator, Sequence

import torch
from transformers import Cache, PreTrainedModel

from icl_eval.decoding.branches import (
    BranchingPrompt,
    ScoredPrompt,
    count_as_tree,
    hand_out,
    logits_cost,
    pick,
)
from icl_eval.decoding.networks import MAX_PREFILL_TOKENS, logits_at, most_prefill_tokens
from icl_eval.decoding.sessions import layers_of
from icl_eval.decoding.sharing import common_length
from icl_eval.decoding.split_caches import PackedCache, PackedRows, Packing, PassMask
from icl_eval.decoding.trees import Tree, TreeRow, build_tree

_MOST_PADDING = 2
"""How many times as much as needed attention may compute, so that rows of different sizes form fewer parts."""


class TreeBranches:
    """Runs prompts and their continuations as a tree that attends to the shared prefix in place."""

    def __init__(self, network: PreTrainedModel, prefix: Cache | None):
        """Start from the complete cache of a prefix, or from None if there is no prefix."""
        self._network = network
        self._prefix = layers_of(network, prefix)
        self._prefix_length = 0 if prefix is None else prefix.get_seq_length()

    def batches(self, rows: Sequence[BranchingPrompt]) -> Iterator[list[BranchingPrompt]]:
        """Group rows that begin alike, so that few tokens are run in two passes.

        A pass has at most `most_prefill_tokens`, and as many more as its last row shares with the one before it:
        another pass would run those again.
        """
        most, per_column = most_prefill_tokens(self._network.device), logits_cost(self._network)
        batch: list[BranchingPrompt] = []
        num_tokens = num_logits = 0
        for row in sorted(rows, key=lambda row: (row.own_ids, row.number)):
            shared = common_length(batch[-1].own_ids, row.own_ids) if batch else 0
            num_tokens += len(row.own_ids) - shared + row.num_inner
            num_logits += 1 + row.num_inner
            if batch and (num_tokens > most + shared or per_column * num_logits > MAX_PREFILL_TOKENS):
                yield batch
                batch = []
                num_tokens, num_logits = len(row.own_ids) + row.num_inner, 1 + row.num_inner
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
        packing = pack(tree, self._network.dtype, self._network.device)
        used = sorted({token for row in tree.rows for path in row.paths for token in path})
        logits = logits_at(
            self._network,
            used,
            input_ids=torch.tensor([tree.ids], device=self._network.device),
            position_ids=torch.tensor([tree.depths], device=self._network.device) + self._prefix_length,
            past_key_values=PackedCache(packing, self._prefix),
        )  # [1, used tokens, vocabulary]
        places = {token: place for place, token in enumerate(used)}
        picks = [([places[token] for token in path], text) for row in tree.rows for path, text in row.scored]
        return hand_out(rows, pick(logits[0], picks))


def pack(tree: Tree, dtype: torch.dtype, device: torch.device) -> Packing:
    """Return how attention finds the rows of a tree.

    Args:
        tree: The tree, whose tokens run in its order.
        dtype: The network's dtype, for masks.
        device: The device of the packing.
    """
    parts, places, before = [], torch.empty(len(tree.ids), dtype=torch.long), 0
    for rows in _similar([row for row in tree.rows if row.begin < row.end]):
        num_queries = max(row.end - row.begin for row in rows)
        num_keys = max(len(row.keys) for row in rows)
        queries = torch.zeros(len(rows), num_queries, dtype=torch.long)
        keys = torch.zeros(len(rows), num_keys, dtype=torch.long)
        seen = torch.zeros(len(rows), num_queries, num_keys, dtype=torch.bool)
        for number, row in enumerate(rows):
            new = row.end - row.begin
            queries[number, :new] = torch.arange(row.begin, row.end)
            keys[number, : len(row.keys)] = torch.tensor(row.keys)
            seen[number, :new, : len(row.keys)] = torch.from_numpy(tree.seen(row))
            seen[number, new:] = True  # a softmax over nothing would be NaN
            places[row.begin : row.end] = torch.arange(new) + before + number * num_queries
        before += len(rows) * num_queries
        parts.append(PackedRows(queries, keys, PassMask(seen, dtype)))
    return Packing(tuple(parts), places, max(len(row.keys) for row in tree.rows)).to(device)


def _similar(rows: Sequence[TreeRow]) -> Iterator[list[TreeRow]]:
    """Group rows of similar size, so that at least half of what attention computes for a group is needed."""
    group: list[TreeRow] = []
    needed = 0
    for row in sorted(rows, key=lambda row: (row.begin - row.end, -len(row.keys))):
        num_queries = group[0].end - group[0].begin if group else 0
        num_keys = max(len(each.keys) for each in (*group, row))
        needed += (row.end - row.begin) * len(row.keys)
        if group and (len(group) + 1) * num_queries * num_keys > _MOST_PADDING * needed:
            yield group
            group, needed = [], (row.end - row.begin) * len(row.keys)
        group.append(row)
    if group:
        yield group
