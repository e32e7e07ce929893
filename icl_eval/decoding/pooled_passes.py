"""Run chains of a tree in passes, in rows that come after any tokens of a pool, and score what comes after them."""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedModel

from icl_eval.decoding.branches import ScoredContinuation, pick
from icl_eval.decoding.chains import Chain, count_fed
from icl_eval.decoding.networks import logits_at, rope_switches_at
from icl_eval.decoding.pooled_caches import Columns, PooledCache
from icl_eval.decoding.trees import Tree
from icl_eval.models.cards import read_max_length
from icl_eval.prompts.token_ids import Ids

NextIds = Mapping[int, Collection[int]]
"""The ids that the logits of each token of a tree score."""
NextScores = dict[tuple[int, int], ScoredContinuation]
"""The scores of such ids, by the token and the id."""


def longest_row(network: PreTrainedModel) -> float:
    """Return the number of tokens that a row may have, with padding: positions beyond may change all others."""
    limits = (read_max_length(network.config), rope_switches_at(network.config))
    return min((limit for limit in limits if limit is not None), default=math.inf)


class Place(NamedTuple):
    """What a chain comes after."""

    columns: Columns
    """The columns of a pool with which its row begins."""
    tokens: Sequence[int]
    """The tokens of the tree that follow them."""
    source: int | None
    """The row of the encoder's states that it attends to; None if there is one for all."""


def run_plan(
    network: PreTrainedModel,
    tree: Tree,
    plan: Sequence[Sequence[Chain]],
    next_ids: NextIds,
    build_pool: Callable[[int], PooledCache],
    locate: Callable[[Chain], Place],
) -> NextScores:
    """Run chains of a tree in passes and return the scores of the ids after their tokens.

    Args:
        network: The network.
        tree: The tree.
        plan: The chains of each pass.
        next_ids: The ids to score.
        build_pool: Returns a pool with a number of columns beside those with which rows begin.
        locate: Returns what a chain comes after.
    """
    needed = {token for chains in plan for chain in chains for token in chain.before}
    stays = [any(not needed.isdisjoint(chain.tokens) for chain in chains) for chains in plan]
    sizes = [count_fed(chains) for chains in plan]
    # A pass of which nothing is needed has its columns in common with the next one.
    kept = [size * each for size, each in zip(sizes, stays, strict=True)]
    begins = list(accumulate(kept, initial=0))
    pool = build_pool(max(begin + size for begin, size in zip(begins, sizes, strict=False)))
    columns = np.zeros(len(tree.ids), dtype=np.int64)  # of each token
    scores: NextScores = {}
    for chains, begin in zip(plan, begins, strict=False):
        ids = [[tree.ids[token] for token in chain.tokens] for chain in chains]
        places = [locate(chain) for chain in chains]
        before = [np.concatenate([place.columns, columns[list(place.tokens)]]) for place in places]
        sources = [place.source for place in places if place.source is not None] or None
        first = pool.prefix_length + begin
        scores |= _run_pass(network, chains, pool.prepare(ids, before, first, sources), next_ids)
        for chain, start in zip(chains, range(first, first + len(ids) * len(ids[0]), len(ids[0])), strict=True):
            columns[chain.tokens] = range(start, start + len(chain.tokens))
    return scores


def _run_pass(
    network: PreTrainedModel, chains: Sequence[Chain], inputs: Mapping[str, Any], next_ids: NextIds
) -> NextScores:
    """Run chains, each in a row, and return the scores of the ids after their tokens."""
    wanted = [
        (number, column, token)
        for number, chain in enumerate(chains)
        for column, token in enumerate(chain.tokens)
        if token in next_ids
    ]
    columns = sorted({column for _, column, _ in wanted} or {0})
    places = {column: place for place, column in enumerate(columns)}
    logits = logits_at(network, columns, **inputs).flatten(0, 1)  # [rows * columns, vocabulary]
    picks = {
        (token, token_id): ([number * len(columns) + places[column]], (token_id,))
        for number, column, token in wanted
        for token_id in next_ids[token]
    }
    return dict(zip(picks, pick(logits, list(picks.values())), strict=True)) if picks else {}


def find_next_ids(scored: Iterable[tuple[Sequence[int], Ids]]) -> NextIds:
    """Return the ids that the logits of each token score, from the paths of continuations and their ids."""
    next_ids: defaultdict[int, set[int]] = defaultdict(set)
    for path, text in scored:
        for token, token_id in zip(path, text, strict=True):
            next_ids[token].add(token_id)
    return next_ids
