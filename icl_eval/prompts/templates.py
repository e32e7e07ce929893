"""Templates: how an instruction, a demonstration and a question read. Where they go is decided elsewhere.

A rendered template is a set of blocks that stay apart until a placement joins them, so that a demonstration
can be left out again, and so that an encoder-decoder model can be given some blocks on one side and some on
the other:

    Translate from English to Spanish.      instruction
                                            separator
    English: Good night.                    demonstration (question and answer)
    Spanish: Buenas noches.
                                            separator
    English: The book is on the table.      question
    Spanish:
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import jinja2
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from icl_eval.errors import ConfigError
from icl_eval.prompts.styles import Style, draw_style
from icl_eval.tasks.examples import Example, Task
from icl_eval.tasks.sandbox import bounded, render, require_whole

ApplyChatTemplate = Callable[[list[dict[str, str]]], str]
"""Renders messages (`{"role": …, "content": …}`) and ends with the opening of the assistant's turn."""

_ENVIRONMENT = bounded(ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True))
_SHOWN = 200
"""How many characters of a text that is not accepted its message shows."""


class Blocks(Protocol):
    """The parts of one rendered prompt."""

    def everything(self) -> str:
        """Return all parts as one text that ends where the answer is to begin."""

    def examples_after_question(self) -> str:
        """Return all parts as one text for an encoder, in the order the template asks for there."""

    def split(self) -> tuple[str, str]:
        """Return the instruction, and apart from it the demonstrations and the question."""


class Template(Protocol):
    """Renders a task's wording."""

    @property
    def is_chat(self) -> bool:
        """Whether the text is a conversation, with all special tokens written out."""

    def render(self, task: Task, demonstrations: Sequence[Example], example: Example) -> Blocks:
        """Render one prompt's parts."""

    def continuation(self, task: Task, example: Example, answer: str) -> str:
        """Return what follows a prompt that is answered, as it follows the question of a demonstration."""

    @property
    def question_names(self) -> set[str]:
        """The names that a question's text uses."""

    @property
    def demonstration_names(self) -> set[str]:
        """The names that a demonstration's texts use."""


@dataclass(frozen=True)
class TextBlocks:
    """Parts that are joined by a separator."""

    instruction: str
    demonstrations: tuple[str, ...]
    question: str
    separator: str
    question_first: bool

    def everything(self) -> str:
        """Return instruction, demonstrations and question."""
        return self._join(self.instruction, *self.demonstrations, self.question)

    def examples_after_question(self) -> str:
        """Return the same, with the question before the demonstrations where the template says so."""
        if not self.question_first:
            return self.everything()
        return self._join(self.instruction, self.question, *self.demonstrations)

    def split(self) -> tuple[str, str]:
        """Return the instruction, and the demonstrations with the question."""
        return self.instruction, self._join(*self.demonstrations, self.question)

    def _join(self, *parts: str) -> str:
        return self.separator.join(part for part in parts if part)


