"""Run continuations after copies of their prompts' key/value caches, for networks that allow nothing better.

Prompts of equal length run together, and padding follows a continuation, so that no real token attends to it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from transformers import Cache, PreTrainedModel

from icl_eval.decoding.branches import BranchingPrompt, ScoredPrompt, pick
from icl_eval.decoding.networks import count_padding, divide_closely, run_columns
from icl_eval.decoding.prompt_states import Batch, PromptRunner, PromptStates, Scored, copy_rows
from icl_eval.prompts.token_ids import Ids


class ForkedBranches:
    """Runs each continuation as a separate row, with its own copy of the prompt's key/value cache."""

    def __init__(
        self, network: PreTrainedModel, prefix: Cache | None, encoded: torch.Tensor | None, bytes_per_token: int
    ):
        """Start from a prefix.

        Args:
            network: Any network.
            prefix: The cache of the shared prefix; None if there is no prefix.
            encoded: The encoder's states, [1, tokens, size], if all rows share them.
            bytes_per_token: Size of one token's keys and values in the cache.
        """
        self._network = network
        self._runner = PromptRunner(network, prefix, encoded, bytes_per_token)

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
        return batch.hand_out(rows, self._run_copies(batch))

    def _run_copies(self, batch: Batch) -> Scored:
        """Run each continuation after a copy of its prompt; those that differ only in their last token share a copy."""
        ends: defaultdict[tuple[int, Ids], list[Ids]] = defaultdict(list)
        for number, text in batch.asked:
            if len(text) > 1:
                ends[number, text[:-1]].append(text)
        lines = sorted(ends, key=lambda line: (-len(line[1]), line))
        spare = batch.count_spare(sum(len(begun) for _, begun in lines))
        states = self._runner.run(batch.prompts, spare / 2)
        inputs = [len(row.encoder_ids) for row in batch.prompts]
        spare -= count_padding(inputs, divide_closely(inputs, inputs, spare / 2))
        firsts = pick(states.logits, [([number], text[:1]) for number, text in batch.asked])
        scores = dict(zip(batch.asked, firsts, strict=True))
        costs = [self._runner.cost(batch.prompts[number], len(begun), len(begun)) for number, begun in lines]
        for chunk in divide_closely([len(begun) for _, begun in lines], costs, spare):
            for line, logits in zip(lines[chunk], self._run_lines(states, lines[chunk]), strict=True):
                number, begun = line
                rest = pick(logits, [(range(len(begun)), text[1:]) for text in ends[line]])
                for text, scored in zip(ends[line], rest, strict=True):
                    scores[number, text] += scored
        return scores

    def _run_lines(self, states: PromptStates, lines: Sequence[tuple[int, Ids]]) -> torch.Tensor:
        """Run continuations without their last token and return the logits, [lines, tokens, vocabulary]."""
        sources = [number for number, _ in lines]
        width = max(len(begun) for _, begun in lines)
        padded = [[*begun, *[0] * (width - len(begun))] for _, begun in lines]
        cache = copy_rows(states.cache, sources, self._network.device)
        encoded = None if states.encoded is None else states.encoded[sources]
        mask = None if states.encoder_mask is None else states.encoder_mask[sources]
        return run_columns(self._network, padded, cache, encoded, mask, count=width)
