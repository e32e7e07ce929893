"""Compute the log-probability of every token of a prompt's continuations.

What prompts share (their demonstrations, an encoder's input) runs once for all of them, and a prompt runs once for all
its continuations; `branches` implements the two ways to run the continuations.

Results do not depend on what else is in the batch, up to rounding. They are equal to the last bit for the same prompts
with the same batch size: a batch runs whole even if only some of its rows are wanted, and nothing is reused from
earlier runs.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from transformers import Cache

from icl_eval.decoding.branches import Branches, BranchingPrompt, ForkedBranches, ScoredPrompt, TreeBranches
from icl_eval.decoding.capabilities import check_history
from icl_eval.decoding.memory import require_room
from icl_eval.decoding.networks import encode, not_finite_error
from icl_eval.decoding.opening import extend
from icl_eval.decoding.preparing import PreparedModel, prepare
from icl_eval.decoding.rules import forced_ids, start_ids
from icl_eval.decoding.sharing import Ids, PromptGroup, plan_groups
from icl_eval.errors import IclEvalError
from icl_eval.models.loading import LanguageModel
from icl_eval.models.memory import is_out_of_memory
from icl_eval.prompts.building import EncodedPrompt, Prompt
from icl_eval.prompts.tokenization import Continuations


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
            batch_size: The maximum number of prompts in a batch; None for as many as suit one forward pass.
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
        require_room(self._model.network, max((each.context.num_tokens for each in asked), default=0))
        needed = set(range(len(asked)) if wanted is None else wanted)
        contexts = [
            EncodedPrompt(Prompt(str(number), None, None), each.context.encoder_ids, each.context.decoder_ids)
            for number, each in enumerate(asked)
        ]
        for group in plan_groups(contexts):
            if not needed.isdisjoint(int(prompt.prompt.example_id) for prompt in group.prompts):
                yield from self._score_group(prepared, group, asked, needed)

    def _score_group(
        self, prepared: PreparedModel, group: PromptGroup, asked: Sequence[Continuations], needed: Collection[int]
    ) -> Iterator[tuple[int, ScoredPrompt]]:
        histories = [self._history(prompt.decoder_ids) for prompt in group.prompts]
        encoder_ids = group.prompts[0].encoder_ids if group.shares_encoder else ()
        prefix_ids = histories[0][: len(self._start_ids) + len(group.prefix)]
        if not (group.prefix or encoder_ids) or any(len(history) <= len(prefix_ids) for history in histories):
            prefix_ids = ()
        rows = [
            BranchingPrompt(
                number := int(prompt.prompt.example_id),
                () if encoder_ids else prompt.encoder_ids,
                history[len(prefix_ids) :],
                asked[number].texts,
            )
            for prompt, history in zip(group.prompts, histories, strict=True)
        ]
        with prepared.accelerated():
            branches = self._open(prepared, encoder_ids, prefix_ids, rows)
        for together in branches.batches(rows):
            size = self._batch_size or len(together)
            for begin in range(0, len(together), size):
                batch = together[begin : begin + size]
                if any(row.number in needed for row in batch):
                    with prepared.accelerated():
                        batch_scores = self._run(branches, batch)
                    for row, scores in zip(batch, batch_scores, strict=True):
                        self._check(asked[row.number], scores)
                        yield row.number, scores

    def _open(
        self, prepared: PreparedModel, encoder_ids: Ids, prefix_ids: Ids, rows: Sequence[BranchingPrompt]
    ) -> Branches:
        network = self._model.network
        encoded = encode(network, [encoder_ids])[0] if encoder_ids else None
        prefix: Cache | None = extend(network, None, prefix_ids, encoded) if prefix_ids else None
        longest_own = max(len(row.own_ids) for row in rows) + max(len(row.tree.ids) for row in rows)
        if prepared.capabilities.splits(len(prefix_ids) + longest_own):
            return TreeBranches(network, prefix)
        return ForkedBranches(network, prefix, encoded, prepared.capabilities.bytes_per_token)

    def _run(self, branches: Branches, batch: Sequence[BranchingPrompt]) -> list[ScoredPrompt]:
        """Run a batch; if memory runs out, split it in halves."""
        try:
            return branches.run(batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        if len(batch) == 1:
            raise IclEvalError(f"not enough memory for one prompt on {self._model.device}")
        half = len(batch) // 2
        return self._run(branches, batch[:half]) + self._run(branches, batch[half:])

    def _check(self, asked: Continuations, scores: ScoredPrompt) -> None:
        if not all(math.isfinite(value) for scored in scores for value in scored.logprobs):
            example_id = asked.context.prompt.example_id
            raise not_finite_error(f"{example_id}: the log-probability of an answer", self._model.network.dtype)

    def _history(self, decoder_ids: Ids) -> Ids:
        return self._start_ids + (decoder_ids or self._forced_ids)
