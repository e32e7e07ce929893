"""Subjects: what a trace follows, a prompt as the user wrote it or one question of a task with its demonstrations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from icl_eval.commands.trace.tracer import Limits
from icl_eval.config.free_prompts import open_prompts
from icl_eval.config.options import build_search
from icl_eval.config.schema import ModelOptions, TraceConfig
from icl_eval.decoding.searches import Greedy, Sample, Search
from icl_eval.errors import ConfigError
from icl_eval.evaluation.preparation import Evaluation, TaskPlan, prepare
from icl_eval.models.loading import LanguageModel, load_model
from icl_eval.postprocessing import Postprocessor
from icl_eval.prompts.building import EncodedPrompt, PromptBuilder
from icl_eval.prompts.tokenization import Continuations, encode_continuations
from icl_eval.tasks.examples import Example

_OF_A_PROMPT = {"prompt", "runners_up", *(field.name for field in fields(ModelOptions))}
"""The keys that mean something for a prompt without a task."""


@dataclass(frozen=True)
class Question:
    """A question of a task, and how its prompt came about."""

    example: Example
    builder: PromptBuilder
    tokenizer: PreTrainedTokenizerBase
    """The one that the prompt was encoded with, which knows its languages."""
    template: str
    placement: str
    postprocess: Postprocessor

    def encode_answer(self, prompt: EncodedPrompt) -> Continuations:
        """Return the tokens of the first reference as it follows a prompt."""
        template, task = self.builder.template, self.builder.task
        answer = template.continuation(task, self.example, self.example.references[0])
        return encode_continuations(self.tokenizer, prompt, [answer])


@dataclass(frozen=True)
class TraceSubject:
    """What is to be followed."""

    model: LanguageModel
    prompt: EncodedPrompt
    limits: Limits
    search: Greedy | Sample
    settings: Mapping[str, Any]
    """What else `generate` would be told."""
    question: Question | None
    """None for a prompt of the user's own."""
    text: str = ""
    """That prompt, before a task prefix opens it."""

    @property
    def written(self) -> dict[str, str]:
        """What the user wrote, by field."""
        if self.question:
            return dict(self.question.example.inputs)
        return {"prompt": self.text}


def free_subject(config: TraceConfig, text: str, given: Sequence[str]) -> TraceSubject:
    """Return the subject of a prompt: read by the encoder, or gone on from by a decoder-only model.

    Args:
        config: The command's options.
        text: The prompt.
        given: The names of the keys that the user has set.

    Raises:
        UserError: When an option is impossible, means nothing without a task, or the prompt does not fit.
    """
    for key in given:
        if key not in _OF_A_PROMPT:
            raise ConfigError(
                f"{key}: means nothing for a prompt of your own, which no template and no demonstration goes with; "
                f"leave out {key}, or leave out prompt to follow a question of a task"
            )
    search = _by_token(build_search(config.decoding))
    opened = open_prompts(config, search, [text])
    limits = Limits(opened.max_new_tokens, tuple(search.stop or ()))
    return TraceSubject(opened.model, opened.encoded[0], limits, search, opened.conventions.settings, None, text)


def question_subject(evaluation: Evaluation, example_id: str | None) -> TraceSubject:
    """Return the subject of one question of an evaluation's only task.

    Raises:
        UserError: When there are more tasks, no such question, or the evaluation itself would refuse.
    """
    if len(evaluation.plans) != 1:
        names = ", ".join(plan.task.name for plan in evaluation.plans)
        raise ConfigError(
            f"trace: one question is followed; give prompt=…, or one task, such as "
            f"task={evaluation.plans[0].task.name} (there are: {names})"
        )
    search = _by_token(evaluation.search)
    plan = evaluation.plans[0]
    if plan.max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens={plan.max_new_tokens}: a trace follows new tokens; must be 1 or more")
    example = _find(plan, example_id)
    prepared = prepare(replace(evaluation, plans=(replace(plan, examples=(example,)),)))
    task = prepared.tasks[0]
    model = load_model(evaluation.model, evaluation.dtype, evaluation.device)
    question = Question(
        example,
        task.builder,
        prepared.card.tokenizer,
        evaluation.template.name,
        prepared.placement.name,
        plan.postprocess,
    )
    limits = Limits(plan.max_new_tokens, plan.stop)
    return TraceSubject(model, task.prompts[0], limits, search, prepared.conventions.settings, question)


def _by_token(search: Search) -> Greedy | Sample:
    if not isinstance(search, Greedy | Sample):
        raise ConfigError(f"decoding={search.name}: a trace follows one token at a time; use greedy or sample")
    return search


def _find(plan: TaskPlan, example_id: str | None) -> Example:
    if example_id is None:
        return plan.examples[0]
    for example in plan.examples:
        if example.id == example_id:
            return example
    raise ConfigError(
        f"example={example_id}: task '{plan.task.name}' has no such question "
        f"(it has {len(plan.examples)}, such as {plan.examples[0].id!r})"
    )
