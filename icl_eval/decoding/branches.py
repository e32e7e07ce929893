"""Run continuations after their prompts, in one of two ways that match the two kinds of session (see `sessions`).

TreeBranches    for networks with split attention: a prompt and the tree of its continuations form one row, run in one
                pass, in which a token attends only to the tokens before it in its own continuations

    columns     0 1 2 3 │ 4 5 6      prompts end in the same column; `.` is padding
    row 0       . a b c │ x y .
    row 1       a b c d │ x y z

ForkedBranches  for every other network: prompts of equal length run together, and their key/value cache is copied for
                each continuation; padding follows a continuation, so that no real token attends to it
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from math import ceil
from typing import Protocol, TypeVar

import torch
from transformers import Cache, PreTrainedModel

from icl_eval.decoding.networks import (
    MAX_PREFILL_TOKENS,
    chunks,
    decoder_of,
    encode,
    logits_of_columns,
    new_cache,
    run,
    run_columns,
)
from icl_eval.decoding.sessions import layers_of
from icl_eval.decoding.sharing import Ids
from icl_eval.decoding.split_attention import SlotCache
from icl_eval.decoding.trees import ROOT, Tree, build_tree

_LOGITS_BYTES = 256_000_000
"""Upper bound for the logits of one forward pass, which fill the memory if the vocabulary is large."""
_COPIES_BYTES = 512_000_000
"""Upper bound for the cache copies that the continuations of one forward pass need."""
_PICKED_TOGETHER = 64
"""Columns of logits that are copied at a time; for a long continuation, all would need as much memory again."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class ScoredContinuation:
    """The log-probabilities of one continuation of a prompt."""

    logprobs: tuple[float, ...]
    """The natural logarithm of each token's probability."""
    is_greedy: bool | None
    """Whether every token is the most probable one, so that greedy decoding would generate the continuation; None if a
    server does not say."""

    def __add__(self, other: "ScoredContinuation") -> "ScoredContinuation":
        """Return the continuation that has the tokens of the other one after its own."""
        return ScoredContinuation(self.logprobs + other.logprobs, self.is_greedy and other.is_greedy)


ScoredPrompt = tuple[ScoredContinuation, ...]
"""The scores of a prompt's continuations."""


@dataclass(frozen=True)
class BranchingPrompt:
    """One prompt, without the prefix that it shares with the other rows, and its continuations."""

    number: int
    """Index of the prompt."""
    encoder_ids: Ids
    """Empty for a decoder-only network, and if the rows share the encoder's states."""
    own_ids: Ids
    """Decoder tokens after the prefix; at least one."""
    continuations: tuple[Ids, ...]
    """Token ids of each continuation."""

    @cached_property
    def tree(self) -> Tree:
        """The continuations as a tree, in which shared tokens appear once."""
        return build_tree(self.continuations)


class Branches(Protocol):
    """A way to run continuations after prompts that share a prefix."""

    def batches(self, rows: Sequence[BranchingPrompt]) -> Iterator[list[BranchingPrompt]]:
        """Group rows into batches of one forward pass each; the grouping depends on the rows alone."""

    def run(self, rows: Sequence[BranchingPrompt]) -> list[ScoredPrompt]:
        """Return the log-probabilities of each row's continuations."""


