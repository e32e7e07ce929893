"""Score given answers by their log-likelihood.

    likelihood=references    score the references only
    likelihood=choices       also score and rank the task's choices
    likelihood=channel       the same, by the log-likelihood of the question after each of them (see `channel`)

An answer is scored as it would appear in a demonstration: after the same prompt, with the white space that the template
puts before it, and with nothing after it. Its log-likelihood is the sum over its tokens of
ln p(token | prompt, earlier tokens), under the model's unmodified distribution over the whole vocabulary.

A model may prefer a choice that is likely after any prompt; `calibration` says how such a bias is removed.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import fsum
from typing import TYPE_CHECKING, Any, Protocol

from icl_eval.decoding.engines import Runner
from icl_eval.errors import ConfigError, DataError, PromptTooLongError
from icl_eval.evaluation.calibration import (
    BuildPrompts,
    CalibratingPrompts,
    Calibration,
    ContentFreeCalibration,
    DomainCalibration,
    PremiseCalibration,
    calibrate,
    require_same_choices,
)
from icl_eval.prompts.building import EncodedPrompt, PromptBuilder
from icl_eval.prompts.tokenization import Continuations, encode_continuations
from icl_eval.runs.records import AnswerLikelihood, QuestionLikelihood
from icl_eval.targets import Family, Seed
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from icl_eval.decoding.branches import ScoredPrompt


_MAX_DOMAIN_TEXTS = 1_000

LIKELIHOODS = Family(
    __name__,
    {"channel": "ChannelLikelihood", "choices": "ChoiceLikelihood", "references": "ReferenceLikelihood"},
)


class LikelihoodMode(Protocol):
    """Decides which answers are scored by their likelihood."""

    @property
    def name(self) -> str:
        """The name in a configuration."""

    @property
    def ranks_choices(self) -> bool:
        """Whether the task's choices are scored too."""

    @property
    def reverses(self) -> bool:
        """Whether questions are scored after answers, by the channel forms of templates."""

    @property
    def calibrations(self) -> tuple[Calibration, ...]:
        """How the choices are calibrated."""


@dataclass(frozen=True)
class ReferenceLikelihood:
    """Scores all references of each question."""

    name = "references"
    ranks_choices = False
    reverses = False
    calibrations = ()


@dataclass(frozen=True)
class ChoiceLikelihood:
    """Scores all references and choices of each question."""

    content_free: str | list[str] | None
    """The string, or the strings, that replace the question; None for no contextual calibration."""
    domain_texts: int | None = None
    """The number of texts of random words that replace the question; None for no domain-context calibration."""
    seed: Seed = 0
    """The seed of the random words."""
    premise: str | None = None
    """The premise after which choices are scored too; None for no pointwise mutual information."""
    name = "choices"
    ranks_choices = True
    reverses = False

    def __post_init__(self) -> None:
        if self.content_free == []:
            raise ConfigError("content_free=[]: needs at least one string; null for no calibration")
        if self.domain_texts is not None and not 1 <= self.domain_texts <= _MAX_DOMAIN_TEXTS:
            raise ConfigError(
                f"domain_texts={self.domain_texts}: must be 1 to {_MAX_DOMAIN_TEXTS:,}, or null for no calibration"
            )

    @property
    def calibrations(self) -> tuple[Calibration, ...]:
        """The calibrations that the options ask for."""
        found: list[Calibration] = []
        if self.content_free is not None:
            texts = self.content_free if isinstance(self.content_free, str) else tuple(self.content_free)
            found.append(ContentFreeCalibration(texts))
        if self.domain_texts is not None:
            found.append(DomainCalibration(self.domain_texts, self.seed))
        if self.premise is not None:
            found.append(PremiseCalibration(self.premise))
        return tuple(found)


@dataclass(frozen=True)
class ChannelLikelihood:
    """Scores each question after all of its references and choices."""

    name = "channel"
    ranks_choices = True
    reverses = True
    calibrations = ()


