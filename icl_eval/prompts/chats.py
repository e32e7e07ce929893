"""Chats: a model's own chat template, from a conversation to the text that the model is given.

A chat template is a program of the model's authors, and any of them can lose what it is given. So a conversation of
the same turns with marked contents is rendered first, as strings and, where that fails, as lists of parts, and the run
stops unless

- every turn is in the text, in order, and so is every turn of the conversation itself,
- the text ends where the assistant's answer begins: it has an opening that it lacks without a generation prompt, or
  an answer would follow it directly.

The same marks show which token closes an answer.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from icl_eval.errors import ConfigError
from icl_eval.formatting import describe_error
from icl_eval.tasks.sandbox import bounded, render

if TYPE_CHECKING:
    import jinja2
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, str]]

_SHOWN = 60
_SHOWN_PART = re.compile(r"""['"]type['"]: ?['"]text['"]""")
_MARKER = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")


@cache
def today() -> date:
    """Return the day on which this process first asked, so that midnight changes nothing in it."""
    return datetime.now().date()


@dataclass
class Calendar:
    """What a chat template is told of the day."""

    day: date
    asked: bool = False
    """Whether a template has asked."""

    def strftime_now(self, form: str) -> str:
        """Return the beginning of the day, in the given form."""
        self.asked = True
        return datetime(self.day.year, self.day.month, self.day.day).strftime(form)


@dataclass(frozen=True, eq=False)
class Chat:
    """A model's chat template, which must keep all that it is given; calling it renders a conversation."""

    template: "jinja2.Template"
    description: str
    """What messages call the template."""
    tokenizer: "PreTrainedTokenizerBase"
    calendar: Calendar
    _takes_parts: dict[tuple[str, ...], bool] = field(default_factory=dict)
    """By the roles of a conversation, whether its contents have to be lists of parts."""

    def __call__(self, messages: Messages) -> str:
        """Return the conversation's text, up to where the assistant's answer begins.

        Raises:
            ConfigError: When the template fails, or loses something that it is given.
        """
        roles = tuple(message["role"] for message in messages)
        if roles not in self._takes_parts:
            self._takes_parts[roles] = self._find_form(roles)
        try:
            text = self._render(messages, self._takes_parts[roles])
        except Exception as error:  # a chat template is a program of the model's authors
            raise self._refused(f"failed: {describe_error(error)}") from None
        self._require_contents(messages, text)
        return text

    @property
    def end_id(self) -> int | None:
        """The token that the template writes after an answer; None where it writes none."""
        marked = _marked(("user", "assistant", "user"))
        try:
            parts = self._find_form(("user",))
            text = self._render(marked, parts, opening=False)
        except Exception:  # said where a conversation is rendered
            return None
        _, _, behind = text.partition(marked[1]["content"])
        between, _, _ = behind.partition(marked[2]["content"])
        ids = self.tokenizer(between.lstrip(), add_special_tokens=False, verbose=False)["input_ids"]
        return int(ids[0]) if ids and self._is_marker(ids[0]) else None

    def _is_marker(self, token_id: int) -> bool:
        tokenizer: Any = self.tokenizer
        if token_id in tokenizer.all_special_ids or token_id in tokenizer.added_tokens_decoder:
            return True
        return _MARKER.fullmatch(str(tokenizer.convert_ids_to_tokens(token_id))) is not None

    def _find_form(self, roles: tuple[str, ...]) -> bool:
        """Return whether contents have to be lists of parts, from marked contents of the same turns."""
        messages = _marked(roles)
        problems = []
        for parts in (False, True):
            try:
                text = self._render(messages, parts)
                self._require_contents(messages, text)
                if parts and _SHOWN_PART.search(text):
                    continue  # it prints a list as Python does
                self._require_opening(messages, text, parts)
                return parts
            except ConfigError as error:
                problems.append(error)
            except Exception as error:  # a chat template is a program of the model's authors
                problems.append(self._refused(f"failed: {describe_error(error)}"))
        raise problems[0]

    def _require_contents(self, messages: Messages, text: str) -> None:
        place = 0
        for number, message in enumerate(messages):
            found = _find(message["content"].strip(), text, place)
            if found is None:
                content = message["content"].strip()
                shown = content if len(content) <= _SHOWN else f"{content[:_SHOWN]}…"
                raise self._refused(
                    f"leaves out or changes {_name_turn(number, len(messages))} ({shown!r}): the model would not "
                    "see it; take another template"
                )
            place = found

    def _require_opening(self, messages: Messages, text: str, parts: bool) -> None:
        if self._render(messages, parts, opening=False) != text:
            return
        answered = [*messages, *_marked(("assistant",), start=len(messages))]
        whole = self._render(answered, parts, opening=False)
        if not (whole.startswith(text) and whole[len(text) :].lstrip().startswith(answered[-1]["content"])):
            raise self._refused(
                "does not open the assistant's turn: the text is the same with and without a generation prompt, and "
                "the model would go on in the user's turn; take another template"
            )

    def _render(self, messages: Messages, parts: bool, opening: bool = True) -> str:
        given: list[dict[str, Any]] = [dict(message) for message in messages]
        if parts:
            given = [{**each, "content": [{"type": "text", "text": each["content"]}]} for each in given]
        names = {"messages": given, "tools": None, "documents": None, "add_generation_prompt": opening}
        return render(self.template, {**self.tokenizer.special_tokens_map, **names})

    def _refused(self, problem: str) -> ConfigError:
        return ConfigError(f"template=chat: {self.description} {problem}")


def chat_renderer(
    tokenizer: "PreTrainedTokenizerBase", model: str = "this model", name: str | None = None, day: date | None = None
) -> Chat:
    """Return a tokenizer's chat template as a function from conversations to text.

    Args:
        tokenizer: Of the model.
        model: What messages call the model.
        name: Which of the tokenizer's templates; None for the one that is called `default` or has no name.
        day: What the template is told is today; None for today.

    Raises:
        ConfigError: When there is no such template, or it is none.
    """
    text = _choose(tokenizer.chat_template, model, name)
    description = f"the chat template {f'{name!r} ' if name else ''}of {model}"
    calendar = Calendar(day or today())
    try:
        template = _environment(calendar).from_string(text)
    except Exception as error:  # what nests too deeply for Python is none of Jinja's errors
        raise ConfigError(f"template=chat: {description} cannot be read: {describe_error(error)}") from None
    return Chat(template, description, tokenizer, calendar)


def _choose(templates: Any, model: str, name: str | None) -> str:
    if not templates:
        raise ConfigError(f"template=chat: {model} has no chat template in its tokenizer; use another template")
    named: Mapping[str, str] = templates if isinstance(templates, Mapping) else {"default": templates}
    known = ", ".join(sorted(named))
    if name is None and "default" not in named:
        raise ConfigError(f"template=chat: {model} has several chat templates; choose model.chat_template=… ({known})")
    if name is not None and name not in named:
        raise ConfigError(f"model.chat_template={name}: {model} has no such chat template (it has: {known})")
    return named[name or "default"]


def _environment(calendar: Calendar) -> "jinja2.Environment":
    """Return the environment in which the library renders chat templates, within bounds and with a fixed day."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    environment = bounded(_compile_jinja_template("").environment)
    environment.globals["strftime_now"] = calendar.strftime_now
    return environment


def _marked(roles: Sequence[str], start: int = 0) -> list[dict[str, str]]:
    """Return a conversation whose contents stand in no template."""
    return [{"role": role, "content": f"Qx{number}zj"} for number, role in enumerate(roles, start)]


def _find(content: str, text: str, start: int) -> int | None:
    """Return where a content ends in a text, as it is or as JSON or HTML write it; None where it is not."""
    forms = (content, *(json.dumps(content, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True)))
    for form in (*forms, html.escape(content).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")):
        place = text.find(form, start)
        if place >= 0:
            return place + len(form)
    return None


def _name_turn(number: int, count: int) -> str:
    if number == count - 1:
        return "the question"
    side = "answer" if number % 2 else "question"
    return f"the {side} of demonstration {number // 2 + 1}"
