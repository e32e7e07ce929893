"""Measure the influence of each demonstration by leaving it out and scoring the answer again.

The template renders the prompt without the demonstration from scratch, so no stray separator remains. The tokens of the
answer are the same in both prompts. A change in its log-likelihood is therefore due to the demonstration, and to the
shift in position of the demonstrations after it.
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
    """Log-likelihoods (natural logarithm, summed over tokens) of the generated answer and of the first reference."""

    generated: float
    reference: float


class AnswerScorer:
    """Scores two fixed answers after different prompts."""

    def __init__(
        self,
        model: LanguageModel,
        generated_ids: Sequence[int],
        question: Question,
        settings: Mapping[str, Any],
    ):
        """Prepare to score.

        Args:
            model: The model that scores the answers.
            generated_ids: All generated tokens.
            question: The question whose first reference is scored.
            settings: Generation settings that differ from the model's generation config.
        """
        self._model = model
        self._scorer = LikelihoodScorer(model, settings=settings)
        self._generated_ids = tuple(generated_ids)
        self._question = question
        self._settings = settings

    def score(self, prompt: EncodedPrompt) -> Likelihoods:
        """Return the log-likelihoods of the answers after a prompt.

        A first token that the model's generation config forces (as BART's does) is not part of the answer and is not
        scored.
        """
        forced = forces_first(self._model, prompt, self._settings)
        generated = Continuations(prompt, (self._generated_ids[forced:],))
        return Likelihoods(self._sum(generated), self._sum(self._question.encode_answer(prompt)))

    def _sum(self, continuations: Continuations) -> float:
        if not continuations.longest:
            return 0.0
        ((_, (scored,)),) = self._scorer.score([continuations])
        return math.fsum(scored.logprobs)


def forces_first(model: LanguageModel, prompt: EncodedPrompt, settings: Mapping[str, Any]) -> bool:
    """Return whether the generation config forces the first token after a prompt."""
    return not prompt.decoder_ids and bool(forced_ids(model, settings))


def measure_gains(
    scorer: AnswerScorer, question: Question, prompt: EncodedPrompt, whole: Likelihoods
) -> Iterator[LogLikelihoodGain]:
    """Yield the influence of each demonstration in a question's prompt, in the order of the prompt.

    Args:
        scorer: Scores the answers.
        question: The question.
        prompt: Its prompt with all demonstrations.
        whole: The log-likelihoods of the answers after that prompt.
    """
    for shown in question.builder.find_shown(prompt, question.example):
        without = scorer.score(question.builder.build_without(prompt, question.example, shown.id))
        yield LogLikelihoodGain(
            demonstration_id=shown.id,
            question=" · ".join(shown.inputs.values()),
            answer=next(iter(shown.references), None),
            generated=whole.generated - without.generated,
            reference=whole.reference - without.reference,
        )
