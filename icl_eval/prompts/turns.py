"""Turns: a text template as the turns of a conversation (`template.chat=true`).

The tokenizer's chat template renders the turns; `chats` makes sure that it loses none of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from icl_eval.errors import ConfigError
from icl_eval.prompts.templates import TextBlocks
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

ApplyChatTemplate = Callable[[list[dict[str, str]]], str]
"""Renders messages (`{"role": …, "content": …}`) up to the opening of the assistant's turn."""


@dataclass(frozen=True)
class ChatBlocks:
    """A conversation in which demonstrations are earlier turns of the user and the assistant."""

    messages: tuple[Mapping[str, str], ...]
    apply_chat_template: ApplyChatTemplate

    def everything(self) -> str:
        """Return the conversation, rendered with the tokenizer's chat template."""
        return self.apply_chat_template([dict(message) for message in self.messages])

    def examples_after_question(self) -> str:
        """Return the conversation unchanged: its turns have only one order."""
        return self.everything()

    def split(self) -> tuple[str, str]:
        """Raise ConfigError: a chat template renders a conversation only as a whole."""
        raise ConfigError("template: a chat template cannot be split; use placement=encoder or decoder")


class Wording(Protocol):
    """A template whose demonstrations are pairs of turns: `TextTemplate`, or its channel form."""

    @property
    def name(self) -> str:
        """The name of the template in reports."""

    @property
    def demonstration(self) -> str | None:
        """A whole demonstration; None if it is a pair."""

    @property
    def question_first(self) -> bool:
        """Whether the question precedes the demonstrations in an encoder."""

    @property
    def question_names(self) -> frozenset[str]:
        """The names that the question string uses."""

    @property
    def demonstration_names(self) -> frozenset[str]:
        """The names that the demonstration strings use."""

    def render(self, task: Task, demonstrations: Sequence[Example], example: Example) -> TextBlocks:
        """Render the blocks of one prompt."""

    def continuation(self, task: Task, example: Example, answer: str) -> str:
        """Return what is scored of an answer."""

    def turn(self, task: Task, example: Example) -> tuple[str, str]:
        """Return the two sides of a demonstration, without surrounding whitespace."""


@dataclass(frozen=True)
class ChatTemplate:
    """A text template rendered as turns of a conversation, for models tuned on a chat format.

    The instruction opens the first user turn, because not every chat format has a system role.
    """

    wording: Wording
    apply_chat_template: ApplyChatTemplate
    is_chat = True

    def __post_init__(self) -> None:
        if self.wording.demonstration is not None or self.wording.question_first:
            raise ConfigError(
                "template.chat: in a conversation a demonstration is a question and an answer, and the question comes "
                "last; use a template without 'demonstration' and 'question_first' ('rationale' opens the answer)"
            )

    def render(self, task: Task, demonstrations: Sequence[Example], example: Example) -> ChatBlocks:
        """Render the turns of one prompt; the last is a user turn."""
        turns = []
        for shown in demonstrations:
            if not shown.references:
                raise ConfigError(
                    "control=no_targets: in a conversation every question needs an answer; use a template without "
                    "'chat'"
                )
            question, answer = self.wording.turn(task, shown)
            turns += [("user", question), ("assistant", answer)]
        blocks = self.wording.render(task, (), example)
        turns.append(("user", blocks.question.strip()))
        if blocks.instruction:
            turns[0] = ("user", blocks.instruction + blocks.separator + turns[0][1])
        messages = tuple({"role": role, "content": content} for role, content in turns)
        return ChatBlocks(messages, self.apply_chat_template)

    def bare(self, text: str) -> ChatBlocks:
        """Return a text as the only turn, the user's."""
        return ChatBlocks(({"role": "user", "content": text.strip()},), self.apply_chat_template)

    def continuation(self, task: Task, example: Example, answer: str) -> str:
        """Return an answer as the content of an assistant turn."""
        return self.wording.continuation(task, example, answer).strip()

    @property
    def name(self) -> str:
        """The name of the template in reports."""
        return self.wording.name

    @property
    def question_names(self) -> frozenset[str]:
        """The names that the question string uses."""
        return self.wording.question_names

    @property
    def demonstration_names(self) -> frozenset[str]:
        """The names that the demonstration strings use."""
        return self.wording.demonstration_names
