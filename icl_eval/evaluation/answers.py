"""Score given answers by their log-likelihood.

    likelihood=references    score the references only
    likelihood=choices       also score and rank the task's choices

An answer is scored as it would appear in a demonstration: after the same prompt, with the white space that the template
puts before it, and with nothing after it. Its log-likelihood is the sum over its tokens of
ln p(token | prompt, earlier tokens), under the model's unmodified distribution over the whole vocabulary.

A model may prefer a choice that is likely after any prompt. Calibration removes this bias: it subtracts the choice's
log-likelihood after the same prompt with a content-free string such as "N/A" instead of the question, or the logarithm
of its mean probability after several (Zhao et al. average over "N/A", "[MASK]" and an empty string). This ranks
choices as contextual calibration does (Zhao et al., 2021, https://arxiv.org/abs/2102.09690, whose diagonal matrix
divides by these probabilities), but for whole answers instead of single tokens, as in Holtzman et al. (2021,
https://arxiv.org/abs/2104.08315).
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, fsum, log
from typing import TYPE_CHECKING, Protocol

from icl_eval.decoding.engines import Runner
from icl_eval.errors import ConfigError, DataError, PromptTooLongError
from icl_eval.prompts.building import EncodedPrompt, PromptBuilder
from icl_eval.prompts.tokenization import Continuations, encode_continuations
from icl_eval.runs.records import AnswerLikelihood, QuestionLikelihood
from icl_eval.targets import Family
from icl_eval.tasks.examples import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from icl_eval.decoding.branches import ScoredContinuation, ScoredPrompt


LIKELIHOODS = Family(__name__, {"choices": "ChoiceLikelihood", "references": "ReferenceLikelihood"})


class LikelihoodMode(Protocol):
    """Decides which answers are scored by their likelihood."""

    @property
    def name(self) -> str:
        """The name in a configuration."""

    @property
    def ranks_choices(self) -> bool:
        """Whether the task's choices are scored too."""

    @property
    def content_free(self) -> str | list[str] | None:
        """The string, or the strings, that replace the question to calibrate choices; None for no calibration."""


@dataclass(frozen=True)
class ReferenceLikelihood:
    """Scores all references of each question."""

    name = "references"
    ranks_choices = False
    content_free = None


@dataclass(frozen=True)
class ChoiceLikelihood:
    """Scores all references and choices of each question."""

    content_free: str | list[str] | None
    name = "choices"
    ranks_choices = True

    def __post_init__(self) -> None:
        if self.content_free == []:
            raise ConfigError("content_free=[]: needs at least one string; null for no calibration")


@dataclass(frozen=True)
class CandidateAnswers:
    """The answers of one question to score, as strings and as continuations of its prompt."""

    example_id: str
    references: tuple[str, ...]
    choices: tuple[str, ...]
    """The task's choices; empty if they are not scored."""
    after_question: Continuations
    """The continuations of the prompt, in the order of `texts`."""
    num_bytes: tuple[int, ...]
    """The length in UTF-8 of what is scored for each of `texts`, without the white space before it."""
    content_free: str | tuple[str, ...] | None
    after_nothing: tuple[Continuations, ...]
    """For each content-free prompt, its continuations in the order of `choices`; empty for no calibration."""

    @property
    def texts(self) -> tuple[str, ...]:
        """References and choices without duplicates."""
        return tuple(dict.fromkeys(self.references + self.choices))

    def sum_logprobs(self, scores: "ScoredPrompt", *after_nothing: "ScoredPrompt") -> QuestionLikelihood:
        """Return the likelihoods of the question's answers.

        Args:
            scores: The scores of each answer, in the order of `texts`.
            after_nothing: The scores of each choice after each content-free prompt.
        """
        by_text = dict(zip(self.texts, zip(scores, self.num_bytes, strict=True), strict=True))
        blanks = [dict(zip(self.choices, scored, strict=True)) for scored in after_nothing]

        def answer(text: str, blanks: "Sequence[Mapping[str, ScoredContinuation]]") -> AnswerLikelihood:
            scored, num_bytes = by_text[text]
            total = fsum(scored.logprobs)
            calibrated = total - log_mean([fsum(blank[text].logprobs) for blank in blanks]) if blanks else None
            return AnswerLikelihood(text, total, len(scored.logprobs), num_bytes, calibrated, scored.is_greedy)

        return QuestionLikelihood(
            references=tuple(answer(text, []) for text in self.references),
            choices=tuple(answer(text, blanks) for text in self.choices),
            content_free=self.content_free,
        )


def log_mean(logprobs: Sequence[float]) -> float:
    """Return the logarithm of the mean of probabilities that are given by their logarithms."""
    highest = max(logprobs)
    return highest + log(fsum(exp(each - highest) for each in logprobs) / len(logprobs))


