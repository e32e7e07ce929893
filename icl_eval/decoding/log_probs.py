"""Log-probabilities: how probable every token is of texts that could follow a prompt, as a natural logarithm.

What prompts share (their demonstrations, an encoder's input) is run once for all of them, and a prompt once for all of
its texts; `branches` has the two ways to run the texts.

A number is the same whatever is run beside it, up to rounding. It is the same to the last bit when the same prompts are
asked about with the same batch size: a batch is run whole, also where only some of it is wanted, and nothing is taken
over from earlier runs.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from transformers import Cache

from icl_eval.decoding.branches import Branches, BranchingPrompt, ForkedBranches, LogProbs, TreeBranches
from icl_eval.decoding.capabilities import check_history
from icl_eval.decoding.networks import encode, not_finite
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
    """Computes log-probabilities under a model's network; the rules of its generation config have no part in them."""

    def __init__(
        self,
        model: LanguageModel,
        batch_size: int | None = None,
        settings: Mapping[str, Any] = MappingProxyType({}),
    ):
        """Prepare to score.

        Args:
            model: Whose probabilities are asked for.
            batch_size: How many prompts are run together at most; None for what one forward pass should have.
            settings: What else differs from the model's generation config, as `generate` would be told.
        """
        self._model = model
        self._batch_size = batch_size
        self._start_ids = start_ids(model)
        self._forced_ids = forced_ids(model, settings)

    def score(
        self, asked: Sequence[Continuations], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, LogProbs]]:
        """Yield the log-probabilities of each prompt's texts, with the prompt's number.

        A decoder that begins with its start token alone goes on with the token that the generation config or the
        settings force (BART's first, the language of M2M-100), where they do: answers are generated after it, too.
        Whenever something is yielded, the network is as it was found; what the caller changes in it counts from the
        next call on.

        Args:
            asked: Prompts, each with texts of at least one token.
            wanted: The numbers of the prompts that are needed; None for all.

        Raises:
            ConfigError: When the network gives other logits with a key/value cache than without one, or its cache
                cannot serve a prompt and its longest text.
            IclEvalError: When there is not enough memory for a single prompt, or logits are not numbers.
        """
        prepared = prepare(self._model)
        for each in asked:
            longest = max(map(len, each.texts), default=0)
            check_history(self._model, prepared.capabilities, self._history(each.context.decoder_ids), longest)
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
    ) -> Iterator[tuple[int, LogProbs]]:
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
                        found = self._run(branches, batch)
                    for row, log_probs in zip(batch, found, strict=True):
                        self._check(asked[row.number], log_probs)
                        yield row.number, log_probs

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

    def _run(self, branches: Branches, batch: Sequence[BranchingPrompt]) -> list[LogProbs]:
        """Run a batch, in halves where memory runs out."""
        try:
            return branches.run(batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        if len(batch) == 1:
            raise IclEvalError(f"not enough memory for one prompt on {self._model.device}")
        half = len(batch) // 2
        return self._run(branches, batch[:half]) + self._run(branches, batch[half:])

    def _check(self, asked: Continuations, log_probs: LogProbs) -> None:
        if not all(math.isfinite(value) for text in log_probs for value in text):
            example_id = asked.context.prompt.example_id
            raise not_finite(f"{example_id}: the log-probability of an answer", self._model.network.dtype)

    def _history(self, decoder_ids: Ids) -> Ids:
        return self._start_ids + (decoder_ids or self._forced_ids)
