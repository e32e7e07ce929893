"""Compute the log-probability of every token of a prompt's continuations.

What prompts share (their demonstrations, a passage, an encoder's input) runs once for all of them, a prompt runs once
for all its continuations, and the last token of a continuation never runs; `branches` names the ways to run the
continuations. `python -m benchmarks tokens` compares how many tokens a network is fed with the least possible.

Results do not depend on what else is in the batch, up to rounding. They are equal to the last bit for the same prompts
with the same batch size: a batch runs whole even if only some of its rows are wanted, and nothing is reused from
earlier runs.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Any, TypeVar

from icl_eval.decoding.branches import Branches, ScoredPrompt
from icl_eval.decoding.capabilities import check_history
from icl_eval.decoding.memory import require_room
from icl_eval.decoding.networks import not_finite_error
from icl_eval.decoding.opening import BeginningStack
from icl_eval.decoding.parts import PartPlanner, PlannedPart, choose_branches
from icl_eval.decoding.preparing import PreparedModel, prepare
from icl_eval.decoding.rules import forced_ids, start_ids
from icl_eval.errors import IclEvalError
from icl_eval.models.loading import LanguageModel
from icl_eval.models.memory import is_out_of_memory
from icl_eval.prompts.tokenization import Continuations

Item = TypeVar("Item")
Result = TypeVar("Result")


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
        planner = PartPlanner(prepared, asked, self._start_ids, self._forced_ids)
        for each in asked:
            check_history(self._model, prepared.capabilities, planner.history(each.context), each.longest)
        longest = max((each.context.num_tokens for each in asked), default=0)
        encoded = max((len(each.context.encoder_ids) for each in asked), default=0)
        require_room(self._model.network, longest, encoded, prepared.prefixes.num_bytes)
        needed = set(range(len(asked)) if wanted is None else wanted)
        beginnings = BeginningStack(self._model.network)
        for part in planner.plan():
            if needed.isdisjoint(row.number for row in part.rows):
                continue
            with prepared.accelerated():
                [beginning] = self._run(
                    prepared, lambda parts: [beginnings.get(each.begins_with, each.pauses) for each in parts], [part]
                )
            branches = choose_branches(prepared, part, beginning)
            for number, scores in self._score_part(prepared, part, branches, needed):
                self._check(asked[number], scores)
                yield number, scores

    def _score_part(
        self, prepared: PreparedModel, part: PlannedPart, branches: Branches, needed: Collection[int]
    ) -> Iterator[tuple[int, ScoredPrompt]]:
        for together in branches.batches(part.rows):
            prompts = [list(rows) for _, rows in groupby(together, key=lambda row: (row.encoder_ids, row.own_ids))]
            size = self._batch_size or len(prompts)
            for begin in range(0, len(prompts), size):
                batch = [row for rows in prompts[begin : begin + size] for row in rows]
                if any(row.number in needed for row in batch):
                    with prepared.accelerated():
                        batch_scores = self._run(prepared, branches.run, batch)
                    for row, scores in zip(batch, batch_scores, strict=True):
                        yield row.number, scores

    def _run(
        self, prepared: PreparedModel, compute: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item]
    ) -> list[Result]:
        """Compute one result for each item; if memory runs out, without prefixes of earlier calls, then in halves."""
        try:
            return compute(items)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # Not while the error is handled: it refers to what was in memory.
        if prepared.prefixes.drop_others(None):
            return self._run(prepared, compute, items)
        if len(items) == 1:
            raise IclEvalError(f"not enough memory for one prompt on {self._model.device}")
        half = len(items) // 2
        return self._run(prepared, compute, items[:half]) + self._run(prepared, compute, items[half:])

    def _check(self, asked: Continuations, scores: ScoredPrompt) -> None:
        if not all(math.isfinite(value) for scored in scores for value in scored.logprobs):
            example_id = asked.context.prompt.example_id
            raise not_finite_error(f"{example_id}: the log-probability of an answer", self._model.network.dtype)
