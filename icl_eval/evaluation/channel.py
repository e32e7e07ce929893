"""Score questions instead of answers: the noisy channel.

`likelihood=channel` ranks the choices of a question by ln p(question | demonstrations, choice), with every answer
before its question, in demonstrations too (Min et al., 2022, Noisy Channel Language Model Prompting, arXiv:2108.04106).
That the model likes to write one of the choices does not count, and every word of the question does.

Each choice has a prompt of its own, and the question is its only continuation. The demonstrations are those of the
question's own prompt, in the same order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import fsum
from typing import TYPE_CHECKING

from icl_eval.evaluation.answers import EncodeAnswers, LikelihoodMode, encode_fitting, list_answers
from icl_eval.prompts.building import EncodedPrompt, PromptBuilder
from icl_eval.prompts.channel import channel_form
from icl_eval.prompts.tokenization import Continuations
from icl_eval.runs.records import AnswerLikelihood, QuestionLikelihood, ScoredQuestion
from icl_eval.tasks.examples import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from icl_eval.decoding.branches import ScoredPrompt


@dataclass(frozen=True)
class ChannelAnswers:
    """The prompts of one question's answers, which the question continues."""

    example_id: str
    references: tuple[str, ...]
    choices: tuple[str, ...]
    texts: tuple[str, ...]
    """References and choices without duplicates."""
    parts: tuple[Continuations, ...]
    """The prompt of each of `texts`, with the question as its only continuation."""
    scored: ScoredQuestion
    """The prompt of the first reference, and the question."""

    def sum_logprobs(self, scores: "Sequence[ScoredPrompt]") -> QuestionLikelihood:
        """Return the likelihoods of the question after each answer, from the scores of `parts`."""
        num_bytes = len(self.scored.question.lstrip().encode())
        answers = {
            text: AnswerLikelihood(text, fsum(found.logprobs), len(found.logprobs), num_bytes, None, found.is_greedy)
            for text, (found,) in zip(self.texts, scores, strict=True)
        }
        return QuestionLikelihood(
            references=tuple(answers[text] for text in self.references),
            choices=tuple(answers[text] for text in self.choices),
            content_free=None,
            channel=self.scored,
        )


@dataclass(frozen=True)
class ChannelBuilder:
    """Builds the prompts of the answers of a task's questions."""

    mode: LikelihoodMode
    prompts: PromptBuilder
    """Builds the questions' own prompts."""
    tokenizer: "PreTrainedTokenizerBase"
    encode: EncodeAnswers

    def build_all(self, examples: Sequence[Example], built: Sequence[EncodedPrompt]) -> tuple[ChannelAnswers, ...]:
        """Build the prompts to score for all questions of a task; raises what `build` does."""
        return tuple(map(self.build, examples, built))

    @cached_property
    def _reversed(self) -> PromptBuilder:
        return replace(self.prompts, template=channel_form(self.prompts.template))

    def build(self, example: Example, built: EncodedPrompt) -> ChannelAnswers:
        """Build the prompts to score for a question.

        Args:
            example: The question.
            built: Its own prompt.

        Raises:
            ConfigError: If a question has no choices, or the template has no channel form.
            DataError: If a question adds no token to a prompt.
            PromptTooLongError: If prompt and question together exceed the model's positions.
        """
        choices, texts = list_answers(self.mode, self.prompts.task, example)
        builder = self._reversed
        question = builder.template.continuation(builder.task, example, texts[0])
        after = [builder.rebuild(example, built, replace(example, references=(text,))) for text in texts]
        parts = tuple(
            encode_fitting(
                builder, self.tokenizer, self.encode, example, prompt, {f"question after {text!r}": question}
            )
            for text, prompt in zip(texts, after, strict=True)
        )
        scored = ScoredQuestion(after[0].prompt.encoder, after[0].prompt.decoder, question)
        return ChannelAnswers(example.id, example.references, choices, texts, parts, scored)
