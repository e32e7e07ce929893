"""Run continuations of prompts that have different inputs of an encoder, each as a tree after its prompt.

Only these inputs keep the prompts from being one tree. So a prompt runs in a row of its own, and is a token of a tree
that all continuations form: their chains share passes, in rows that come after any prompt (see `pooled_passes`).
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from transformers import PreTrainedModel

from icl_eval.decoding.branches import BranchingPrompt, ScoredPrompt, pick
from icl_eval.decoding.chains import Chain, plan_passes
from icl_eval.decoding.pooled_caches import PooledCache
from icl_eval.decoding.pooled_passes import Place, Scores, count_asked, join_tokens, longest_row, run_plan
from icl_eval.decoding.prompt_states import Batch, PromptRunner, Scored
from icl_eval.decoding.trees import build_tree
from icl_eval.prompts.token_ids import Ids


class EncodedBranches:
    """Runs the continuations of each prompt as a tree after it."""

    def __init__(self, network: PreTrainedModel, bytes_per_token: int, aligned: bool):
        """Start without a prefix, since prompts with different inputs of an encoder have none.

        Args:
            network: An encoder-decoder network whose decoder's rows can be padded, and keep all tokens.
            bytes_per_token: Size of one token's keys and values in the cache.
            aligned: Whether the rows of a pass must come after equally many tokens.
        """
        self._network = network
        self._aligned = aligned
        self._runner = PromptRunner(network, None, None, bytes_per_token)

    def batches(self, rows: Sequence[BranchingPrompt]) -> Iterator[list[BranchingPrompt]]:
        """Group rows of equal length; equal prompts stay together."""
        return self._runner.batches(rows)

    def count_prompts(self, batch: Sequence[BranchingPrompt]) -> int:
        """Return the number of the prompts' own tokens in the decoder that a batch runs, without padding."""
        return self._runner.count_prompts(batch)

    @torch.inference_mode()
    def run(self, rows: Sequence[BranchingPrompt]) -> list[ScoredPrompt]:
        """Return the log-probabilities of each row's continuations."""
        batch = Batch.of(rows)
        return batch.hand_out(rows, self._run_trees(batch))

    def _run_trees(self, batch: Batch) -> Scored:
        """Run all continuations in one tree, in which a prompt is a token."""
        texts: list[list[Ids]] = [[] for _ in batch.prompts]
        for number, text in batch.asked:
            texts[number].append(text)
        tree = build_tree([((number,), each) for number, each in enumerate(texts)])
        states = self._runner.run(batch.prompts, batch.count_spare(len(tree.ids) - len(batch.prompts)) / 2)
        roots = {row.context[0]: number for number, row in enumerate(tree.rows)}
        length = states.cache.get_seq_length()

        def locate(chain: Chain) -> Place:
            number = roots[chain.before[0]]
            return Place(np.arange(number * length, (number + 1) * length), chain.before[1:], number)

        def cost(chain: Chain) -> int:
            root, *others = *chain.before, *chain.tokens
            return self._runner.cost(batch.prompts[roots[root]], len(others), len(chain.tokens))

        placed = [
            (number, path, text)
            for number, (row, each) in enumerate(zip(tree.rows, texts, strict=True))
            for path, text in zip(row.paths, each, strict=True)
        ]
        plan = plan_passes(tree, cost, longest_row(self._network) - length + 1, self._aligned)
        plan = [chains for chains in plan if chains[0].level[0]]  # the prompts have run
        inner: Scores = {}
        if plan:
            build = partial(PooledCache, self._network, states.cache, states.encoded, encoder_mask=states.encoder_mask)
            inner = run_plan(
                tree,
                plan,
                count_asked((path[1:], text[1:]) for _, path, text in placed),
                lambda count: build(length * len(batch.prompts) + count),
                locate,
                self._network,
            )
        firsts = pick(states.logits, [([number], text[:1]) for number, _, text in placed])
        return {
            (number, text): join_tokens([first, *(inner[each] for each in zip(path[1:], text[1:], strict=True))])
            for first, (number, path, text) in zip(firsts, placed, strict=True)
        }
