"""Cut a tree of prompts and continuations into chains, each of which runs in a row of a forward pass.

1 ─── 2 ─┬─ 3 ─── 4       two chains: [1 2 3 4], and after it [5 6], which comes after the tokens 1 and 2
         └─ 5 ─── 6       or two at once, [1 2 3 4] and [1 2 5 6], if two tokens are not worth waiting for
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from icl_eval.decoding.networks import MOST_FED, PASS_TOKENS, PASS_WEIGHTS, divide
from icl_eval.decoding.trees import ROOT, Tree

_WORTH_WAITING = (16, 4, 1)
"""For how many tokens a chain waits for another one instead of running them, too; one of these is chosen."""


class Level(NamedTuple):
    """Chains that do not wait for each other; a level waits for those before it."""

    is_inner: bool
    """Whether the tokens belong to continuations."""
    depth: int
    """How many chains of their kind they come after."""


@dataclass(frozen=True)
class Chain:
    """Tokens of a tree that run one after the other in one row."""

    level: Level
    before: tuple[int, ...]
    """The tokens that they come after, which run in chains of lower levels."""
    tokens: list[int]


def plan_passes(
    tree: Tree, cost: Callable[[Chain], int], room: float = math.inf, aligned: bool = False
) -> list[list[Chain]]:
    """Return the chains of each pass: of the plans that feed little more than the tree, the one that costs the least.

    Args:
        tree: The tree, not empty.
        cost: What a chain needs of the room in a pass; see `divide`.
        room: The largest number of tokens of a row, with those that it comes after and padding.
        aligned: Whether the chains of a pass must come after equally many tokens.
    """
    cuts = [cut(tree, worth) for worth in _WORTH_WAITING]
    if aligned:
        cuts = [[chains for level in levels for chains in _align(level)] for levels in cuts]
    plans = [plan for levels in cuts if (plan := _divide_levels(levels, cost, room, len(tree.ids)))]
    return min(plans, key=lambda plan: PASS_TOKENS * len(plan) + sum(map(count_fed, plan)))


def count_fed(chains: Sequence[Chain]) -> int:
    """Return the number of tokens that a pass runs, with padding."""
    return len(chains) * max(len(chain.tokens) for chain in chains)


def cut(tree: Tree, worth: int) -> list[list[Chain]]:
    """Cut a tree into chains and return them by level, the longest of a level first.

    After each token, a chain follows the branch with the most tokens, so that there are few levels. The tokens of
    continuations are in chains of their own, so that logits are computed where they are needed.

    Args:
        tree: The tree.
        worth: A chain that branches off another one after fewer of its tokens runs these, too, instead of waiting.
    """
    in_prompt = {token for row in tree.rows for token in row.context}
    follows = _follow(tree, in_prompt)
    chains: list[Chain] = []
    places: list[tuple[Chain, int]] = []  # the chain of each token, and how many of its tokens there are up to there
    for token, parent in enumerate(tree.parents):
        is_inner = token not in in_prompt
        if follows.get(parent) == token:
            chain = places[parent][0]
        else:
            chains.append(
                chain := _begin(is_inner, worth, *places[parent]) if parent != ROOT else Chain(Level(False, 0), (), [])
            )
        chain.tokens.append(token)
        places.append((chain, len(chain.tokens)))
    levels: defaultdict[Level, list[Chain]] = defaultdict(list)
    for chain in sorted(chains, key=lambda chain: (-len(chain.tokens), chain.tokens)):
        levels[chain.level].append(chain)
    return [levels[level] for level in sorted(levels)]


def _align(level: Sequence[Chain]) -> list[list[Chain]]:
    """Return the chains of a level that come after equally many tokens, the longest first."""
    by_depth: defaultdict[int, list[Chain]] = defaultdict(list)
    for chain in level:
        by_depth[len(chain.before)].append(chain)
    return list(by_depth.values())


def _follow(tree: Tree, in_prompt: set[int]) -> dict[int, int]:
    """Return the token with which a chain goes on after each token, if there is one."""
    sizes = [1] * len(tree.ids)  # the number of tokens from each token on
    follows: dict[int, int] = {}
    for token in range(len(tree.ids) - 1, -1, -1):
        parent = tree.parents[token]
        if parent == ROOT:
            continue
        sizes[parent] += sizes[token]
        if (token in in_prompt) == (parent in in_prompt) and sizes[token] >= sizes[follows.get(parent, token)]:
            follows[parent] = token
    return follows


def _fit(chains: Sequence[Chain], room: float) -> Iterator[list[Chain]]:
    """Split a pass so that the longest chain has room after all that any of its chains comes after."""
    fitting: list[Chain] = []
    for chain in chains:
        width = len(fitting[0].tokens) if fitting else 0
        if fitting and len(chain.before) + width > room:
            yield fitting
            fitting = []
        fitting.append(chain)
    yield fitting


def _begin(is_inner: bool, worth: int, chain: Chain, count: int) -> Chain:
    """Return a new chain that branches off after some tokens of another."""
    begun = chain.tokens[:count]
    is_alike = chain.level.is_inner == is_inner
    if is_alike and count < worth:
        return Chain(chain.level, chain.before, begun)
    depth = chain.level.depth + 1 if is_alike else 0
    return Chain(Level(is_inner, depth), (*chain.before, *begun), [])


def _divide_levels(
    levels: Sequence[Sequence[Chain]], cost: Callable[[Chain], int], room: float, least: int
) -> list[list[Chain]] | None:
    """Return the chains of each pass, or None if chains feed too much even without padding."""
    sizes = [([len(chain.tokens) for chain in level], [cost(chain) for chain in level]) for level in levels]
    for weight in PASS_WEIGHTS:
        plan = [
            chains
            for level, (lengths, costs) in zip(levels, sizes, strict=True)
            for some in divide(lengths, costs, weight)
            for chains in _fit(level[some], room)
        ]
        if sum(map(count_fed, plan)) <= MOST_FED * least:
            return plan
    return None
