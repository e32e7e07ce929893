"""Run continuations after copies of their prompts' key/value caches, for networks that allow nothing better.

Prompts of equal length run together, and padding follows a continuation, so that no real token attends to it. Where
only inputs of an encoder keep prompts from being one tree, the continuations of each form one (see `pooled_passes`).
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from math import ceil
from typing import TypeVar

import numpy as np
import torch
from transformers import Cache, PreTrainedModel

from icl_eval.decoding.branches import (
    COPIES_BYTES,
    BranchingPrompt,
    ScoredContinuation,
    ScoredPrompt,
    logits_cost,
    pick,
)
from icl_eval.decoding.chains import Chain, plan_passes
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
from icl_eval.decoding.pooled_caches import PooledCache
from icl_eval.decoding.pooled_passes import Place, Scores, count_asked, join_tokens, longest_row, run_plan
from icl_eval.decoding.prefixes import longest_whole
from icl_eval.decoding.trees import build_tree, count_inner
from icl_eval.prompts.token_ids import Ids

Item = TypeVar("Item")


class ForkedBranches:
    """Runs each continuation as a separate row, with its own copy of the prompt's key/value cache."""

    def __init__(
        self,
        network: PreTrainedModel,
        prefix: Cache | None,
        encoded: torch.Tensor | None,
        bytes_per_token: int,
        pads: bool,
        aligned: bool,
    ):
        """Start from a prefix.

        Args:
            network: Any network.
            prefix: The cache of the shared prefix; None if there is no prefix.
            encoded: The encoder's states, [1, tokens, size], if all rows share them.
            bytes_per_token: Size of one token's keys and values in the cache.
            pads: Whether the network is an encoder-decoder whose prompts share nothing, and its decoder's rows can be
                padded, so that continuations run as trees.
            aligned: Whether the padded rows of a pass must come after equally many tokens.
        """
        self._pads = pads
        self._aligned = aligned
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
        scores = (self._run_trees if self._keeps_whole(prompts) else self._run_copies)(prompts, asked)
        return [
            tuple(scores[number, text] for text in row.continuations) for number, row in zip(sources, rows, strict=True)
        ]

    def _keeps_whole(self, prompts: Sequence[BranchingPrompt]) -> bool:
        """Return whether padded rows can come after a prompt's tokens in the decoder, none of which a window cuts."""
        limit = longest_whole(new_cache(self._network.config).self_attention_cache) if self._pads else 0
        return limit is None or len(prompts[0].own_ids) <= limit

    def _run_copies(self, prompts: Sequence[BranchingPrompt], asked: Sequence[tuple[int, Ids]]) -> "_Scored":
        """Run each continuation after a copy of its prompt; those that differ only in their last token share a copy."""
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
        return scores

    def _run_trees(self, prompts: Sequence[BranchingPrompt], asked: Sequence[tuple[int, Ids]]) -> "_Scored":
        """Run the continuations of each prompt as a tree after it, all in one tree in which a prompt is a token."""
        texts: list[list[Ids]] = [[] for _ in prompts]
        for number, text in asked:
            texts[number].append(text)
        tree = build_tree([((number,), each) for number, each in enumerate(texts)])
        memory = self._run_prompts(prompts, _spare(prompts, asked, len(tree.ids) - len(prompts)) / 2)
        roots = {row.context[0]: number for number, row in enumerate(tree.rows)}
        length = memory.cache.get_seq_length()

        def locate(chain: Chain) -> Place:
            number = roots[chain.before[0]]
            return Place(np.arange(number * length, (number + 1) * length), chain.before[1:], number)

        def cost(chain: Chain) -> int:
            root, *others = *chain.before, *chain.tokens
            return self._cost(prompts[roots[root]], len(others), len(chain.tokens))

        placed = [
            (number, path, text)
            for number, (row, each) in enumerate(zip(tree.rows, texts, strict=True))
            for path, text in zip(row.paths, each, strict=True)
        ]
        plan = plan_passes(tree, cost, longest_row(self._network) - length + 1, self._aligned)
        plan = [chains for chains in plan if chains[0].level[0]]  # the prompts have run
        inner: Scores = {}
        if plan:
            build = partial(PooledCache, self._network, memory.cache, memory.encoded, encoder_mask=memory.encoder_mask)
            inner = run_plan(
                tree,
                plan,
                count_asked((path[1:], text[1:]) for _, path, text in placed),
                lambda count: build(length * len(prompts) + count),
                locate,
                self._network,
            )
        firsts = pick(memory.logits, [([number], text[:1]) for number, _, text in placed])
        return {
            (number, text): join_tokens([first, *(inner[each] for each in zip(path[1:], text[1:], strict=True))])
            for first, (number, path, text) in zip(firsts, placed, strict=True)
        }

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


_Scored = dict[tuple[int, Ids], ScoredContinuation]
"""The scores of continuations, by the number of a prompt and the continuation."""


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