class ScoredAnswers(Protocol):
    """What is scored for one question."""

    @property
    def example_id(self) -> str:
        """The id of the question."""

    @property
    def references(self) -> tuple[str, ...]:
        """The correct answers."""

    @property
    def choices(self) -> tuple[str, ...]:
        """The task's choices; empty if they are not scored."""

    @property
    def parts(self) -> tuple[Continuations, ...]:
        """The prompts to score with their continuations."""

    def sum_logprobs(self, scores: "Sequence[ScoredPrompt]", /) -> QuestionLikelihood:
        """Return the likelihoods of the answers from the scores of `parts`."""


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
    calibrations: tuple[CalibratingPrompts, ...] = ()
    """How the choices are calibrated."""

    @property
    def texts(self) -> tuple[str, ...]:
        """References and choices without duplicates."""
        return tuple(dict.fromkeys(self.references + self.choices))

    @property
    def parts(self) -> tuple[Continuations, ...]:
        """Everything to score: the answers after the question, and the choices after each calibrating prompt."""
        return self.after_question, *(prompt for each in self.calibrations for prompt in each.prompts)

    def sum_logprobs(self, scores: "Sequence[ScoredPrompt]") -> QuestionLikelihood:
        """Return the likelihoods of the question's answers from the scores of `parts`."""
        scored = dict(zip(self.texts, zip(scores[0], self.num_bytes, strict=True), strict=True))
        totals = {text: fsum(found.logprobs) for text, (found, _) in scored.items()}
        calibrated, others = {}, iter(scores[1:])
        for each in self.calibrations:
            after_others = [_sum_choices(self.choices, next(others)) for _ in each.prompts]
            calibrated[each.calibration.value] = calibrate({text: totals[text] for text in self.choices}, after_others)
        recipes: dict[str, Any] = {each.calibration.key: each.calibration.recipe for each in self.calibrations}

        def answer(text: str, **values: float) -> AnswerLikelihood:
            found, num_bytes = scored[text]
            known = {"calibrated": None, **values}
            return AnswerLikelihood(
                text, totals[text], len(found.logprobs), num_bytes, is_greedy=found.is_greedy, **known
            )

        return QuestionLikelihood(
            references=tuple(map(answer, self.references)),
            choices=tuple(
                answer(text, **{name: values[text] for name, values in calibrated.items()}) for text in self.choices
            ),
            **{"content_free": None, **recipes},
        )


def _sum_choices(choices: Sequence[str], scores: "ScoredPrompt") -> dict[str, float]:
    return {text: fsum(found.logprobs) for text, found in zip(choices, scores, strict=True)}


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

    def build_all(self, examples: Sequence[Example], built: Sequence[EncodedPrompt]) -> tuple[CandidateAnswers, ...]:
        """Build the answers to score for all questions of a task; raises what `build` does.

        Raises:
            ConfigError: If a calibration needs the same choices for all questions and they differ.
        """
        require_same_choices(self.mode.calibrations, self.prompts.task.name, examples)
        return tuple(map(self.build, examples, built))

    @cached_property
    def _calibrations(self) -> tuple[tuple[Calibration, BuildPrompts], ...]:
        return tuple((each, each.bind(self.prompts)) for each in self.mode.calibrations)

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
        choices, texts = list_answers(self.mode, self.prompts.task, example)
        calibrations = tuple(
            CalibratingPrompts(
                each, tuple(self._encode(example, prompt, choices) for prompt in build_prompts(example, built))
            )
            for each, build_prompts in self._calibrations
        )
        after_question = self._encode(example, built, texts)
        num_bytes = tuple(len(self._continue(example, text).lstrip().encode()) for text in texts)
        return CandidateAnswers(example.id, example.references, choices, after_question, num_bytes, calibrations)

    def _continue(self, example: Example, answer: str) -> str:
        return self.prompts.template.continuation(self.prompts.task, example, answer)

    def _encode(self, example: Example, built: EncodedPrompt, answers: Sequence[str]) -> Continuations:
        texts = {f"answer {answer!r}": self._continue(example, answer) for answer in answers}
        return encode_fitting(self.prompts, self.tokenizer, self.encode, example, built, texts)


