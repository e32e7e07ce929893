"""Define an evaluation, and prepare everything that does not need the model's weights.

Evaluation ── tokenizer, model config ──▶ PreparedEvaluation: placement and prompts of every task
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import Any, Protocol, Self

from icl_eval.decoding.engines import Engine
from icl_eval.decoding.engines.interface import require_able
from icl_eval.decoding.searches import Search
from icl_eval.demonstrations import FewShot, Selection
from icl_eval.demonstrations.encoder import Encoder
from icl_eval.errors import ConfigError
from icl_eval.evaluation.answers import (
    AnswerBuilder,
    EncodeAnswers,
    LikelihoodMode,
    ScoredAnswers,
    has_room,
    list_answers,
)
from icl_eval.evaluation.channel import ChannelBuilder
from icl_eval.metrics import Metric
from icl_eval.metrics.measurements import RecordMetrics
from icl_eval.metrics.postprocessing import Postprocessor
from icl_eval.models.cards import ModelCard
from icl_eval.models.loading import ModelSource, find_card
from icl_eval.prompts.building import (
    DecoderPlacement,
    EncodedPrompt,
    EncoderPlacement,
    Overflow,
    Placement,
    PromptBuilder,
)
from icl_eval.prompts.chat_templates import name_chat_template
from icl_eval.prompts.chats import Chat, build_chat
from icl_eval.prompts.conventions import Conventions, RequestedConventions, find_conventions
from icl_eval.prompts.templates import Template, TextTemplate
from icl_eval.prompts.tokenization import encode_continuations
from icl_eval.prompts.turns import ChatTemplate
from icl_eval.runs.reports import GroupResult, TaskResult
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task


@dataclass(frozen=True)
class TaskPlan:
    """One task and how it is prompted and scored."""

    task: Task
    examples: tuple[Example, ...]
    """The examples to evaluate, after any limit."""
    match_field: str | None
    """If set, a prompt only shows demonstrations with the question's own value of this input field."""
    template: Template
    few_shot: FewShot
    select: Selection
    """The demonstrations that `few_shot` shows, by question."""
    stop: tuple[str, ...]
    max_new_tokens: int
    """The limit on a completion's tokens; 0 if nothing is decoded."""
    postprocess: Postprocessor
    build_metrics: Callable[[], Sequence[Metric]]
    """Builds the metrics when they are needed, because importing `evaluate` takes seconds."""
    likelihood: LikelihoodMode | None = None
    """Which answers are scored by their likelihood; None to score no answers."""
    encode_answers: EncodeAnswers = encode_continuations
    """Encodes the answers whose likelihood is scored."""
    record_metrics: RecordMetrics | None = None
    """Metrics of whole records, in addition to those of predictions."""


class TaskGroup(Protocol):
    """Tasks whose scores are also reported as one."""

    @property
    def name(self) -> str:
        """The name of the group."""

    def aggregate(self, results: Mapping[str, TaskResult]) -> GroupResult | None:
        """Return the scores of the group from the results of all tasks; None if it has no scores."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that defines a run."""

    plans: tuple[TaskPlan, ...]
    groups: tuple[TaskGroup, ...]
    engine: Engine
    """What runs the model."""
    model: ModelSource
    conventions: RequestedConventions
    chat: bool
    """Whether prompts are rendered as the turns of a conversation."""
    day: date | None
    """The current date as a chat template sees it; None for the actual date."""
    placement: Placement | None
    """The placement of prompts; None for the default of the model's architecture."""
    search: Search
    seed: int
    overflow: Overflow
    identity: Mapping[str, Any]
    """The options that determine the records, by name."""
    config: Mapping[str, Any]
    """The whole configuration, for the report."""
    overrides: tuple[str, ...] = ()
    """The overrides as typed on the command line, for the report."""

    @property
    def asks_likelihoods(self) -> bool:
        """Whether answers are scored by their likelihood."""
        return any(plan.likelihood is not None for plan in self.plans)

    @property
    def encoder(self) -> Encoder | None:
        """The encoder of the strategy that selects demonstrations; None if the strategy embeds nothing."""
        return next(filter(None, (plan.few_shot.selector.encoder for plan in self.plans)), None)


@dataclass(frozen=True)
class PreparedTask:
    """A task with its prompts, in the order of its examples."""

    plan: TaskPlan
    prompts: tuple[EncodedPrompt, ...]
    builder: PromptBuilder
    answers: tuple[ScoredAnswers, ...] = ()
    """The answers to score for each prompt; empty if no likelihoods are computed."""


