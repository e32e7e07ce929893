"""Compute the log-probability of every token of a prompt's continuations.

What prompts share (their demonstrations, a passage, an encoder's input) runs once for all of them, a prompt runs once
for all its continuations, and the last token of a continuation never runs; `branches` names the ways to run the
continuations. `python -m benchmarks tokens` compares how many tokens a network is fed with the least possible.

Results do not depend on what else is in the batch, up to rounding. They are equal to the last bit for the same prompts
with the same batch size: a batch runs whole even if only some of its rows are wanted, and nothing is reused from
earlier runs.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from transformers import Cache, DynamicCache

from icl_eval.decoding.branches import Branches, BranchingPrompt, ScoredPrompt
from icl_eval.decoding.capabilities import check_history
from icl_eval.decoding.memory import require_room
from icl_eval.decoding.networks import MOST_FED, PASS_TOKENS, encode, not_finite_error
from icl_eval.decoding.opening import extend
from icl_eval.decoding.pooled_branches import PooledBranches
from icl_eval.decoding.prefixes import Key, PrefixStack
from icl_eval.decoding.preparing import PreparedModel, prepare
from icl_eval.decoding.prompt_branches import PromptBranches
from icl_eval.decoding.prompt_copies import run_copies
from icl_eval.decoding.prompt_trees import run_trees
from icl_eval.decoding.rules import forced_ids, start_ids
from icl_eval.decoding.sharing import (
    MIN_PREFIX,
    MIN_SAVING,
    PromptGroup,
    count_distinct,
    plan_groups,
    plan_pieces,
)
from icl_eval.decoding.tree_branches import TreeBranches
from icl_eval.errors import IclEvalError
from icl_eval.models.loading import LanguageModel
from icl_eval.models.memory import is_out_of_memory
from icl_eval.prompts.building import EncodedPrompt, Prompt
from icl_eval.prompts.token_ids import Ids, TokenIds
from icl_eval.prompts.tokenization import Continuations

Result = TypeVar("Result")

_MIN_SAVINGS = {TreeBranches: (MIN_SAVING, 256, 64), PooledBranches: (256,), PromptBranches: (256, 64, MIN_PREFIX)}
"""`sharing.MIN_SAVING` for each way to run continuations, the first one to try first. A split costs a pass or two:
there are no further steps that its parts would share. A tree shares more than its prefix, but only within a pass."""
_MOST_REPEATED = {TreeBranches: MOST_FED - 1, PromptBranches: 0.01}
"""The share of their tokens that prompts may run twice, if there is a way to it; copied prompts have padding, too."""


@dataclass(frozen=True)
class _Part:
    """Prompts that run together."""

    encoder_ids: Ids
    """The encoder's input, if all of them have the same."""
    prefix_ids: Ids
    """The decoder's tokens that all of them begin with, including the start token; empty if not worth a pass."""
    rows: tuple[BranchingPrompt, ...]

    def order(self) -> tuple[Ids, Ids]:
        """Return the key of an order in which prefixes that begin alike are neighbours."""
        return self.encoder_ids, self.prefix_ids


