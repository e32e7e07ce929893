"""Store the continuations of one prompt as a tree, in which shared tokens appear once.

Continuations [5 6 7], [5 6 8] and [9] of a prompt that ends in token 4:

    4 ─┬─ 5 ─── 6 ─┬─ 7       The last token of a continuation is never run: ids (5, 6), parents (ROOT, 0).
       │           └─ 8       The logits after 4 score 5 and 9, those after 5 score 6, those after 6 score 7 and 8.
       └─ 9
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from icl_eval.decoding.sharing import Ids

ROOT = -1
"""Index of the prompt's last token."""


@dataclass(frozen=True)
class Tree:
    """Tokens to run after a prompt; a token is known by its index here."""

    ids: Ids
    parents: tuple[int, ...]
    """Index of the token before each token; parents come before their children."""
    paths: tuple[tuple[int, ...], ...]
    """For each continuation, the indices of the tokens whose logits score it, starting with the root."""

    @property
    def depths(self) -> list[int]:
        """The number of tokens before each token in its continuations."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent == ROOT else depths[parent] + 1)
        return depths

    def seen(self) -> torch.Tensor:
        """Return the attention mask, [tokens, tokens]: each token attends to its ancestors and to itself."""
        seen = torch.eye(len(self.ids), dtype=torch.bool)
        for place, parent in enumerate(self.parents):
            if parent != ROOT:
                seen[place] |= seen[parent]
        return seen


def build_tree(continuations: Sequence[Ids]) -> Tree:
    """Return the tree of some continuations, each of at least one token."""
    places: dict[tuple[int, int], int] = {}
    paths = []
    for continuation in continuations:
        path = [ROOT]
        for token_id in continuation[:-1]:
            path.append(places.setdefault((path[-1], token_id), len(places)))
        paths.append(tuple(path))
    return Tree(
        ids=tuple(token_id for _, token_id in places),
        parents=tuple(parent for parent, _ in places),
        paths=tuple(paths),
    )