@dataclass(frozen=True)
class PreparedEvaluation:
    """The part of an evaluation that does not need the model's weights."""

    card: ModelCard
    conventions: Conventions
    placement: Placement
    tasks: tuple[PreparedTask, ...]

    def without_prompts(self) -> Self:
        """Return the same without what takes most of the memory, prompts and answers."""
        return replace(self, tasks=tuple(replace(task, prompts=(), answers=()) for task in self.tasks))


def prepare(evaluation: Evaluation) -> PreparedEvaluation:
    """Build and check the prompts of all tasks, using only the model's tokenizer and config.

    Raises:
        UserError: If an option does not suit the model, the template does not suit the data, or a prompt is too long.
    """
    for plan in evaluation.plans:
        _try_wording(plan, evaluation.chat)  # before the imports that reading a model's card takes
    conventions = find_conventions(evaluation.engine.adapt(find_card(evaluation.model)), evaluation.conventions)
    card = conventions.card
    require_able(
        evaluation.engine,
        evaluation.model,
        conventions,
        evaluation.search,
        is_chat=evaluation.chat,
        asks_likelihoods=evaluation.asks_likelihoods,
    )
    placement = _choose_placement(evaluation.placement, card)
    chat = _open_chat(evaluation, conventions) if evaluation.chat else None
    if chat is not None:
        conventions = replace(conventions, end_of_turn=chat.end_id)
    else:
        _require_no_chat_options(evaluation)

    def prepare_task(plan: TaskPlan) -> PreparedTask:
        template = plan.template if chat is None else _word_as_chat(plan, chat)
        builder = PromptBuilder(
            task=plan.task,
            select=plan.select,
            order=plan.few_shot.order,
            template=template,
            placement=placement,
            encode=conventions.encode,
            context=conventions.context(plan.max_new_tokens),
            overflow=evaluation.overflow,
        )
        if plan.likelihood is None:
            return PreparedTask(plan, tuple(builder.build_all(plan.examples)), builder)
        kind = ChannelBuilder if plan.likelihood.reverses else AnswerBuilder
        answers = kind(plan.likelihood, builder, card.tokenizer, plan.encode_answers)
        prompts = tuple(builder.build_all(plan.examples, partial(has_room, answers.build)))
        return PreparedTask(plan, prompts, builder, answers.build_all(plan.examples, prompts))

    tasks = tuple(map(prepare_task, evaluation.plans))
    return PreparedEvaluation(card, replace(conventions, day=_find_day(evaluation, chat)), placement, tasks)


def _try_wording(plan: TaskPlan, is_chat: bool) -> None:
    """Word the first question; raises UserError if the template or the likelihood do not suit it.

    Demonstrations are left out where they take an encoder, which is imported and loaded, and in a conversation, which
    has other forms of them.
    """
    example = plan.examples[0]
    shown = [] if is_chat or plan.few_shot.selector.encoder else plan.select(example)
    plan.template.render(plan.task, [each.example for each in shown], example)
    if plan.likelihood is not None:
        list_answers(plan.likelihood, plan.task, example)


def _word_as_chat(plan: TaskPlan, chat: Chat) -> ChatTemplate:
    if not isinstance(plan.template, TextTemplate):
        raise ConfigError(f"template.chat: template '{plan.template.name}' has no turns; choose another template")
    return ChatTemplate(plan.template, chat)


def _open_chat(evaluation: Evaluation, conventions: Conventions) -> Chat:
    if conventions.opening:
        raise ConfigError(f"template=chat: a conversation cannot begin with {conventions.opening!r}")
    card, name = conventions.card, evaluation.conventions.chat_template
    return build_chat(card.tokenizer, card.name, name, evaluation.day)


def _require_no_chat_options(evaluation: Evaluation) -> None:
    """Reject options that only apply to conversations."""
    for key, value in (
        ("model.chat_template", name_chat_template(evaluation.conventions.chat_template)),
        ("template.date", evaluation.day),
    ):
        if value is not None:
            raise ConfigError(f"{key}={value}: requires prompts that are conversations (template=chat)")


def _find_day(evaluation: Evaluation, chat: Chat | None) -> str | None:
    """Return the date that appears in the prompts; None if they show no date."""
    if chat is None:
        return None
    if evaluation.day is not None and not chat.calendar.was_read:
        raise ConfigError(f"template.date={evaluation.day}: {chat.description} shows no date; leave it out")
    return chat.calendar.day.isoformat() if chat.calendar.was_read else None


def _choose_placement(requested: Placement | None, card: ModelCard) -> Placement:
    has_encoder = card.architecture == "encoder-decoder"
    if requested is None:
        return EncoderPlacement() if has_encoder else DecoderPlacement()
    if requested.uses_encoder != has_encoder:
        allowed = "encoder or split" if has_encoder else "decoder"
        raise ConfigError(
            f"placement={requested.name}: must be {allowed} for {card.name}, which is {card.architecture}"
        )
    return requested
