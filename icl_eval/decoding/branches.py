"""Run continuations after their prompts, in one of three ways.

TreeBranches    for networks with split attention: prompts and their continuations form one tree (see `trees`), run in
                one pass without padding, in which a token attends only to the tokens before it in its own row

PooledBranches  for other decoders whose rows may be padded: a tree, too, but in rows (see `pooled_branches`)

ForkedBranches  for every other network: prompts of equal length run together, and their key/value cache is copied for
                each continuation; padding follows a continuation, so that no real token attends to it
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from math import ceil
from typing import Protocol, TypeVar

import torch
from transformers import Cache, PreTrainedModel

from icl_eval.decoding.networks import (
    MAX_PREFILL_TOKENS,
    MOST_FED,
    chunks,
    count_padding,
    decoder_of,
    divide_closely,
    encode,
    logits_at,
    most_prefill_tokens,
    new_cache,
    run,
    run_columns,
)
from icl_eval.decoding.sessions import layers_of
from icl_eval.decoding.sharing import common_length
from icl_eval.decoding.split_caches import PackedCache, PackedRows, Packing, PassMask
from icl_eval.decoding.trees import Tree, TreeRow, build_tree, count_inner
from icl_eval.prompts.token_ids import Ids

_LOGITS_BYTES = 256_000_000
"""Upper bound for the logits of one forward pass, which fill the memory if the vocabulary is large."""
COPIES_BYTES = 512_000_000
"""Upper bound for the cache copies that the continuations of one forward pass need."""
_MOST_PADDING = 2
"""How many times as much as needed attention may compute, so that rows of different sizes form fewer parts."""
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
    def num_inner(self) -> int:
        """The number of tokens that the continuations run, which are all but their last ones."""
        return count_inner(self.continuations)


class Branches(Protocol):
    """A way to run continuations after prompts that share a prefix."""

    def batches(self, rows: Sequence[BranchingPrompt]) -> Iterator[list[BranchingPrompt]]:
        """Group rows into batches of one forward pass each; the grouping depends on the rows alone."""

    def run(self, rows: Sequence[BranchingPrompt]) -> list[ScoredPrompt]:
        """Return the log-probabilities of each row's continuations."""


class TreeBranches:
    """Runs prompts and their continuations as a tree that attends to the shared prefix in place."""

    def __init__(self, network: PreTrainedModel, prefix: Cache | None):
        """Start from the complete cache of a prefix, or from None if there is no prefix."""
        self._network = network
        self._prefix = layers_of(network, prefix)
        self._prefix_length = 0 if prefix is None else prefix.get_seq_length()

    def batches(self, rows: Sequence[BranchingPrompt]) -> Iterator[list[BranchingPrompt]]:
        """Group rows that begin alike, so that few tokens are run in two passes.

        A pass has at most `most_prefill_tokens`, and as many more as its last row shares with the one before it:
        another pass would run those again.
        """
        most, per_column = most_prefill_tokens(self._network.device), logits_cost(self._network)
        batch: list[BranchingPrompt] = []
        num_tokens = num_logits = 0
        for row in sorted(rows, key=lambda row: (row.own_ids, row.number)):
            shared = common_length(batch[-1].own_ids, row.own_ids) if batch else 0
            num_tokens += len(row.own_ids) - shared + row.num_inner
            num_logits += 1 + row.num_inner
            if batch and (num_tokens > most + shared or per_column * num_logits > MAX_PREFILL_TOKENS):
                yield batch
                batch = []
                num_tokens, num_logits = len(row.own_ids) + row.num_inner, 1 + row.num_inner
            batch.append(row)
        if batch:
            yield batch

    @torch.inference_mode()
    def run(self, rows: Sequence[BranchingPrompt]) -> list[ScoredPrompt]:
        """Return the log-probabilities of each row's continuations."""
        tree = build_tree([(row.own_ids, row.continuations) for row in rows])
        packing = pack(tree, self._network.dtype, self._network.device)
        used = sorted({token for row in tree.rows for path in row.paths for token in path})
        logits = logits_at(
            self._network,
            used,
            input_ids=torch.tensor([tree.ids], device=self._network.device),
            position_ids=torch.tensor([tree.depths], device=self._network.device) + self._prefix_length,
            past_key_values=PackedCache(packing, self._prefix),
        )  # [1, used tokens, vocabulary]
        places = {token: place for place, token in enumerate(used)}
        picks = [
            ([places[token] for token in path], continuation)
            for row, placed in zip(rows, tree.rows, strict=True)
            for path, continuation in zip(placed.paths, row.continuations, strict=True)
        ]
        scores = iter(pick(logits[0], picks))
        return [tuple(islice(scores, len(row.continuations))) for row in rows]