class TreeBranches:
    """Runs continuations as trees that attend to the shared prefix in place."""

    def __init__(self, network: PreTrainedModel, prefix: Cache | None):
        """Start from the complete cache of a prefix, or from None if there is no prefix."""
        self._network = network
        self._prefix = layers_of(prefix)
        self._prefix_length = 0 if prefix is None else prefix.get_seq_length()

    def batches(self, rows: Sequence[BranchingPrompt]) -> Iterator[list[BranchingPrompt]]:
        """Group rows of similar size."""
        per_column = logits_cost(self._network)

        def cost(row: BranchingPrompt) -> int:
            nodes = len(row.tree.ids)
            return max(len(row.own_ids) + nodes, ceil(per_column * (1 + nodes)))

        yield from _cut(sorted(rows, key=lambda row: (-cost(row), row.number)), cost)

    @torch.inference_mode()
    def run(self, rows: Sequence[BranchingPrompt]) -> list[ScoredPrompt]:
        """Return the log-probabilities of each row's continuations."""
        context = max(len(row.own_ids) for row in rows)
        nodes = max(len(row.tree.ids) for row in rows)
        width, device = context + nodes, self._network.device
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        positions = torch.zeros_like(ids)
        seen = torch.eye(width, dtype=torch.bool).repeat(
            len(rows), 1, 1
        )  # padding attends to itself: a softmax over nothing would be NaN
        for number, row in enumerate(rows):
            first, end = context - len(row.own_ids), context + len(row.tree.ids)
            own_end = self._prefix_length + len(row.own_ids)
            ids[number, first:end] = torch.tensor([*row.own_ids, *row.tree.ids])
            depths = [own_end + depth for depth in row.tree.depths]
            positions[number, first:end] = torch.tensor([*range(self._prefix_length, own_end), *depths])
            seen[number, first:context, first:context] = torch.ones(len(row.own_ids), len(row.own_ids)).tril().bool()
            seen[number, context:end, first:context] = True
            seen[number, context:end, context:end] = row.tree.seen()
        cache = self._slots(seen.to(device))
        logits = logits_of_columns(
            self._network,
            1 + nodes,
            input_ids=ids.to(device),
            position_ids=positions.to(device),
            past_key_values=cache,
        )  # [rows, 1 + nodes, vocabulary]
        return [_pick_tree(logits[number], row) for number, row in enumerate(rows)]

    def _slots(self, seen: torch.Tensor) -> SlotCache:
        """Return slots for one pass over all columns, masked by `seen`, [rows, columns, columns]."""
        num_rows, width, _ = seen.shape
        num_layers = self._network.config.get_text_config(decoder=True).num_hidden_layers
        cache = SlotCache(num_rows, width, num_layers, self._prefix)
        slots = cache.slots
        slots.rows, slots.first, slots.begin, slots.end = slice(0, num_rows), 0, 0, width
        mask = torch.zeros(seen.shape, dtype=self._network.dtype, device=seen.device)
        slots.mask = mask.masked_fill_(~seen, float("-inf"))[:, None]  # [rows, 1, columns, columns]
        return cache


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
        self._copying = bytes_per_token * MAX_PREFILL_TOKENS / _COPIES_BYTES

    def batches(self, rows: Sequence[BranchingPrompt]) -> Iterator[list[BranchingPrompt]]:
        """Group rows of equal length."""
        by_length = sorted(rows, key=lambda row: (-len(row.own_ids), -len(row.encoder_ids), row.number))
        for _, same in groupby(by_length, key=lambda row: len(row.own_ids)):
            yield from _cut(list(same), lambda row: self._cost(row, len(row.own_ids), 1))

    @torch.inference_mode()
    def run(self, rows: Sequence[BranchingPrompt]) -> list[ScoredPrompt]:
        """Return the log-probabilities of each row's continuations."""
        memory = self._run_prompts(rows)
        scores: dict[tuple[int, Ids], ScoredContinuation] = {}
        for number, row in enumerate(rows):
            for continuation in row.continuations:
                scores[number, continuation] = _pick(memory.logits[number, None], [0], continuation[:1])
        # Continuations that differ only in their last token share a row.
        ends: defaultdict[tuple[int, Ids], list[Ids]] = defaultdict(list)
        for number, continuation in scores:
            if len(continuation) > 1:
                ends[number, continuation[:-1]].append(continuation)
        lines = sorted(ends, key=lambda line: (-len(line[1]), line))
        for some in _cut(lines, lambda line: self._cost(rows[line[0]], len(line[1]), len(line[1]))):
            for (number, begun), logits in zip(some, self._run_lines(memory, some), strict=True):
                for continuation in ends[number, begun]:
                    scores[number, continuation] += _pick(logits, range(len(begun)), continuation[1:])
        return [
            tuple(scores[number, continuation] for continuation in row.continuations) for number, row in enumerate(rows)
        ]

    def _run_prompts(self, rows: Sequence[BranchingPrompt]) -> "_PromptState":
        if self._prefix is None:
            cache = new_cache(self._network.config)
        else:
            cache = _copy_rows(self._prefix, [0] * len(rows), self._network.device)
        encoded, mask = None, None
        if rows[0].encoder_ids:
            encoded, mask = encode(self._network, [row.encoder_ids for row in rows])
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


def logits_cost(network: PreTrainedModel) -> float:
    """Return the memory cost of one token's logits, in units of tokens that a forward pass runs."""
    size: int = decoder_of(network).get_input_embeddings().num_embeddings
    per_token: int = size * network.dtype.itemsize
    return per_token * MAX_PREFILL_TOKENS / _LOGITS_BYTES


def _cut(items: Sequence[Item], cost: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Cut a sequence into consecutive batches that each fit into a forward pass."""
    for chunk in chunks([cost(item) for item in items]):
        yield list(items[chunk])


def _pick_tree(logits: torch.Tensor, row: BranchingPrompt) -> ScoredPrompt:
    """Return the log-probabilities of a row's continuations, from logits [1 + places, vocabulary], the root first."""
    paths = zip(row.tree.paths, row.continuations, strict=True)
    return tuple(_pick(logits, [place - ROOT for place in path], continuation) for path, continuation in paths)


def _copy_rows(cache: Cache, rows: Sequence[int], device: torch.device) -> Cache:
    copied = copy.deepcopy(cache)
    copied.reorder_cache(torch.tensor(rows, device=device))
    return copied


def _pick(logits: torch.Tensor, columns: Sequence[int], continuation: Ids) -> ScoredContinuation:
    """Score the tokens of a continuation from logits [columns, vocabulary] and the column that predicts each."""
    values: list[float] = []
    is_greedy = True
    for begin in range(0, len(continuation), _PICKED_TOGETHER):
        some = slice(begin, begin + _PICKED_TOGETHER)
        chosen = logits[list(columns[some])]  # [tokens, vocabulary]
        if chosen.dtype != torch.float64:
            chosen = chosen.float()
        ids = torch.tensor(continuation[some], device=logits.device)  # [tokens]
        values += (chosen.gather(1, ids[:, None])[:, 0] - chosen.logsumexp(-1)).tolist()
        is_greedy = is_greedy and bool((chosen.argmax(-1) == ids).all())
    return ScoredContinuation(tuple(values), is_greedy)