def has_room(build: Callable[[Example, EncodedPrompt], object], example: Example, built: EncodedPrompt) -> bool:
    """Return whether all that is scored for a question fits after its prompt.

    Args:
        build: Builds what is scored, as `AnswerBuilder.build` does; its other errors are not caught.
        example: The question.
        built: Its prompt.
    """
    try:
        build(example, built)
    except PromptTooLongError:
        return False
    return True


def list_answers(mode: LikelihoodMode, task: Task, example: Example) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the choices to score for a question, and these and its references without duplicates.

    Raises:
        ConfigError: If choices are to be scored and the question has none.
    """
    choices = example.choices if mode.ranks_choices else ()
    if mode.ranks_choices and not choices:
        raise ConfigError(
            f"likelihood={mode.name}: task '{task.name}' has no choices; define them in its fields.choices, or use "
            "likelihood=references or other tasks"
        )
    return choices, tuple(dict.fromkeys(example.references + choices))


def encode_fitting(
    prompts: PromptBuilder,
    tokenizer: "PreTrainedTokenizerBase",
    encode: EncodeAnswers,
    example: Example,
    built: EncodedPrompt,
    texts: Mapping[str, str],
) -> Continuations:
    """Encode continuations of a prompt, by their names in messages.

    Raises:
        DataError: If a continuation adds no token to the prompt.
        PromptTooLongError: If the prompt and its longest continuation together exceed the model's positions.
    """
    where = f"task '{prompts.task.name}', question {example.id!r}"
    encoded = encode(tokenizer, built, list(texts.values()))
    for name, ids in zip(texts, encoded.texts, strict=True):
        if not ids:
            raise DataError(f"{where}: the {name} adds no token to the prompt")
    context = replace(prompts.context, max_new_tokens=max(map(len, encoded.texts)))
    if excess := context.excess(encoded.context):
        longest = next(iter(texts)).split()[0]
        remedy = "shorten it"
        if prompts.overflow == "stop" and prompts.select(example):
            remedy = "lower num_fewshot, or set overflow=drop to leave out demonstrations"
        raise PromptTooLongError(
            f"{where}: prompt and longest {longest} are {excess} tokens too long for the model's "
            f"{context.positions} positions; {remedy}"
        )
    return encoded


def score_answers(
    runner: Runner, answers: Sequence[ScoredAnswers], wanted: Collection[str]
) -> Iterator[tuple[str, QuestionLikelihood]]:
    """Yield the id and the likelihoods of each wanted question.

    Args:
        runner: Computes the log-probabilities.
        answers: The answers of all of the task's questions. Batches are formed from all of them, so that a resumed run
            gets the same numbers.
        wanted: The ids of the questions that still lack likelihoods.
    """
    requests, places = deduplicate(answers)
    needing: defaultdict[int, list[ScoredAnswers]] = defaultdict(list)
    still_wanted = set(wanted)
    for each in answers:
        if each.example_id in still_wanted:
            for place in set(places[each.example_id]):
                needing[place].append(each)
    scored: dict[int, ScoredPrompt] = {}
    for place, scores in runner.score(requests, needing):
        scored[place] = scores
        for each in needing[place]:
            if scored.keys() >= set(places[each.example_id]):
                yield each.example_id, each.sum_logprobs([scored[part] for part in places[each.example_id]])


def deduplicate(answers: Sequence[ScoredAnswers]) -> tuple[list[Continuations], dict[str, list[int]]]:
    """Return the distinct continuations to score, and the indices of each question's continuations.

    Questions with the same demonstrations and choices share the continuations of calibrating prompts.
    """
    requests: dict[tuple[object, ...], Continuations] = {}
    numbers: dict[tuple[object, ...], int] = {}
    places: defaultdict[str, list[int]] = defaultdict(list)
    for each in answers:
        for part in each.parts:
            key = (part.context.encoder, part.context.decoder, part.texts)
            requests.setdefault(key, part)
            places[each.example_id].append(numbers.setdefault(key, len(numbers)))
    return list(requests.values()), places
