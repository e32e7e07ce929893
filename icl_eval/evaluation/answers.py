"""Answers: how probable a model finds those that it is given, next to the one that it writes itself.

    likelihood=references    the right answers alone
    likelihood=choices       and a task's choices, which are ranked

An answer is scored as it would stand in a demonstration: after the same prompt, with the white space that the template
puts before it, and without anything behind it. Its log-probability is the sum over its tokens of
ln p(token | prompt, earlier tokens), of the network's own distribution over the whole vocabulary.

A choice that the model finds probable after anything at all is preferred for no merit of its own. So a choice can be
calibrated: its log-probability after the same prompt with a content-free text such as "N/A" in place of the question
is subtracted. That ranks choices as contextual calibration does (Zhao et al., 2021, https://arxiv.org/abs/2102.09690,
whose diagonal matrix divides by these probabilities), for whole answers in place of single tokens, as Holtzman et al.
do (2021, https://arxiv.org/abs/2104.08315).
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import TYPE_CHECKING, Protocol

from icl_eval.errors import ConfigError, DataError, PromptTooLongError
from icl_eval.prompts.building import EncodedPrompt, PromptBuilder
from icl_eval.prompts.tokenization import Continuations, encode_continuations
from icl_eval.runs.records import AnswerLikelihood, QuestionLikelihood
from icl_eval.targets import Family
from icl_eval.tasks.examples import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from icl_eval.decoding import LikelihoodScorer
    from icl_eval.decoding.branches import LogProbs


LIKELIHOODS = Family(__name__, {"choices": "ChoiceLikelihood", "references": "ReferenceLikelihood"})


class AskedLikelihood(Protocol):
    """Which answers are scored."""

    @property
    def name(self) -> str:
        """What it is called in a configuration."""

    @property
    def ranks_choices(self) -> bool:
        """Whether the task's choices are scored, too."""

    @property
    def content_free(self) -> str | None:
        """What stands in place of the question to calibrate choices; None for no calibration."""


@dataclass(frozen=True)
class ReferenceLikelihood:
    """All references of each question."""

    name = "references"
    ranks_choices = False
    content_free = None


@dataclass(frozen=True)
class ChoiceLikelihood:
    """All references and choices of each question."""

    content_free: str | None
    name = "choices"
    ranks_choices = True


@dataclass(frozen=True)
class CandidateAnswers:
    """The answers of one question that are scored, as text and as what follows its prompt."""

    example_id: str
    references: tuple[str, ...]
    choices: tuple[str, ...]
    """Empty where they are not asked for."""
    after_question: Continuations
    """`texts`, in their order."""
    content_free: str | None
    after_nothing: Continuations | None
    """The choices, in their order, after the content-free prompt; None for no calibration."""

    @property
    def texts(self) -> tuple[str, ...]:
        """References and choices, each once."""
        return tuple(dict.fromkeys(self.references + self.choices))

    def found(self, logprobs: "LogProbs", after_nothing: "LogProbs" = ()) -> QuestionLikelihood:
        """Return what was found, from the log-probabilities of each text's tokens."""
        by_text = dict(zip(self.texts, logprobs, strict=True))
        blank = dict(zip(self.choices, after_nothing, strict=True)) if after_nothing else {}

        def answer(text: str, blank: Mapping[str, Sequence[float]]) -> AnswerLikelihood:
            total = fsum(by_text[text])
            calibrated = total - fsum(blank[text]) if blank else None
            return AnswerLikelihood(text, total, len(by_text[text]), len(text.encode()), calibrated)

        return QuestionLikelihood(
            references=tuple(answer(text, {}) for text in self.references),
            choices=tuple(answer(text, blank) for text in self.choices),
            content_free=self.content_free,
        )


@dataclass(frozen=True)
class AnswerBuilder:
    """Builds what is scored for a task's questions."""

    asked: AskedLikelihood
    prompts: PromptBuilder
    tokenizer: "PreTrainedTokenizerBase"

    def build(self, example: Example, built: EncodedPrompt) -> CandidateAnswers:
        """Build the answers of a question whose prompt is built.

        Raises:
            ConfigError: When choices are asked for and the question has none.
            DataError: When an answer is nothing but a part of the prompt.
            PromptTooLongError: When prompt and answer do not fit together.
        """
        choices = example.choices if self.asked.ranks_choices else ()
        if self.asked.ranks_choices and not choices:
            raise ConfigError(
                f"likelihood=choices: task '{self.prompts.task.name}' has no choices (they are an expression in its "
                "fields.choices); take likelihood=references, or other tasks"
            )
        texts = tuple(dict.fromkeys(example.references + choices))
        content_free, after_nothing = self.asked.content_free, None
        if content_free is not None:
            blank = self.prompts.build_content_free(example, built, content_free)
            after_nothing = self._continuations(example, blank, choices)
        after_question = self._continuations(example, built, texts)
        return CandidateAnswers(example.id, example.references, choices, after_question, content_free, after_nothing)

    def _continuations(self, example: Example, built: EncodedPrompt, answers: Sequence[str]) -> Continuations:
        task, where = self.prompts.task, f"task '{self.prompts.task.name}', question {example.id!r}"
        texts = [self.prompts.template.continuation(task, example, answer) for answer in answers]
        found = encode_continuations(self.tokenizer, built, texts)
        for answer, ids in zip(answers, found.texts, strict=True):
            if not ids:
                raise DataError(f"{where}: the answer {answer!r} adds no token to the prompt")
        context = replace(self.prompts.context, max_new_tokens=max(map(len, found.texts)))
        if excess := context.excess(found.context):
            raise PromptTooLongError(
                f"{where}: prompt and longest answer are {excess} tokens too long for the model's "
                f"{context.positions} positions; lower num_fewshot, or set overflow=drop and max_new_tokens to "
                f"{context.max_new_tokens} or more"
            )
        return found


def score_answers(
    scorer: "LikelihoodScorer", answers: Sequence[CandidateAnswers], wanted: Collection[str]
) -> Iterator[tuple[str, QuestionLikelihood]]:
    """Yield what is found for the wanted questions, with their ids.

    Args:
        scorer: Computes log-probabilities.
        answers: Those of all of a task's questions: what is run together depends on them all.
        wanted: The ids of the questions that no earlier run has left.
    """
    asked, places = _each_once(answers)
    needing: defaultdict[int, list[CandidateAnswers]] = defaultdict(list)
    for each in answers:
        if each.example_id in wanted:
            for place in set(places[each.example_id]):
                needing[place].append(each)
    found: dict[int, LogProbs] = {}
    for place, logprobs in scorer.score(asked, needing):
        found[place] = logprobs
        for each in needing[place]:
            if found.keys() >= set(places[each.example_id]):
                yield each.example_id, each.found(*(found[part] for part in places[each.example_id]))


def _each_once(answers: Sequence[CandidateAnswers]) -> tuple[list[Continuations], dict[str, list[int]]]:
    """Return what there is to score, and where each question's parts are in it.

    Questions with the same demonstrations and the same choices share what follows the content-free prompt.
    """
    asked: dict[tuple[object, ...], Continuations] = {}
    numbers: dict[tuple[object, ...], int] = {}
    places: defaultdict[str, list[int]] = defaultdict(list)
    for each in answers:
        for part in filter(None, (each.after_question, each.after_nothing)):
            key = (part.context.encoder_ids, part.context.decoder_ids, part.texts)
            asked.setdefault(key, part)
            places[each.example_id].append(numbers.setdefault(key, len(numbers)))
    return list(asked.values()), places
