"""Calibration: what is taken off the log-probability of a choice, so that a bias towards it does not count.

A model may prefer a choice that is likely after any prompt. Each calibration says after which other prompts the choices
are scored; the logarithm of a choice's mean probability after them is subtracted:

    content_free   the prompt with a content-free string such as "N/A" as its question, or with several of them
                   (contextual calibration: Zhao et al., 2021, arXiv:2102.09690, whose diagonal matrix divides by these
                   probabilities and who average over "N/A", "[MASK]" and an empty string)
    domain_texts   the prompt with random words of the task's own questions in the place of the question
                   (domain-context calibration: Fei et al., 2023, arXiv:2305.19148, who average over 20 such texts)
    premise        a bare premise, without instruction, demonstrations and question (PMI_DC, the pointwise mutual
                   information of question and choice given the domain: Holtzman et al., 2021, arXiv:2104.08315)

Probabilities are those of whole answers, and averaged as they are. To divide each prompt's probabilities by their sum
over the choices before, as batch calibration does (`icl_eval.metrics.likelihood`), would give all prompts equal weight.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, fsum, log
from typing import Protocol

from icl_eval.errors import ConfigError
from icl_eval.prompts.building import EncodedPrompt, PromptBuilder
from icl_eval.prompts.tokenization import Continuations
from icl_eval.tasks.examples import Example

BuildPrompts = Callable[[Example, EncodedPrompt], Sequence[EncodedPrompt]]
"""Builds the prompts that calibrate the choices of a question, from the question and its own prompt."""


class Calibration(Protocol):
    """Decides after which prompts the choices are scored to remove a bias."""

    @property
    def key(self) -> str:
        """The option of `likelihood=choices` that asks for it, and the field of records that holds `recipe`."""

    @property
    def value(self) -> str:
        """The field of a choice in records that holds the calibrated log-probability."""

    @property
    def recipe(self) -> str | int | tuple[str, ...]:
        """The value of the option."""

    @property
    def needs_same_choices(self) -> bool:
        """Whether all questions must have the same choices."""

    def bind(self, prompts: PromptBuilder) -> BuildPrompts:
        """Return the function that builds the prompts for the questions of a task.

        Raises:
            ConfigError: If the calibration is not applicable to the task.
        """


@dataclass(frozen=True)
class ContentFreeCalibration:
    """The question replaced by content-free strings."""

    texts: str | tuple[str, ...]

    key = "content_free"
    value = "calibrated"
    needs_same_choices = False

    @property
    def recipe(self) -> str | tuple[str, ...]:
        """The string or the strings."""
        return self.texts

    def bind(self, prompts: PromptBuilder) -> BuildPrompts:
        """Return the function that builds the prompts; it raises ConfigError if a question has no field `question`."""
        texts = (self.texts,) if isinstance(self.texts, str) else self.texts

        def build(example: Example, built: EncodedPrompt) -> list[EncodedPrompt]:
            if "question" not in example.inputs:
                known = ", ".join(sorted(example.inputs))
                raise ConfigError(
                    f"likelihood.content_free={texts[0]}: replaces the field 'question', which task "
                    f"'{prompts.task.name}' does not have (it has: {known}); set it to null"
                )
            return [prompts.rebuild(example, built, _with_inputs(example, {"question": text})) for text in texts]

        return build


@dataclass(frozen=True)
class DomainCalibration:
    """Every field that the template shows of a question replaced by random words of that field."""

    num_texts: int
    seed: int

    key = "domain_texts"
    value = "domain"
    needs_same_choices = True

    @property
    def recipe(self) -> int:
        """The number of texts."""
        return self.num_texts

    def bind(self, prompts: PromptBuilder) -> BuildPrompts:
        """Return the function that builds the prompts; raises ConfigError if the template shows no field."""
        examples, names = prompts.task.examples, prompts.template.question_names
        fields = sorted({field for example in examples for field in example.inputs} & names)
        if not fields:
            raise ConfigError(
                f"likelihood.domain_texts={self.num_texts}: replaces what template '{prompts.template.name}' shows of "
                f"a question, and it shows no field of task '{prompts.task.name}'; set it to null"
            )
        drawn = {
            field: draw_texts(field, [example.inputs[field] for example in examples], self.num_texts, self.seed)
            for field in fields
        }
        texts = [{field: drawn[field][number] for field in fields} for number in range(self.num_texts)]
        return lambda example, built: [prompts.rebuild(example, built, _with_inputs(example, own)) for own in texts]


@dataclass(frozen=True)
class PremiseCalibration:
    """A bare premise in the place of the whole prompt."""

    premise: str

    key = "premise"
    value = "pmi"
    needs_same_choices = False

    @property
    def recipe(self) -> str:
        """The premise."""
        return self.premise

    def bind(self, prompts: PromptBuilder) -> BuildPrompts:
        """Return the function that builds the prompt."""
        return lambda example, built: [prompts.build_bare(example, self.premise)]


@dataclass(frozen=True)
class CalibratingPrompts:
    """The prompts of a calibration for one question, with its choices as their continuations."""

    calibration: Calibration
    prompts: tuple[Continuations, ...]
    """For each prompt, the continuations in the order of the choices."""


def _with_inputs(example: Example, inputs: Mapping[str, str]) -> Example:
    return replace(example, inputs={**example.inputs, **inputs})


def draw_texts(field: str, texts: Sequence[str], count: int, seed: int) -> list[str]:
    """Return texts of random words from given texts, each as long as these are on average.

    A word is drawn as often as it occurs, with replacement; words are what white space separates. Neither the order of
    the texts nor `count` changes a word.

    Args:
        field: The name of the field that the texts are from; every field has draws of its own.
        texts: The texts of the field.
        count: How many texts to draw.
        seed: The seed of the draws.
    """
    words = sorted(word for text in texts for word in text.split())
    length = max(1, len(words) // len(texts))

    def draw_word(number: int, position: int) -> str:
        place = hashlib.sha256(f"{seed}\0domain\0{field}\0{number}\0{position}".encode()).digest()
        return words[int.from_bytes(place, "big") % len(words)]

    return [" ".join(draw_word(number, position) for position in range(length)) for number in range(count)]


def require_same_choices(calibrations: Sequence[Calibration], task: str, examples: Sequence[Example]) -> None:
    """Raise ConfigError if a calibration needs the same choices for all questions and they differ."""
    needing = next((each for each in calibrations if each.needs_same_choices), None)
    if needing is None:
        return
    first = examples[0]
    other = next((each for each in examples if set(each.choices) != set(first.choices)), None)
    if other is not None:
        raise ConfigError(
            f"likelihood.{needing.key}={needing.recipe}: estimates the bias towards choices that all questions share, "
            f"and those of task '{task}' differ ({first.id!r}: {list(first.choices)}; {other.id!r}: "
            f"{list(other.choices)}); use likelihood.content_free or likelihood.premise"
        )


def calibrate(logprobs: Mapping[str, float], after_others: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return calibrated log-probabilities: those after the question minus the logarithm of the mean probability.

    Args:
        logprobs: The log-probability of each choice after the question.
        after_others: The same after each calibrating prompt.
    """
    return {text: value - log_mean([other[text] for other in after_others]) for text, value in logprobs.items()}


def log_mean(logprobs: Sequence[float]) -> float:
    """Return the logarithm of the mean of probabilities that are given by their logarithms."""
    highest = max(logprobs)
    return highest + log(fsum(exp(each - highest) for each in logprobs) / len(logprobs))
