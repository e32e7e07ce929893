"""Store prompts and their continuations as one tree, in which shared tokens appear once.

Prompt [1 2] with continuations [5 6 7], [5 6 8] and [9], and prompt [1 3] with continuation [9 9]:

    ROOT ─── 1 ─┬─ 2 ─┬─ 5 ─── 6 ─┬─ 7      The last token of a continuation is never run:
                │     │           └─ 8      ids (1, 2, 5, 6, 3, 9), parents (ROOT, 0, 1, 2, 0, 4).
                │     └─ 9                  The logits after 2 score 5 and 9, those after 5 score 6, and so on.
                └─ 3 ─── 9 ─── 9
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from icl_eval.prompts.token_ids import Ids

ROOT = -1
"""Index of the last token that all prompts share, which is not in the tree."""


@dataclass(frozen=True)
class TreeRow:
    """One prompt in a tree; a token is known by its index in the tree."""

    context: tuple[int, ...]
    """The tokens of the prompt."""
    inner: tuple[int, ...]
    """The tokens of its continuations, without the last ones."""
    begin: int
    """The first token that no earlier prompt has."""
    end: int
    """The token after the last one that no earlier prompt has."""
    paths: tuple[tuple[int, ...], ...]
    """For each continuation, the tokens whose logits score it, starting with the prompt's last one."""
    continuations: tuple[Ids, ...]
    """The ids that they score."""

    @property
    def keys(self) -> tuple[int, ...]:
        """All tokens of the row; each attends to some of them and to no others."""
        return self.context + self.inner

    @property
    def scored(self) -> list[tuple[tuple[int, ...], Ids]]:
        """The path of each continuation, and its ids."""
        return list(zip(self.paths, self.continuations, strict=True))


@dataclass(frozen=True)
class Tree:
    """Tokens to run after what all prompts share."""

    ids: Ids
    parents: tuple[int, ...]
    """Index of the token before each token; parents come before their children."""
    rows: tuple[TreeRow, ...]

    @property
    def depths(self) -> list[int]:
        """The number of tokens before each token in its row."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent == ROOT else depths[parent] + 1)
        return depths

    def seen(self, row: TreeRow) -> np.ndarray:
        """Return the attention mask of a row's new tokens, [new tokens, keys]: their ancestors and themselves."""
        places = {token: place for place, token in enumerate(row.keys)}
        length = len(row.context)
        seen = np.eye(len(places), dtype=bool)
        seen[:length, :length] = np.tri(length, dtype=bool)
        for place, token in enumerate(row.inner, length):
            seen[place] |= seen[places[self.parents[token]]]
        return seen[[places[token] for token in range(row.begin, row.end)]]


def build_tree(prompts: Sequence[tuple[Ids, Sequence[Ids]]]) -> Tree:
    """Return the tree of some prompts, each of at least one token, with continuations of at least one token."""
    places: dict[tuple[int, int], int] = {}
    rows = []
    for ids, continuations in prompts:
        begin, last, context = len(places), ROOT, []
        for token_id in ids:
            last = places.setdefault((last, token_id), len(places))
            context.append(last)
        paths = []
        for continuation in continuations:
            path = [last]
            for token_id in continuation[:-1]:
                path.append(places.setdefault((path[-1], token_id), len(places)))
            paths.append(tuple(path))
        inner = dict.fromkeys(token for path in paths for token in path[1:])
        rows.append(TreeRow(tuple(context), tuple(inner), begin, len(places), tuple(paths), tuple(continuations)))
    return Tree(
        ids=tuple(token_id for _, token_id in places),
        parents=tuple(parent for parent, _ in places),
        rows=tuple(rows),
    )


def count_inner(continuations: Sequence[Ids]) -> int:
    """Return the number of distinct tokens that continuations of one prompt run, which are all but their last ones."""
    return len(build_tree([((0,), continuations)]).ids) - 1