class LikelihoodScorer:
    """Computes log-probabilities from a model's logits, without the rules of its generation config."""

    def __init__(
        self,
        model: LanguageModel,
        batch_size: int | None = None,
        settings: Mapping[str, Any] = MappingProxyType({}),
    ):
        """Prepare to score.

        Args:
            model: The model to score with.
            batch_size: The maximum number of different prompts in a batch; None for as many as suit one forward pass.
            settings: Options of `generate` that override the model's generation config.
        """
        self._model = model
        self._batch_size = batch_size
        self._start_ids = start_ids(model)
        self._forced_ids = forced_ids(model, settings)

    def score(
        self, asked: Sequence[Continuations], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, ScoredPrompt]]:
        """Yield the index of each prompt with the log-probabilities of its continuations.

        If the decoder's prompt is only its start token, the continuations are scored after the token that the
        generation config or the settings force there (BART's first token, M2M-100's language), as in generation.
        Between two yields, the network is in its original state; changes that the caller makes to it apply from the
        next call on.

        Args:
            asked: Prompts, each with continuations of at least one token.
            wanted: Indices of the prompts to score; None for all.

        Raises:
            ConfigError: If the network's logits with a key/value cache differ from those without, or its cache cannot
                hold a prompt with its longest continuation.
            IclEvalError: If there is not enough memory for a single prompt, or logits are not finite.
        """
        prepared = prepare(self._model)
        for each in asked:
            longest = max(map(len, each.texts), default=0)
            check_history(self._model, prepared.capabilities, self._history(each.context.decoder_ids), longest)
        longest = max((each.context.num_tokens for each in asked), default=0)
        require_room(self._model.network, longest, prepared.prefixes.num_bytes)
        needed = set(range(len(asked)) if wanted is None else wanted)
        contexts = [
            EncodedPrompt(Prompt(str(number), None, None), each.context.encoder, each.context.decoder)
            for number, each in enumerate(asked)
        ]
        equal = _find_equal(contexts)
        contexts = [contexts[number] for number in equal]
        parts, pieces = self._plan(prepared, contexts, asked, equal)
        prefixes = PrefixStack()
        encoder_ids: Ids = ()
        encoded = None
        for part, pauses in zip(parts, pieces, strict=True):
            if needed.isdisjoint(row.number for row in part.rows):
                continue
            with prepared.accelerated():
                if part.encoder_ids != encoder_ids:
                    encoded = self._with_room(prepared, partial(self._encode, part.encoder_ids))
                    encoder_ids = part.encoder_ids
                prefix = self._with_room(prepared, partial(self._compute, prefixes, part, pauses, encoded))
            branches = self._branch(prepared, part, prefix, encoded)
            for number, scores in self._score_part(prepared, part, branches, needed):
                self._check(asked[number], scores)
                yield number, scores

    def _plan(
        self,
        prepared: PreparedModel,
        contexts: Sequence[EncodedPrompt],
        asked: Sequence[Continuations],
        equal: Mapping[int, Sequence[int]],
    ) -> tuple[list["_Part"], list[tuple[int, ...]]]:
        """Return parts of prompts that share much, sorted, and where the computation of their prefixes pauses.

        Of the plans that run few tokens twice, the one with the fewest parts; if there is none, the one that costs the
        least.
        """
        plans: list[tuple[float, list[_Part], list[tuple[int, ...]]]] = []
        num_encoder = sum(map(len, {each.encoder for each in contexts}))
        least = count_distinct(contexts)
        can = prepared.capabilities
        kind = TreeBranches if can.split else PooledBranches if can.pools_aligned else PromptBranches
        savings = _MIN_SAVINGS[kind]
        for saving in savings:
            groups = plan_groups(contexts, saving)
            parts = sorted((self._place(group, asked, equal) for group in groups), key=_Part.order)
            pieces = plan_pieces([part.prefix_ids for part in parts])
            if len(savings) == 1:
                return parts, pieces
            num_run, num_passes = self._count(prepared, parts, pieces)
            plans.append((num_run + PASS_TOKENS * num_passes, parts, pieces))
            if num_run + num_encoder <= (1 + _MOST_REPEATED[kind]) * least:
                return parts, pieces
        _, parts, pieces = min(plans, key=itemgetter(0))
        return parts, pieces

    def _count(
        self, prepared: PreparedModel, parts: Sequence["_Part"], pieces: Sequence[Sequence[int]]
    ) -> tuple[int, int]:
        """Return the number of tokens of prompts that the decoder runs in a plan, and in how many passes."""
        sizes: list[int] = []  # of the passes

        def note(_start: Cache | None, ids: Ids) -> Cache:
            sizes.append(len(ids))
            return DynamicCache()

        prefixes = PrefixStack()
        for part, pauses in zip(parts, pieces, strict=True):
            if part.prefix_ids:
                prefixes.get(Key(part.encoder_ids, part.prefix_ids), pauses, note)
            branches = self._branch(prepared, part, None, None)
            sizes.extend(map(branches.count_prompts, branches.batches(part.rows)))
        return sum(sizes), len(sizes)

    def _place(self, group: PromptGroup, asked: Sequence[Continuations], equal: Mapping[int, Sequence[int]]) -> "_Part":
        """Return what a group's prompts share, and the rows that come after it, with the equals of each prompt."""
        histories = [self._history(prompt.decoder_ids) for prompt in group.prompts]
        encoder_ids = group.prompts[0].encoder_ids if group.shares_encoder else ()
        prefix_ids = histories[0][: len(self._start_ids) + len(group.prefix)]
        if not (group.prefix or encoder_ids) or any(len(history) <= len(prefix_ids) for history in histories):
            prefix_ids = ()
        rows = [
            BranchingPrompt(
                number,
                () if encoder_ids else prompt.encoder_ids,
                history[len(prefix_ids) :],
                asked[number].texts,
            )
            for prompt, history in zip(group.prompts, histories, strict=True)
            for number in equal[int(prompt.prompt.example_id)]
        ]
        return _Part(encoder_ids, prefix_ids, tuple(rows))

    def _with_room(self, prepared: PreparedModel, compute: Callable[[], Result]) -> Result:
        """Compute something; if memory runs out, again without the prefixes that are kept of earlier calls."""
        try:
            return compute()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        if not prepared.prefixes.drop_others(None):
            raise IclEvalError(f"not enough memory for one prompt on {self._model.device}")
        return self._with_room(prepared, compute)

    def _encode(self, encoder_ids: Ids) -> torch.Tensor | None:
        return encode(self._model.network, [encoder_ids])[0] if encoder_ids else None

    def _compute(
        self, prefixes: PrefixStack, part: "_Part", pieces: Sequence[int], encoded: torch.Tensor | None
    ) -> Cache | None:
        if not part.prefix_ids:
            return None
        key = Key(part.encoder_ids, part.prefix_ids)
        return prefixes.get(key, pieces, lambda start, ids: extend(self._model.network, start, ids, encoded))

    def _branch(
        self, prepared: PreparedModel, part: "_Part", prefix: Cache | None, encoded: torch.Tensor | None
    ) -> Branches:
        longest_own = max(len(row.own_ids) + row.num_inner for row in part.rows)
        if prepared.capabilities.splits(len(part.prefix_ids) + longest_own):
            return TreeBranches(self._model.network, prefix)
        bytes_per_token = prepared.capabilities.bytes_per_token
        aligned = not prepared.capabilities.pools
        if prepared.can_pool(prefix, aligned):
            return PooledBranches(self._model.network, prefix, encoded, bytes_per_token, aligned)
        if encoded is None and prepared.can_pool_apart(max(len(row.own_ids) for row in part.rows)):
            run_continuations = partial(run_trees, aligned=aligned)
            return PromptBranches(self._model.network, None, None, bytes_per_token, run_continuations)
        return PromptBranches(self._model.network, prefix, encoded, bytes_per_token, run_copies)

    def _score_part(
        self, prepared: PreparedModel, part: "_Part", branches: Branches, needed: Collection[int]
    ) -> Iterator[tuple[int, ScoredPrompt]]:
        for together in branches.batches(part.rows):
            prompts = [list(rows) for _, rows in groupby(together, key=lambda row: (row.encoder_ids, row.own_ids))]
            size = self._batch_size or len(prompts)
            for begin in range(0, len(prompts), size):
                batch = [row for rows in prompts[begin : begin + size] for row in rows]
                if any(row.number in needed for row in batch):
                    with prepared.accelerated():
                        batch_scores = self._run(prepared, branches, batch)
                    for row, scores in zip(batch, batch_scores, strict=True):
                        yield row.number, scores

    def _run(self, prepared: PreparedModel, branches: Branches, batch: Sequence[BranchingPrompt]) -> list[ScoredPrompt]:
        """Run a batch; if memory runs out even without the prefixes of earlier calls, split it in halves."""
        try:
            return branches.run(batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        if prepared.prefixes.drop_others(None):
            return self._run(prepared, branches, batch)
        if len(batch) == 1:
            raise IclEvalError(f"not enough memory for one prompt on {self._model.device}")
        half = len(batch) // 2
        return self._run(prepared, branches, batch[:half]) + self._run(prepared, branches, batch[half:])

    def _check(self, asked: Continuations, scores: ScoredPrompt) -> None:
        if not all(math.isfinite(value) for scored in scores for value in scored.logprobs):
            example_id = asked.context.prompt.example_id
            raise not_finite_error(f"{example_id}: the log-probability of an answer", self._model.network.dtype)

    def _history(self, decoder_ids: Ids) -> Ids:
        return self._start_ids + (decoder_ids or self._forced_ids)


def _find_equal(prompts: Sequence[EncodedPrompt]) -> dict[int, list[int]]:
    """Return the numbers of equal prompts, by the first of them, so that those with an encoder's input run with others.

    Of a decoder's prompts, equal ones are not looked for: what they have in common is a prefix, which runs in pieces.
    """
    firsts: dict[tuple[TokenIds, TokenIds], int] = {}
    equal: defaultdict[int, list[int]] = defaultdict(list)
    for number, prompt in enumerate(prompts):
        ids = prompt.encoder, prompt.decoder
        equal[firsts.setdefault(ids, number) if prompt.encoder else number].append(number)
    return equal
