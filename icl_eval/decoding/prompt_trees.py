"""Run continuations of prompts that have different inputs of an encoder, each as a tree after its prompt.

Only these inputs keep the prompts from being one tree. So a prompt runs in a row of its own, and is a token of a tree
that all continuations form: their chains share passes, in rows that come after any prompt (see `pooled_passes`).
"""

from functools import partial

import numpy as np

from icl_eval.decoding.branches import join, pick
from icl_eval.decoding.chains import Chain, plan_passes
from icl_eval.decoding.pooled_caches import PooledCache
from icl_eval.decoding.pooled_passes import NextScores, Place, find_next_ids, longest_row, run_plan
from icl_eval.decoding.prompt_branches import Batch, PromptBranches, Scores
from icl_eval.decoding.trees import build_tree


def run_trees(branches: PromptBranches, batch: Batch, aligned: bool) -> Scores:
    """Run all continuations in one tree, in which a prompt is a token.

    Args:
        branches: Runs the prompts, without a prefix: prompts with different inputs of an encoder have none. The network
            is an encoder-decoder whose decoder's rows can be padded, and keep all tokens.
        batch: The prompts and their continuations.
        aligned: Whether the rows of a pass must come after equally many tokens.
    """
    tree = build_tree([((number,), texts) for number, texts in enumerate(batch.texts)])
    states = branches.run_prompts(batch.prompts, batch.count_spare(len(tree.ids) - len(batch.prompts)) / 2)
    roots = {row.context[0]: number for number, row in enumerate(tree.rows)}
    length = states.cache.get_seq_length()

    def locate(chain: Chain) -> Place:
        number = roots[chain.before[0]]
        return Place(np.arange(number * length, (number + 1) * length), chain.before[1:], number)

    def cost(chain: Chain) -> int:
        root, *others = *chain.before, *chain.tokens
        return branches.cost(batch.prompts[roots[root]], len(others), len(chain.tokens))

    scored = [(number, path, text) for number, row in enumerate(tree.rows) for path, text in row.scored]
    plan = plan_passes(tree, cost, longest_row(branches.network) - length + 1, aligned)
    plan = [chains for chains in plan if chains[0].level.is_inner]  # the prompts have run
    inner: NextScores = {}
    if plan:
        build = partial(PooledCache, branches.network, states.cache, states.encoded, encoder_mask=states.encoder_mask)
        inner = run_plan(
            branches.network,
            tree,
            plan,
            find_next_ids((path[1:], text[1:]) for _, path, text in scored),
            lambda count: build(length * len(batch.prompts) + count),
            locate,
        )
    firsts = pick(states.logits, [([number], text[:1]) for number, _, text in scored])
    return {
        (number, text): join([first, *(inner[each] for each in zip(path[1:], text[1:], strict=True))])
        for first, (number, path, text) in zip(firsts, scored, strict=True)
    }
