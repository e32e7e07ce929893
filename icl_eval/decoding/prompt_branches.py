"""Run prompts of equal length, each in a row of its own, and then their continuations in one of two ways.

prompt_trees   as trees, after prompts with different inputs of an encoder
prompt_copies  after copies of the prompts' caches, for networks that allow nothing better
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Self

import torch
from transformers import Cache, PreTrainedModel

from icl_eval.decoding.branches import BranchingPrompt, ScoredContinuation, ScoredPrompt, row_cost
from icl_eval.decoding.networks import MOST_FED, chunks, encode, new_cache, run
from icl_eval.decoding.opening import Beginning
from icl_eval.decoding.trees import count_inner
from icl_eval.prompts.token_ids import Ids

Scores = dict[tuple[int, Ids], ScoredContinuation]
"""The scores of continuations, by the number of a prompt and the continuation."""


@dataclass(frozen=True)
class PromptStates:
    """The state of the network after some prompts."""

    cache: Cache
    encoded: torch.Tensor | None
    encoder_mask: torch.Tensor | None
    logits: torch.Tensor
    """The logits after each prompt, [prompts, vocabulary]."""


@dataclass(frozen=True)
class Batch:
    """The distinct prompts of some rows, and all continuations of each."""

    prompts: list[BranchingPrompt]
    texts: list[list[Ids]]
    """The continuations of each prompt, without repetitions."""
    sources: list[int]
    """The number of each row's prompt."""

    @classmethod
    def of(cls, rows: Sequence[BranchingPrompt]) -> Self:
        """Return the batch of some rows; those with equal prompts become one."""
        distinct: dict[tuple[Ids, Ids], int] = {}
        sources = [distinct.setdefault((row.own_ids, row.encoder_ids), len(distinct)) for row in rows]
        prompts = [rows[sources.index(number)] for number in range(len(distinct))]
        texts: list[dict[Ids, None]] = [{} for _ in prompts]
        for number, row in zip(sources, rows, strict=True):
            texts[number].update(dict.fromkeys(row.continuations))
        return cls(prompts, list(map(list, texts)), sources)

    def hand_out(self, rows: Sequence[BranchingPrompt], scores: Scores) -> list[ScoredPrompt]:
        """Return the scores of each row's continuations."""
        placed = zip(self.sources, rows, strict=True)
        return [tuple(scores[number, text] for text in row.continuations) for number, row in placed]

    def count_spare(self, num_run: int) -> float:
        """Return the number of tokens of padding that are allowed in the passes of prompts and their continuations.

        Common beginnings of continuations that run for each of them leave less room for padding, but half of it at
        least: without any, there would be a pass for nearly every continuation.

        Args:
            num_run: The number of tokens that the rows of continuations have.
        """
        num_prompt = sum(len(row.encoder_ids) + len(row.own_ids) for row in self.prompts)
        least = num_prompt + sum(map(count_inner, self.texts))
        return max(MOST_FED * least - num_prompt - num_run, (MOST_FED - 1) / 2 * least)


class PromptBranches:
    """Runs prompts of equal length, each in a row with a cache of its own, and then their continuations."""

    def __init__(
        self,
        network: PreTrainedModel,
        beginning: Beginning,
        bytes_per_token: int,
        run_continuations: "RunContinuations",
    ):
        """Start from what all rows begin with.

        Args:
            network: Any network.
            beginning: What all rows begin with.
            bytes_per_token: Size of one token's keys and values in the cache.
            run_continuations: Runs the prompts of a batch and their continuations.
        """
        self.network = network
        self._run_continuations = run_continuations
        self._beginning = beginning
        self._bytes_per_token = bytes_per_token

    def batches(self, rows: Sequence[BranchingPrompt]) -> Iterator[list[BranchingPrompt]]:
        """Group rows of equal length; equal prompts stay together."""
        by_prompt: defaultdict[tuple[Ids, Ids], list[BranchingPrompt]] = defaultdict(list)
        for row in sorted(rows, key=lambda row: row.number):
            by_prompt[row.own_ids, row.encoder_ids].append(row)
        by_length = sorted(by_prompt, key=lambda key: (-len(key[0]), -len(key[1]), by_prompt[key][0].number))
        for _, same in groupby(by_length, key=lambda key: len(key[0])):
            prompts = [by_prompt[key] for key in same]
            for chunk in chunks([self.cost(rows[0], len(rows[0].own_ids), 1) for rows in prompts]):
                yield [row for rows in prompts[chunk] for row in rows]

    def count_prompts(self, batch: Sequence[BranchingPrompt]) -> int:
        """Return the number of the prompts' own tokens in the decoder that a batch runs, without padding."""
        return sum(len(own_ids) for own_ids, _ in {(row.own_ids, row.encoder_ids) for row in batch})

    @torch.inference_mode()
    def run(self, rows: Sequence[BranchingPrompt]) -> list[ScoredPrompt]:
        """Return the log-probabilities of each row's continuations."""
        batch = Batch.of(rows)
        return batch.hand_out(rows, self._run_continuations(self, batch))

    def run_prompts(self, prompts: Sequence[BranchingPrompt], most_padding: float) -> PromptStates:
        """Run prompts, with a limited number of tokens of padding in the encoder."""
        if self._beginning.prefix is None:
            cache = new_cache(self.network.config)
        else:
            cache = copy_rows(self._beginning.prefix, [0] * len(prompts), self.network.device)
        encoded, mask = None, None
        if prompts[0].encoder_ids:
            encoded, mask = encode(self.network, [row.encoder_ids for row in prompts], most_padding)
        elif self._beginning.encoded is not None:
            encoded = self._beginning.encoded.expand(len(prompts), -1, -1)
        logits = run(self.network, [row.own_ids for row in prompts], cache, encoded, mask)
        return PromptStates(cache, encoded, mask, logits)

    def cost(self, prompt: BranchingPrompt, num_run: int, num_logits: int) -> int:
        """Return what a row after a prompt needs of the room in a pass; see `divide`."""
        num_copied = self._beginning.num_tokens + len(prompt.encoder_ids) + len(prompt.own_ids) + num_run
        return row_cost(self.network, num_run, num_logits, num_copied, self._bytes_per_token)


RunContinuations = Callable[[PromptBranches, Batch], Scores]
"""Runs the prompts of a batch and their continuations, and returns the scores. It runs the prompts itself: how much
padding these may have follows from what it runs after them."""


def copy_rows(cache: Cache, rows: Sequence[int], device: torch.device) -> Cache:
    """Return a copy of some rows of a cache, some of them several times."""
    copied = copy.deepcopy(cache)
    copied.reorder_cache(torch.tensor(rows, device=device))
    return copied
