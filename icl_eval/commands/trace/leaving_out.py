"""Leaving out: how much each demonstration mattered, by leaving it out and looking at the answer's likelihood again.

The prompt without a demonstration is rendered by the template anew, so that no separator stays behind. The answer's
tokens are the same in both; a change of its log-likelihood is therefore the demonstration's doing (and that of its
place: every other one moves up).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from icl_eval.commands.trace.subjects import Question
from icl_eval.commands.trace.traces import LogLikelihoodGain
from icl_eval.decoding.log_probs import LikelihoodScorer
from icl_eval.decoding.rules import forced_ids
from icl_eval.models.loading import LanguageModel
from icl_eval.prompts.building import EncodedPrompt
from icl_eval.prompts.tokenization import Continuations


@dataclass(frozen=True)
class Likelihoods:
    """Natural logarithms of the probabilities that a model gives to two answers, each the sum over its tokens."""

    generated: float
    reference: float | None


class AnswerScorer:
    """Tells how likely a model finds two fixed answers after different prompts."""

    def __init__(
        self,
        model: LanguageModel,
        generated_ids: Sequence[int],
        question: Question | None,
        settings: Mapping[str, Any],
    ):
        """Prepare to score.

        Args:
            model: Whose probabilities are asked for.
            generated_ids: All tokens that were generated.
            question: Has the right answer; None for none.
            settings: What `generate` would be told, besides the model's generation config.
        """
        self._model = model
        self._scorer = LikelihoodScorer(model, settings=settings)
        self._generated_ids = tuple(generated_ids)
        self._question = question
        self._settings = settings

    def score(self, prompt: EncodedPrompt) -> Likelihoods:
        """Return how likely the answers are after a prompt.

        A first token that the model's generation config forces (BART's) says nothing of the answer and is not counted.
        """
        forced = forces_first(self._model, prompt, self._settings)
        generated = self._sum(Continuations(prompt, (self._generated_ids[forced:],)))
        if self._question is None:
            return Likelihoods(generated, None)
        return Likelihoods(generated, self._sum(self._question.encode_answer(prompt)))

    def _sum(self, asked: Continuations) -> float:
        if not asked.longest:
            return 0.0
        ((_, (log_probabilities,)),) = self._scorer.score([asked])
        return math.fsum(log_probabilities)


def forces_first(model: LanguageModel, prompt: EncodedPrompt, settings: Mapping[str, Any]) -> bool:
    """Return whether the first token after a prompt is forced, whatever the model thinks."""
    return not prompt.decoder_ids and bool(forced_ids(model, settings))


def measure_influences(scorer: AnswerScorer, question: Question, prompt: EncodedPrompt) -> Iterator[LogLikelihoodGain]:
    """Yield the influence of each demonstration of a question's prompt, in the prompt's order."""
    whole = scorer.score(prompt)
    for shown in question.builder.find_shown(prompt, question.example):
        without = scorer.score(question.builder.build_without(prompt, question.example, shown.id))
        reference = None
        if whole.reference is not None and without.reference is not None:
            reference = whole.reference - without.reference
        yield LogLikelihoodGain(
            demonstration_id=shown.id,
            question=" · ".join(shown.inputs.values()),
            answer=next(iter(shown.references), None),
            generated=whole.generated - without.generated,
            reference=reference,
        )
