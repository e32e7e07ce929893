"""Templates: the wording of instructions, demonstrations and questions.

A rendered template is a set of separate blocks that a placement joins later. This makes it possible to drop a
demonstration, and to give an encoder-decoder model some blocks on one side and the rest on the other:

    Translate from English to Spanish.      instruction
                                            separator
    English: Good night.                    demonstration (question and answer)
    Spanish: Buenas noches.
                                            separator
    English: The book is on the table.      question
    Spanish:
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import jinja2
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from icl_eval.errors import ConfigError
from icl_eval.formatting import list_names
from icl_eval.prompts.styles import Style, draw_style
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task
from icl_eval.tasks.sandbox import bound_environment, render, require_valid_unicode

_ENVIRONMENT = bound_environment(
    ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
)
_KEPT = 1024
"""The number of rendered strings that a template keeps."""
_SHOWN = 200
"""Maximum number of characters of an invalid string that an error message shows."""


class Blocks(Protocol):
    """The parts of one rendered prompt."""

    @property
    def messages(self) -> tuple[Mapping[str, str], ...]:
        """The turns of a conversation; empty if the prompt is none."""

    def everything(self) -> str:
        """Return all blocks as one string that ends where the answer begins."""

    def examples_after_question(self) -> str:
        """Return all blocks as one string for an encoder, in the order that the template prescribes for encoders."""

    def split(self) -> tuple[str, str]:
        """Return the instruction as one string, and the demonstrations with the question as another."""


class Template(Protocol):
    """Renders a task's wording."""

    @property
    def name(self) -> str:
        """The name of the template in reports."""

    @property
    def is_chat(self) -> bool:
        """Whether the output is a rendered conversation that already contains all its special tokens."""

    def render(self, task: Task, demonstrations: Sequence[Example], example: Example) -> Blocks:
        """Render the blocks of one prompt."""

    def bare(self, text: str) -> Blocks:
        """Return the blocks of a prompt that is nothing but a text, without trailing spaces."""

    def continuation(self, task: Task, example: Example, answer: str) -> str:
        """Return an answer as the continuation of a prompt, formatted like the answer of a demonstration.

        Raises:
            ConfigError: If the continuation would contain more of the example than the answer.
        """

    @property
    def question_names(self) -> Set[str]:
        """The names that the question string uses."""

    @property
    def demonstration_names(self) -> Set[str]:
        """The names that the demonstration strings use."""


@dataclass(frozen=True)
class TextBlocks:
    """Blocks that are joined by a separator."""

    instruction: str
    demonstrations: tuple[str, ...]
    question: str
    separator: str
    question_first: bool
    messages = ()

    def everything(self) -> str:
        """Return instruction, demonstrations and question."""
        return self._join(self.instruction, *self.demonstrations, self.question)

    def examples_after_question(self) -> str:
        """Return all blocks joined, with the question before the demonstrations if `question_first` is set."""
        if not self.question_first:
            return self.everything()
        return self._join(self.instruction, self.question, *self.demonstrations)

    def split(self) -> tuple[str, str]:
        """Return the instruction as one string, and the demonstrations with the question as another."""
        return self.instruction, self._join(*self.demonstrations, self.question)

    def _join(self, *parts: str) -> str:
        return self.separator.join(part for part in parts if part)


@dataclass(frozen=True)
class ChannelForm:
    """How a template shows an answer before its question, as Jinja template strings; see `icl_eval.prompts.channel`."""

    answer: str
    """An answer, up to where its question begins. Trailing spaces are moved to the question."""
    question: str
    """The question, with the whitespace before it."""


@lru_cache(maxsize=256)  # the cells of a sweep have most of their strings in common
def _compile(text: str) -> tuple[jinja2.Template, frozenset[str]]:
    """Compile a template string, and return it with the names that it uses; can raise any exception."""
    require_valid_unicode(text)
    return _ENVIRONMENT.from_string(text), frozenset(find_undeclared_variables(_ENVIRONMENT.parse(text)))