def pack(tree: Tree, dtype: torch.dtype, device: torch.device) -> Packing:
    """Return how attention finds the rows of a tree.

    Args:
        tree: The tree, whose tokens run in its order.
        dtype: The network's dtype, for masks.
        device: The device of the packing.
    """
    parts, places, before = [], torch.empty(len(tree.ids), dtype=torch.long), 0
    for rows in _similar([row for row in tree.rows if row.begin < row.end]):
        num_queries = max(row.end - row.begin for row in rows)
        num_keys = max(len(row.keys) for row in rows)
        queries = torch.zeros(len(rows), num_queries, dtype=torch.long)
        keys = torch.zeros(len(rows), num_keys, dtype=torch.long)
        seen = torch.zeros(len(rows), num_queries, num_keys, dtype=torch.bool)
        for number, row in enumerate(rows):
            new = row.end - row.begin
            queries[number, :new] = torch.arange(row.begin, row.end)
            keys[number, : len(row.keys)] = torch.tensor(row.keys)
            seen[number, :new, : len(row.keys)] = torch.from_numpy(tree.seen(row))
            seen[number, new:] = True  # a softmax over nothing would be NaN
            places[row.begin : row.end] = torch.arange(new) + before + number * num_queries
        before += len(rows) * num_queries
        parts.append(PackedRows(queries, keys, PassMask(seen, dtype)))
    return Packing(tuple(parts), places, max(len(row.keys) for row in tree.rows)).to(device)


def _similar(rows: Sequence[TreeRow]) -> Iterator[list[TreeRow]]:
    """Group rows of similar size, so that at least half of what attention computes for a group is needed."""
    group: list[TreeRow] = []
    needed = 0
    for row in sorted(rows, key=lambda row: (row.begin - row.end, -len(row.keys))):
        num_queries = group[0].end - group[0].begin if group else 0
        num_keys = max(len(each.keys) for each in (*group, row))
        needed += (row.end - row.begin) * len(row.keys)
        if group and (len(group) + 1) * num_queries * num_keys > _MOST_PADDING * needed:
            yield group
            group, needed = [], (row.end - row.begin) * len(row.keys)
        group.append(row)
    if group:
        yield group


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


def logits_cost(network: PreTrainedModel) -> float:
    """Return the memory cost of one token's logits, in units of tokens that a forward pass runs."""
    size: int = decoder_of(network).get_input_embeddings().num_embeddings
    per_token: int = size * network.dtype.itemsize
    return per_token * MAX_PREFILL_TOKENS / _LOGITS_BYTES


def _cut(items: Sequence[Item], cost: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Cut a sequence into consecutive batches that each fit into a forward pass."""
    for chunk in chunks([cost(item) for item in items]):
        yield list(items[chunk])


def _copy_rows(cache: Cache, rows: Sequence[int], device: torch.device) -> Cache:
    copied = copy.deepcopy(cache)
    copied.reorder_cache(torch.tensor(rows, device=device))
    return copied


def pick(logits: torch.Tensor, picks: Sequence[tuple[Sequence[int], Ids]]) -> list[ScoredContinuation]:
    """Score continuations from logits [columns, vocabulary], each with the columns that predict its tokens."""
    log_denominators, best = [], []
    for some in torch.split(logits, _PICKED_TOGETHER):
        wide = some if some.dtype == torch.float64 else some.float()
        log_denominators.append(wide.logsumexp(-1))
        best.append(wide.argmax(-1))
    columns = torch.tensor([column for places, _ in picks for column in places], device=logits.device)
    ids = torch.tensor([token_id for _, text in picks for token_id in text], device=logits.device)
    chosen = logits[columns, ids].to(log_denominators[0].dtype)
    values = iter((chosen - torch.cat(log_denominators)[columns]).tolist())
    greedy = iter((torch.cat(best)[columns] == ids).tolist())
    return [
        ScoredContinuation(tuple(islice(values, len(text))), all(list(islice(greedy, len(text))))) for _, text in picks
    ]
