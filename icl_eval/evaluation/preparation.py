"""Preparation: what a run is asked to do, and everything about it that can be known without weights.

Evaluation ── tokenizer, model config ──▶ PreparedEvaluation: placement and prompts of every task
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from icl_eval.decoding.searches import Search
from icl_eval.demonstrations import FewShot, Selection
from icl_eval.errors import ConfigError
from icl_eval.evaluation.answers import AnswerBuilder, AskedLikelihood, CandidateAnswers
from icl_eval.metrics import Metric
from icl_eval.models.loading import ModelCard, ModelSource, read_card
from icl_eval.postprocessing import Postprocessor
from icl_eval.prompts.building import (
    DecoderPlacement,
    EncodedPrompt,
    EncoderPlacement,
    Overflow,
    Placement,
    PromptBuilder,
)
from icl_eval.prompts.chats import Chat, build_chat
from icl_eval.prompts.conventions import Conventions, RequestedConventions, find_conventions
from icl_eval.prompts.templates import ChatTemplate, Template, TextTemplate
from icl_eval.tasks.examples import Example, Task


@dataclass(frozen=True)
class TaskPlan:
    """One task and how it is to be asked and scored."""

    task: Task
    examples: tuple[Example, ...]
    """The examples to evaluate, after any limit."""
    match_field: str | None
    """Where given, a question only sees demonstrations that share its value of this input field."""
    select: Selection
    stop: tuple[str, ...]
    max_new_tokens: int
    """0 where nothing is decoded."""
    postprocess: Postprocessor
    build_metrics: Callable[[], Sequence[Metric]]
    """Builds the metrics; late, because importing `evaluate` takes seconds."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that a run is asked to do."""

    plans: tuple[TaskPlan, ...]
    model: ModelSource
    dtype: str
    device: str
    conventions: RequestedConventions
    template: TextTemplate
    chat: bool
    """Whether the template's wording becomes turns of a conversation."""
    day: date | None
    """What a chat template is told is today; None for today."""
    placement: Placement | None
    """None for what the model's architecture calls for."""
    search: Search
    few_shot: FewShot
    seed: int
    batch_size: int | None
    """None for what fits."""
    prefix_cache_mb: int
    overflow: Overflow
    likelihood: AskedLikelihood | None
    """Which answers are scored by their likelihood; None for none."""
    identity: Mapping[str, Any]
    """The options that decide the records, by name."""
    config: Mapping[str, Any]
    """The whole configuration, for the report."""
    overrides: tuple[str, ...] = ()
    """What was asked for, in the words of the command line, for the report."""


@dataclass(frozen=True)
class PreparedTask:
    """A task with its prompts, in the order of its examples."""

    plan: TaskPlan
    prompts: tuple[EncodedPrompt, ...]
    builder: PromptBuilder
    answers: tuple[CandidateAnswers, ...] = ()
    """What is scored by its likelihood, a part for each prompt; empty where that is not asked for."""


@dataclass(frozen=True)
class PreparedEvaluation:
    """Everything that can be known without weights."""

    card: ModelCard
    conventions: Conventions
    placement: Placement
    tasks: tuple[PreparedTask, ...]


def prepare(evaluation: Evaluation) -> PreparedEvaluation:
    """Build and check the prompts of all tasks, with the model's tokenizer and config alone.

    Raises:
        UserError: When an option does not go with the model, a template with the data, or a prompt does not fit.
    """
    card = read_card(evaluation.model)
    conventions = find_conventions(card, evaluation.conventions)
    placement = _placement(evaluation.placement, card)
    template: Template = evaluation.template
    chat = _open_chat(evaluation, conventions) if evaluation.chat else None
    if chat is not None:
        template = ChatTemplate(evaluation.template, chat)
        conventions = replace(conventions, end_of_turn=chat.end_id)
    else:
        _require_no_chat_options(evaluation)

    def prepare_task(plan: TaskPlan) -> PreparedTask:
        builder = PromptBuilder(
            task=plan.task,
            select=plan.select,
            order=evaluation.few_shot.order,
            template=template,
            placement=placement,
            encode=conventions.encode,
            context=conventions.context(plan.max_new_tokens),
            overflow=evaluation.overflow,
        )
        prompts = tuple(builder.build_all(plan.examples))
        if evaluation.likelihood is None:
            return PreparedTask(plan, prompts, builder)
        answers = AnswerBuilder(evaluation.likelihood, builder, card.tokenizer)
        return PreparedTask(plan, prompts, builder, tuple(map(answers.build, plan.examples, prompts)))

    tasks = tuple(map(prepare_task, evaluation.plans))
    return PreparedEvaluation(card, replace(conventions, day=_day(evaluation, chat)), placement, tasks)


def _open_chat(evaluation: Evaluation, conventions: Conventions) -> Chat:
    if conventions.opening:
        raise ConfigError(f"template=chat: a conversation cannot begin with {conventions.opening!r}")
    card, name = conventions.card, evaluation.conventions.chat_template
    return build_chat(card.tokenizer, card.name, name, evaluation.day)


def _require_no_chat_options(evaluation: Evaluation) -> None:
    """Refuse what only a conversation has."""
    for key, value in (
        ("model.chat_template", evaluation.conventions.chat_template),
        ("template.date", evaluation.day),
    ):
        if value is not None:
            raise ConfigError(f"{key}={value}: prompts are no conversations here; it goes with template=chat")


def _day(evaluation: Evaluation, chat: Chat | None) -> str | None:
    """Return the day that the prompts depend on; None where they depend on none."""
    if chat is None:
        return None
    if evaluation.day is not None and not chat.calendar.was_read:
        raise ConfigError(f"template.date={evaluation.day}: {chat.description} shows no date; leave it out")
    return chat.calendar.day.isoformat() if chat.calendar.was_read else None


def _placement(asked: Placement | None, card: ModelCard) -> Placement:
    has_encoder = card.architecture == "encoder-decoder"
    if asked is None:
        return EncoderPlacement() if has_encoder else DecoderPlacement()
    if asked.uses_encoder != has_encoder:
        allowed = "encoder or split" if has_encoder else "decoder"
        raise ConfigError(f"placement={asked.name}: {card.name} is {card.architecture}; it takes {allowed}")
    return asked
