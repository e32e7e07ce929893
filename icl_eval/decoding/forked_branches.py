"""Run continuations after copies of their prompts' key/value caches, for networks that allow nothing better.

Prompts of equal length run together, and padding follows a continuation, so that no real token attends to it.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil
from typing import TypeVar

import torch
from transformers import Cache, PreTrainedModel

from icl_eval.decoding.branches import (
    COPIES_BYTES,
    BranchingPrompt,
    ScoredPrompt,
    logits_cost,
    pick,
)
from icl_eval.decoding.networks import (
    MAX_PREFILL_TOKENS,
    MOST_FED,
    chunks,
    count_padding,
    divide_closely,
    encode,
    new_cache,
    run,
    run_columns,
)
from icl_eval.decoding.trees import count_inner
from icl_eval.prompts.token_ids import Ids

Item = TypeVar("Item")


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
        self._prefix = prefix
        self._encoded = encoded
        self._num_shared = (0 if prefix is None else prefix.get_seq_length()) + (
            0 if encoded is None else encoded.shape[1]
        )
        self._copying = bytes_per_token * MAX_PREFILL_TOKENS / COPIES_BYTES

    def batches(self, rows: Sequence[BranchingPrompt]) -> Iterator[list[BranchingPrompt]]:
        """Group rows of equal length; equal prompts stay together."""
        by_prompt: defaultdict[tuple[Ids, Ids], list[BranchingPrompt]] = defaultdict(list)
        for row in sorted(rows, key=lambda row: row.number):
            by_prompt[row.own_ids, row.encoder_ids].append(row)
        by_length = sorted(by_prompt, key=lambda key: (-len(key[0]), -len(key[1]), by_prompt[key][0].number))
        for _, same in groupby(by_length, key=lambda key: len(key[0])):
            for keys in _cut(list(same), lambda key: self._cost(by_prompt[key][0], len(key[0]), 1)):
                yield [row for key in keys for row in by_prompt[key]]

    def count_prompts(self, batch: Sequence[BranchingPrompt]) -> int:
        """Return the number of the prompts' own tokens in the decoder that a batch runs, without padding."""
        return sum(len(own_ids) for own_ids, _ in {(row.own_ids, row.encoder_ids) for row in batch})

    @torch.inference_mode()
    def run(self, rows: Sequence[BranchingPrompt]) -> list[ScoredPrompt]:
        """Return the log-probabilities of each row's continuations."""
        distinct: dict[tuple[Ids, Ids], int] = {}
        sources = [distinct.setdefault((row.own_ids, row.encoder_ids), len(distinct)) for row in rows]
        prompts = [rows[sources.index(number)] for number in range(len(distinct))]
        asked = list(
            dict.fromkeys(
                (number, text) for number, row in zip(sources, rows, strict=True) for text in row.continuations
            )
        )
        # Continuations that differ only in their last token share a row.
        ends: defaultdict[tuple[int, Ids], list[Ids]] = defaultdict(list)
        for number, text in asked:
            if len(text) > 1:
                ends[number, text[:-1]].append(text)
        lines = sorted(ends, key=lambda line: (-len(line[1]), line))
        spare = _spare(prompts, asked, sum(len(begun) for _, begun in lines))
        memory = self._run_prompts(prompts, spare / 2)
        inputs = [len(row.encoder_ids) for row in prompts]
        spare -= count_padding(inputs, divide_closely(inputs, inputs, spare / 2))
        firsts = pick(memory.logits, [([number], text[:1]) for number, text in asked])
        scores = dict(zip(asked, firsts, strict=True))
        costs = [self._cost(prompts[number], len(begun), len(begun)) for number, begun in lines]
        for chunk in divide_closely([len(begun) for _, begun in lines], costs, spare):
            for line, logits in zip(lines[chunk], self._run_lines(memory, lines[chunk]), strict=True):
                number, begun = line
                rest = pick(logits, [(range(len(begun)), text[1:]) for text in ends[line]])
                for text, scored in zip(ends[line], rest, strict=True):
                    scores[number, text] += scored
        return [
            tuple(scores[number, text] for text in row.continuations) for number, row in zip(sources, rows, strict=True)
        ]

    def _run_prompts(self, rows: Sequence[BranchingPrompt], most_padding: float) -> "_PromptState":
        if self._prefix is None:
            cache = new_cache(self._network.config)
        else:
            cache = _copy_rows(self._prefix, [0] * len(rows), self._network.device)
        encoded, mask = None, None
        if rows[0].encoder_ids:
            encoded, mask = encode(self._network, [row.encoder_ids for row in rows], most_padding)
        elif self._encoded is not None:
            encoded = self._encoded.expand(len(rows), -1, -1)
        logits = run(self._network, [row.own_ids for row in rows], cache, encoded, mask)
        return _PromptState(cache, encoded, mask, logits)

    def _run_lines(self, memory: "_PromptState", lines: Sequence[tuple[int, Ids]]) -> torch.Tensor:
        """Run continuations without their last token and return the logits, [lines, tokens, vocabulary]."""
        sources = [number for number, _ in lines]
        width = max(len(begun) for _, begun in lines)
        padded = [[*begun, *[0] * (width - len(begun))] for _, begun in lines]
        cache = _copy_rows(memory.cache, sources, self._network.device)
        encoded = None if memory.encoded is None else memory.encoded[sources]
        mask = None if memory.encoder_mask is None else memory.encoder_mask[sources]
        return run_columns(self._network, padded, cache, encoded, mask, count=width)

    def _cost(self, row: BranchingPrompt, num_run: int, num_logits: int) -> int:
        num_kept = self._num_shared + len(row.encoder_ids) + len(row.own_ids) + num_run
        return ceil(max(num_run, self._copying * num_kept, logits_cost(self._network) * num_logits))


@dataclass(frozen=True)
class _PromptState:
    """The state of the network after a batch of prompts."""

    cache: Cache
    encoded: torch.Tensor | None
    encoder_mask: torch.Tensor | None
    logits: torch.Tensor  # [rows, vocabulary]


def _spare(prompts: Sequence[BranchingPrompt], asked: Sequence[tuple[int, Ids]], num_run: int) -> float:
    """Return the number of tokens of padding that are allowed in the passes of prompts and their continuations.

    Common beginnings of continuations run for each of them. They leave less room for padding, but half of it at least:
    without any, there would be a pass for nearly every continuation.

    Args:
        prompts: The prompts.
        asked: The number of a prompt with each of its continuations.
        num_run: The number of tokens that the rows of continuations have.
    """
    texts: defaultdict[int, list[Ids]] = defaultdict(list)
    for number, text in asked:
        texts[number].append(text)
    num_prompt = sum(len(row.encoder_ids) + len(row.own_ids) for row in prompts)
    least = num_prompt + sum(map(count_inner, texts.values()))
    return max(MOST_FED * least - num_prompt - num_run, (MOST_FED - 1) / 2 * least)


def _cut(items: Sequence[Item], cost: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Cut a sequence into consecutive batches that each fit into a forward pass."""
    for chunk in chunks([cost(item) for item in items]):
        yield list(items[chunk])


def _copy_rows(cache: Cache, rows: Sequence[int], device: torch.device) -> Cache:
    copied = copy.deepcopy(cache)
    copied.reorder_cache(torch.tensor(rows, device=device))
    return copied
