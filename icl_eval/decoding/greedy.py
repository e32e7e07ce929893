"""Greedy search as a stream: every step takes each row's most likely token and yields it.

prompts ─▶ batches ─▶ session.prefill ─▶ choose ─▶ Token … Completion
                           ▲                │
                           └─ session.step ◀┘   rows that are finished leave
"""

from collections.abc import Iterator, Sequence

import torch

from icl_eval.decoding.batching import make_batches
from icl_eval.decoding.completions import Completion, Token
from icl_eval.decoding.detokenization import Detokenizer
from icl_eval.decoding.hypotheses import Hypothesis
from icl_eval.decoding.rules import Rules, apply_rules, end_ids
from icl_eval.decoding.sessions import open_session, start_ids
from icl_eval.decoding.stopping import StopFilter
from icl_eval.models import LanguageModel
from icl_eval.prompts import EncodedPrompt


class GreedyDecoder:
    """Decodes prompts with a model; the same tokens as the library's `generate(do_sample=False)`."""

    def __init__(self, model: LanguageModel, max_new_tokens: int, stop: Sequence[str] = (), batch_size: int = 16):
        """Prepare to decode.

        Args:
            model: What to decode with.
            max_new_tokens: How many tokens a completion may have.
            stop: Texts that end a completion and are not a part of it.
            batch_size: How many rows are decoded together.
        """
        self._model = model
        self._max_new_tokens = max_new_tokens
        self._stop = tuple(stop)
        self._batch_size = batch_size
        self._rules = Rules(model.network, max_new_tokens)
        self._end_ids = end_ids(model.network)

    def stream(self, prompts: Sequence[EncodedPrompt]) -> Iterator[Token | Completion]:
        """Yield every token when it is chosen, and each completion after its last token.

        Completions come in the order in which they are finished, not in that of the prompts.
        """
        for batch in make_batches(prompts, self._batch_size):
            yield from self._decode(batch)

    def _decode(self, batch: Sequence[EncodedPrompt]) -> Iterator[Token | Completion]:
        session = open_session(self._model)
        hypotheses = [self._begin(prompt) for prompt in batch]
        logits = session.prefill(batch)  # [rows, vocabulary]
        while True:
            for hypothesis, token_id in zip(hypotheses, _choose(hypotheses, logits), strict=True):
                yield hypothesis.append(token_id, self._end_ids, self._max_new_tokens)
                if hypothesis.finish_reason:
                    yield hypothesis.completion()
            unfinished = [row for row, hypothesis in enumerate(hypotheses) if not hypothesis.finish_reason]
            if not unfinished:
                return
            if len(unfinished) < len(hypotheses):
                hypotheses = [hypotheses[row] for row in unfinished]
                session.keep(unfinished)
            logits = session.step([hypothesis.token_ids[-1] for hypothesis in hypotheses])

    def _begin(self, prompt: EncodedPrompt) -> Hypothesis:
        context_ids = (*start_ids(self._model), *prompt.decoder_ids)
        return Hypothesis(
            prompt.prompt.example_id,
            context_ids,
            self._rules.for_row(len(context_ids), prompt.encoder_ids),
            Detokenizer(self._model.tokenizer, prompt.decoder_ids),
            StopFilter(self._stop),
        )


def _choose(hypotheses: Sequence[Hypothesis], logits: torch.Tensor) -> list[int]:
    """Return each row's most likely token under its model's rules, from logits [rows, vocabulary]."""
    logits = logits.float()  # as `generate` compares them
    if any(hypothesis.rules for hypothesis in hypotheses):
        histories = [hypothesis.history for hypothesis in hypotheses]
        logits = apply_rules([hypothesis.rules for hypothesis in hypotheses], histories, logits)
    # max, not argmax: the same index on ties, several times faster on a large vocabulary
    token_ids: list[int] = logits.max(dim=-1).indices.tolist()
    return token_ids