class EncodeAnswers(Protocol):
    """Splits answers into tokens after the tokens of their prompt."""

    def __call__(
        self, tokenizer: "PreTrainedTokenizerBase", encoded: EncodedPrompt, texts: Sequence[str], /
    ) -> Continuations:
        """Return the context that all answers share, and the tokens of each answer after it."""


@dataclass(frozen=True)
class AnswerBuilder:
    """Builds the answers to score for a task's questions."""

    mode: LikelihoodMode
    prompts: PromptBuilder
    tokenizer: "PreTrainedTokenizerBase"
    encode: EncodeAnswers = encode_continuations

    def build(self, example: Example, built: EncodedPrompt) -> CandidateAnswers:
        """Build the answers to score for a question.

        Args:
            example: The question.
            built: Its prompt.

        Raises:
            ConfigError: If choices are to be scored and the question has none.
            DataError: If an answer adds no token to the prompt.
            PromptTooLongError: If prompt and answer together exceed the model's positions.
        """
        choices = example.choices if self.mode.ranks_choices else ()
        if self.mode.ranks_choices and not choices:
            raise ConfigError(
                f"likelihood=choices: task '{self.prompts.task.name}' has no choices; define them in its "
                "fields.choices, or use likelihood=references or other tasks"
            )
        texts = tuple(dict.fromkeys(example.references + choices))
        asked = self.mode.content_free
        content_free = tuple(asked) if isinstance(asked, list) else asked
        replaced = (content_free,) if isinstance(content_free, str) else content_free or ()
        blanks = [self.prompts.build_content_free(example, built, text) for text in replaced]
        after_nothing = tuple(self._encode(example, blank, choices) for blank in blanks)
        after_question = self._encode(example, built, texts)
        num_bytes = tuple(len(self._continue(example, text).lstrip().encode()) for text in texts)
        return CandidateAnswers(
            example.id, example.references, choices, after_question, num_bytes, content_free, after_nothing
        )

    def _continue(self, example: Example, answer: str) -> str:
        return self.prompts.template.continuation(self.prompts.task, example, answer)

    def _encode(self, example: Example, built: EncodedPrompt, answers: Sequence[str]) -> Continuations:
        where = f"task '{self.prompts.task.name}', question {example.id!r}"
        texts = [self._continue(example, answer) for answer in answers]
        encoded = self.encode(self.tokenizer, built, texts)
        for answer, ids in zip(answers, encoded.texts, strict=True):
            if not ids:
                raise DataError(f"{where}: the answer {answer!r} adds no token to the prompt")
        context = replace(self.prompts.context, max_new_tokens=max(map(len, encoded.texts)))
        if excess := context.excess(encoded.context):
            raise PromptTooLongError(
                f"{where}: prompt and longest answer are {excess} tokens too long for the model's "
                f"{context.positions} positions; lower num_fewshot, or set overflow=drop and max_new_tokens to "
                f"{context.max_new_tokens} or more"
            )
        return encoded


def score_answers(
    runner: Runner, answers: Sequence[CandidateAnswers], wanted: Collection[str]
) -> Iterator[tuple[str, QuestionLikelihood]]:
    """Yield the id and the likelihoods of each wanted question.

    Args:
        runner: Computes the log-probabilities.
        answers: The answers of all of the task's questions. Batches are formed from all of them, so that a resumed run
            gets the same numbers.
        wanted: The ids of the questions that still lack likelihoods.
    """
    requests, places = deduplicate(answers)
    needing: defaultdict[int, list[CandidateAnswers]] = defaultdict(list)
    for each in answers:
        if each.example_id in wanted:
            for place in set(places[each.example_id]):
                needing[place].append(each)
    scored: dict[int, ScoredPrompt] = {}
    for place, scores in runner.score(requests, needing):
        scored[place] = scores
        for each in needing[place]:
            if scored.keys() >= set(places[each.example_id]):
                yield each.example_id, each.sum_logprobs(*(scored[part] for part in places[each.example_id]))


def deduplicate(answers: Sequence[CandidateAnswers]) -> tuple[list[Continuations], dict[str, list[int]]]:
    """Return the distinct continuations to score, and the indices of each question's continuations.

    Questions with the same demonstrations and choices share the continuations of the content-free prompts.
    """
    requests: dict[tuple[object, ...], Continuations] = {}
    numbers: dict[tuple[object, ...], int] = {}
    places: defaultdict[str, list[int]] = defaultdict(list)
    for each in answers:
        for part in (each.after_question, *each.after_nothing):
            key = (part.context.encoder_ids, part.context.decoder_ids, part.texts)
            requests.setdefault(key, part)
            places[each.example_id].append(numbers.setdefault(key, len(numbers)))
    return list(requests.values()), places