@dataclass(frozen=True)
class TextTemplate:
    """Wording as Jinja template strings.

    The strings can use the fields of the row and the task's `instruction` and `labels` (a field of the row with the
    same name takes precedence). `rationale`, `answer` and `demonstration` can also use the first reference as `answer`
    and the fields that only demonstrations have, and a template with variants can use the selected `style`. An
    undefined name is an error. The contents of a row are inserted verbatim and never expanded.
    """

    instruction: str
    """The first block; an empty string if there is no instruction."""
    question: str
    """A question, up to where its answer begins. Trailing spaces are moved to the answer: see `render`."""
    answer: str
    """The answer in a demonstration, with the whitespace before it."""
    demonstration: str | None
    """A whole demonstration; None if it is the question, the rationale and the answer."""
    separator: str
    """The string between any two blocks."""
    question_first: bool
    """Whether the question precedes the demonstrations in an encoder. In a decoder it always comes last, because the
    decoder continues it."""
    rationale: str | None = None
    """What a demonstration shows between question and answer, with the whitespace before it; None for nothing."""
    name: str = "template"
    variant: int | None = None
    """The number of the `style`; None for a template without variants."""
    channel: ChannelForm | None = None
    """Answer and question the other way round, for `likelihood=channel`; None if the template does not say how."""
    _compiled: dict[str, jinja2.Template] = field(init=False, repr=False, compare=False, default_factory=dict)
    _names: dict[str, frozenset[str]] = field(init=False, repr=False, compare=False, default_factory=dict)
    _style: dict[str, Style] = field(init=False, repr=False, compare=False, default_factory=dict)
    _rendered: dict[tuple[Any, ...], str] = field(init=False, repr=False, compare=False, default_factory=dict)
    """The strings that were rendered last, by their part and the values of the names that it uses: most prompts of a
    task have the same instruction and separator."""
    _demonstrations: dict[int, tuple[Task, Example, str]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )
    """The demonstrations that were rendered last, by the identity of their example."""
    is_chat = False

    def __post_init__(self) -> None:
        if self.rationale is not None and self.demonstration is not None:
            raise ConfigError(
                "template.rationale: has no effect, 'demonstration' is a whole demonstration; leave one of them out"
            )
        for part, text in self._list_strings():
            try:
                self._compiled[part], self._names[part] = _compile(text)
            except Exception as error:  # not only errors of Jinja: deep nesting raises RecursionError
                raise ConfigError(f"template.{part}: {error} (in {_shorten(text)!r})") from None
        if self.variant is not None:
            if "style" not in set().union(*self._names.values()):
                raise ConfigError(
                    f"template.variant={self.variant}: template '{self.name}' has no variants, because none of its "
                    "strings uses 'style'; template=varied has variants"
                )
            self._style["style"] = draw_style(self.variant)
        if self.channel is not None:
            self._require_sense_of_channel()

    def render(self, task: Task, demonstrations: Sequence[Example], example: Example) -> TextBlocks:
        """Render the blocks of one prompt.

        Trailing spaces are stripped from the question. In most tokenizers a space belongs to the following word, so
        after a trailing space the model would have to predict a token that the tokenizer never produces there.

        Raises:
            ConfigError: If the template uses a name that a row does not have.
        """
        return TextBlocks(
            instruction=self.fill("instruction", task, example),
            demonstrations=tuple(self._recall_demonstration(task, shown) for shown in demonstrations),
            question=self.fill("question", task, example).rstrip(" "),
            separator=self.fill("separator", task, example),
            question_first=self.question_first,
        )

    def bare(self, text: str) -> TextBlocks:
        """Return a text as the only block, without trailing spaces, which belong to the answer."""
        return TextBlocks("", (), text.rstrip(" "), "", self.question_first)

    def continuation(self, task: Task, example: Example, answer: str) -> str:
        """Return an answer with the whitespace before it, including the spaces stripped from the question.

        Raises:
            ConfigError: If the string `answer` uses a field of the row, which the model could not know.
        """
        fields = {*example.inputs, *task.demonstration_fields} - {"answer"}
        if leaks := sorted(self._names["answer"] & fields):
            raise ConfigError(
                f"template '{self.name}': answer: uses {list_names(leaks)}, and a likelihood scores an answer without "
                "other fields of its row, which the model could not know; show them in template.rationale, which is "
                "only for demonstrations, or in template.question"
            )
        question = self.fill("question", task, example)
        return question[len(question.rstrip(" ")) :] + self.fill("answer", task, example, answer=answer)

    def names(self, part: str) -> frozenset[str]:
        """Return the names that one of the strings uses."""
        return self._names[part]

    @property
    def question_names(self) -> frozenset[str]:
        """The names that the question string uses."""
        return self._names["question"]

    @property
    def demonstration_names(self) -> frozenset[str]:
        """The names that the demonstration strings use."""
        if self.demonstration is not None:
            return self._names["demonstration"]
        return self._names["question"] | self._names["rationale"] | self._names["answer"]

    def turn(self, task: Task, example: Example) -> tuple[str, str]:
        """Return a demonstration's question, and its rationale and answer, without surrounding whitespace."""
        return self.fill("question", task, example).strip(), self._worked_answer(task, example).strip()

    def _recall_demonstration(self, task: Task, shown: Example) -> str:
        """Return a demonstration as it was rendered for an earlier question, or render it."""
        kept = self._demonstrations.get(id(shown))
        if kept is None or kept[0] is not task or kept[1] is not shown:
            kept = (task, shown, self._demonstration(task, shown))
            _make_room(self._demonstrations)
            self._demonstrations[id(shown)] = kept
        return kept[2]

    def _demonstration(self, task: Task, shown: Example) -> str:
        if not shown.references:
            return self._without_answer(task, shown).rstrip(" ")
        if self.demonstration is not None:
            return self.fill("demonstration", task, shown, answer=shown.references[0], **shown.demonstration_fields)
        return self.fill("question", task, shown) + self._worked_answer(task, shown)

    def _worked_answer(self, task: Task, shown: Example) -> str:
        """Return the rationale and the answer of a demonstration."""
        names = {"answer": shown.references[0], **shown.demonstration_fields}
        return self.fill("rationale", task, shown, **names) + self.fill("answer", task, shown, **names)

    def _without_answer(self, task: Task, shown: Example) -> str:
        if self.demonstration is not None:
            nothing = dict.fromkeys(shown.demonstration_fields, "")
            return self.fill("demonstration", task, shown, answer="", **nothing)
        return self.fill("question", task, shown)

    def _list_strings(self) -> list[tuple[str, str]]:
        """Return the template strings by their keys in a configuration; an empty string for one that is not set."""
        parts = ("instruction", "question", "rationale", "answer", "demonstration", "separator")
        strings = [(part, getattr(self, part) or "") for part in parts]
        if self.channel is not None:
            strings += [("channel.answer", self.channel.answer), ("channel.question", self.channel.question)]
        return strings

    def _require_sense_of_channel(self) -> None:
        if "answer" not in self._names["channel.answer"]:
            raise ConfigError("template.channel.answer: does not use 'answer', so that all choices had one prompt")
        if "answer" in self._names["channel.question"]:
            raise ConfigError(
                "template.channel.question: uses 'answer', and a likelihood of the question scores the question alone"
            )

    def fill(self, part: str, task: Task, example: Example, **more: str) -> str:
        """Return one of the strings with the values of an example; raises ConfigError for an unknown name.

        Args:
            part: The key of the string in a configuration, such as `question` or `channel.answer`.
            task: The task of the example.
            example: The example.
            more: Values beside the fields of the example.
        """
        known: Mapping[str, Any] = {
            "instruction": task.instruction,
            "labels": task.labels,
            **self._style,
            **example.inputs,
            **more,
        }
        used = self._names[part] | (_ENVIRONMENT.globals.keys() & known.keys())  # a field may have the name of a global
        key = (part, *(_freeze(known.get(name)) for name in sorted(used)))
        if key not in self._rendered:
            _make_room(self._rendered)
            self._rendered[key] = self._render_part(part, task, example, known)
        return self._rendered[key]

    def _render_part(self, part: str, task: Task, example: Example, known: Mapping[str, Any]) -> str:
        try:
            return render(self._compiled[part], known)
        except Exception as error:  # a template evaluates user-written expressions, which can raise anything
            reason, names = str(error).rstrip("."), ", ".join(sorted(known))
            raise ConfigError(
                f"template '{self.name}': {part}: {reason}, for example {example.id!r} of task "
                f"'{task.name}' (it can use: {names})"
            ) from None


def _make_room(kept: dict[Any, Any]) -> None:
    """Drop the oldest entry if there are as many as are kept."""
    if len(kept) >= _KEPT:
        del kept[next(iter(kept))]


def _freeze(value: Any) -> Any:
    """Return a value that stands for a template's value in a key: mappings become tuples."""
    return tuple(value.items()) if isinstance(value, Mapping) else value


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