@dataclass(frozen=True)
class TextTemplate:
    """Wording as Jinja texts.

    They see the row's fields, `instruction` and `labels` (the task's; a row's own field of that name comes
    first) and, in `answer` and `demonstration`, the first reference as `answer`; of a template with variants also
    the drawn `style`. A name that does not exist is an error. What a row contains is inserted as it is and never
    expanded.
    """

    instruction: str
    """The block at the very beginning; empty for none."""
    question: str
    """A question, up to where its answer begins. Spaces at its end go to the answer: see `render`."""
    answer: str
    """What follows the question in a demonstration, with the white space before it."""
    demonstration: str | None
    """A whole demonstration, where it does not read as the question followed by the answer."""
    separator: str
    """Between any two blocks."""
    question_first: bool
    """In an encoder, the question precedes the demonstrations. A decoder goes on from the question, so
    there it is always last."""
    name: str = "template"
    variant: int | None = None
    """Which form the texts' `style` has; None for a template without variants."""
    _compiled: dict[str, jinja2.Template] = field(init=False, repr=False, default_factory=dict)
    _names: dict[str, set[str]] = field(init=False, repr=False, default_factory=dict)
    _style: dict[str, Style] = field(init=False, repr=False, default_factory=dict)
    is_chat = False

    def __post_init__(self) -> None:
        for part in ("instruction", "question", "answer", "demonstration", "separator"):
            text = getattr(self, part) or ""
            try:
                require_whole(text)
                self._names[part] = find_undeclared_variables(_ENVIRONMENT.parse(text))
                self._compiled[part] = _ENVIRONMENT.from_string(text)
            except Exception as error:  # what nests too deeply for Python is none of Jinja's errors
                raise ConfigError(f"template.{part}: {error} (in {_shortened(text)!r})") from None
        if self.variant is not None:
            if "style" not in set().union(*self._names.values()):
                raise ConfigError(
                    f"template.variant={self.variant}: template '{self.name}' has no variants, since none of its "
                    "texts uses 'style'; template=varied has"
                )
            self._style["style"] = draw_style(self.variant)

    def render(self, task: Task, demonstrations: Sequence[Example], example: Example) -> TextBlocks:
        """Render one prompt's parts.

        The question loses the spaces at its end: a prompt that ends in a space asks a model for a token
        that its tokenizer would never put there, since the space belongs to the next word.

        Raises:
            ConfigError: When the template uses a name that a row does not have.
        """
        return TextBlocks(
            instruction=self._part("instruction", task, example),
            demonstrations=tuple(self._demonstration(task, shown) for shown in demonstrations),
            question=self._part("question", task, example).rstrip(" "),
            separator=self._part("separator", task, example),
            question_first=self.question_first,
        )

    def continuation(self, task: Task, example: Example, answer: str) -> str:
        """Return an answer with the white space before it, the spaces that the question has lost included."""
        question = self._part("question", task, example)
        return question[len(question.rstrip(" ")) :] + self._part("answer", task, example, answer=answer)

    @property
    def question_names(self) -> set[str]:
        """The names that a question's text uses."""
        return self._names["question"]

    @property
    def demonstration_names(self) -> set[str]:
        """The names that a demonstration's texts use."""
        if self.demonstration is not None:
            return self._names["demonstration"]
        return self._names["question"] | self._names["answer"]

    def turn(self, task: Task, example: Example) -> tuple[str, str]:
        """Return the question and the answer of a demonstration, apart and without outer white space."""
        question = self._part("question", task, example)
        answer = self._part("answer", task, example, answer=example.references[0])
        return question.strip(), answer.strip()

    def _demonstration(self, task: Task, shown: Example) -> str:
        if not shown.references:
            return self._without_answer(task, shown).rstrip(" ")
        answer = shown.references[0]
        if self.demonstration is not None:
            return self._part("demonstration", task, shown, answer=answer)
        return self._part("question", task, shown) + self._part("answer", task, shown, answer=answer)

    def _without_answer(self, task: Task, shown: Example) -> str:
        if self.demonstration is not None:
            return self._part("demonstration", task, shown, answer="")
        return self._part("question", task, shown)

    def _part(self, part: str, task: Task, example: Example, **more: str) -> str:
        known: Mapping[str, Any] = {
            "instruction": task.instruction,
            "labels": task.labels,
            **self._style,
            **example.inputs,
            **more,
        }
        try:
            return render(self._compiled[part], known)
        except Exception as error:  # a template runs user-written expressions
            reason, names = str(error).rstrip("."), ", ".join(sorted(known))
            raise ConfigError(
                f"template '{self.name}': {part}: {reason}, for example {example.id!r} of task "
                f"'{task.name}' (it can use: {names})"
            ) from None


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


@dataclass(frozen=True)
class ChatBlocks:
    """A conversation: demonstrations are earlier turns of the user and the assistant."""

    messages: tuple[Mapping[str, str], ...]
    apply_chat_template: ApplyChatTemplate

    def everything(self) -> str:
        """Return the conversation as the tokenizer's own chat template renders it."""
        return self.apply_chat_template([dict(message) for message in self.messages])

    def examples_after_question(self) -> str:
        """Return the same text: a conversation has only one order."""
        return self.everything()

    def split(self) -> tuple[str, str]:
        """Raise, since a chat template renders a conversation whole."""
        raise ConfigError("template: a chat template cannot be split; use placement=encoder or decoder")


@dataclass(frozen=True)
class ChatTemplate:
    """The same wording as turns of a conversation, for models tuned on a chat format.

    The instruction opens the first user turn, since not every chat format has a system role.
    """

    wording: TextTemplate
    apply_chat_template: ApplyChatTemplate
    is_chat = True

    def __post_init__(self) -> None:
        if self.wording.demonstration is not None or self.wording.question_first:
            raise ConfigError(
                "template.chat: a demonstration is a question and an answer, and the question comes last; "
                "take a template without 'demonstration' and 'question_first'"
            )

    def render(self, task: Task, demonstrations: Sequence[Example], example: Example) -> ChatBlocks:
        """Render one prompt's turns; the last is the user's."""
        turns = []
        for shown in demonstrations:
            if not shown.references:
                raise ConfigError(
                    "control=no_targets: in a conversation every question has an answer; take a template without 'chat'"
                )
            question, answer = self.wording.turn(task, shown)
            turns += [("user", question), ("assistant", answer)]
        blocks = self.wording.render(task, (), example)
        turns.append(("user", blocks.question.strip()))
        if blocks.instruction:
            turns[0] = ("user", blocks.instruction + blocks.separator + turns[0][1])
        messages = tuple({"role": role, "content": content} for role, content in turns)
        return ChatBlocks(messages, self.apply_chat_template)

    def continuation(self, task: Task, example: Example, answer: str) -> str:
        """Return an answer as the assistant's turn holds it."""
        return self.wording.continuation(task, example, answer).strip()

    @property
    def question_names(self) -> set[str]:
        """The names that a question's text uses."""
        return self.wording.question_names

    @property
    def demonstration_names(self) -> set[str]:
        """The names that a demonstration's texts use."""
        return self.wording.demonstration_names
