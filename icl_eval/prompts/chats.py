"""Chats: rendering a conversation with the model's own chat template.

A chat template is a program written by the model's authors, and it may drop or change message contents. Therefore a
probe conversation with the same roles and unique contents is rendered first, with contents as strings and, if that
fails, as lists of parts. The run stops unless

- the rendered string contains every message in order, for the probe and for the real conversation,
- the rendered string ends where the assistant's answer begins: either the generation prompt adds an opening, or an
  assistant message rendered next would follow directly.

The same probe shows which token ends an answer.
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
from icl_eval.prompts.chat_templates import name_chat_template, read_chat_template
from icl_eval.tasks.sandbox import bound_environment, render

if TYPE_CHECKING:
    import jinja2
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, str]]

_SHOWN = 60
_SHOWN_PART = re.compile(r"""['"]type['"]: ?['"]text['"]""")
_MARKER = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")


@cache
def today() -> date:
    """Return the current date, cached for the lifetime of the process so that it does not change at midnight."""
    return datetime.now().date()


@dataclass
class Calendar:
    """The date that chat templates see."""

    day: date
    was_read: bool = False
    """Whether a template has used the date."""

    def strftime_now(self, form: str) -> str:
        """Return midnight of the day, formatted as in `datetime.strftime`."""
        self.was_read = True
        return datetime(self.day.year, self.day.month, self.day.day).strftime(form)


@dataclass(frozen=True, eq=False)
class Chat:
    """A model's chat template; calling it renders a conversation and checks that nothing is lost."""

    template: "jinja2.Template"
    description: str
    """How error messages refer to the template."""
    tokenizer: "PreTrainedTokenizerBase"
    calendar: Calendar
    _takes_parts: dict[tuple[str, ...], bool] = field(default_factory=dict)
    """Whether the template needs contents as lists of parts, by the sequence of roles in the conversation."""

    def __call__(self, messages: Messages) -> str:
        """Render a conversation up to where the assistant's answer begins.

        Raises:
            ConfigError: If the template fails or drops a message.
        """
        roles = tuple(message["role"] for message in messages)
        if roles not in self._takes_parts:
            self._takes_parts[roles] = self._find_form(roles)
        try:
            text = self._render(messages, self._takes_parts[roles])
        except Exception as error:  # a chat template is arbitrary code and can raise anything
            raise self._error(f"failed: {describe_error(error)}") from None
        self._require_contents(messages, text)
        return text

    @property
    def end_id(self) -> int | None:
        """The token that the template writes after an answer; None if it writes no such token."""
        probe = _build_probe(("user", "assistant", "user"))
        try:
            parts = self._find_form(("user",))
            text = self._render(probe, parts, opening=False)
        except Exception:  # reported when a real conversation is rendered
            return None
        _, _, behind = text.partition(probe[1]["content"])
        between, _, _ = behind.partition(probe[2]["content"])
        ids = self.tokenizer(between.lstrip(), add_special_tokens=False, verbose=False)["input_ids"]
        return int(ids[0]) if ids and self._is_marker(ids[0]) else None

    def _is_marker(self, token_id: int) -> bool:
        tokenizer: Any = self.tokenizer
        if token_id in tokenizer.all_special_ids or token_id in tokenizer.added_tokens_decoder:
            return True
        return _MARKER.fullmatch(str(tokenizer.convert_ids_to_tokens(token_id))) is not None

    def _find_form(self, roles: tuple[str, ...]) -> bool:
        """Return whether the template needs contents as lists of parts, found by rendering a probe conversation."""
        messages = _build_probe(roles)
        problems = []
        for parts in (False, True):
            try:
                text = self._render(messages, parts)
                self._require_contents(messages, text)
                if parts and _SHOWN_PART.search(text):
                    continue  # the template prints the list itself
                self._require_opening(messages, text, parts)
                return parts
            except ConfigError as error:
                problems.append(error)
            except Exception as error:  # a chat template is arbitrary code and can raise anything
                problems.append(self._error(f"failed: {describe_error(error)}"))
        raise problems[0]

    def _require_contents(self, messages: Messages, text: str) -> None:
        place = 0
        for number, message in enumerate(messages):
            end = _find_end(message["content"].strip(), text, place)
            if end is None:
                content = message["content"].strip()
                shown = content if len(content) <= _SHOWN else f"{content[:_SHOWN]}…"
                raise self._error(
                    f"leaves out or changes {_name_turn(number, len(messages))} ({shown!r}), so the model would not "
                    "see it; use another template"
                )
            place = end

    def _require_opening(self, messages: Messages, text: str, parts: bool) -> None:
        if self._render(messages, parts, opening=False) != text:
            return
        answered = [*messages, *_build_probe(("assistant",), start=len(messages))]
        whole = self._render(answered, parts, opening=False)
        if not (whole.startswith(text) and whole[len(text) :].lstrip().startswith(answered[-1]["content"])):
            raise self._error(
                "does not open the assistant's turn: the output is the same with and without a generation prompt, so "
                "the model would continue the user's turn; use another template"
            )

    def _render(self, messages: Messages, parts: bool, opening: bool = True) -> str:
        given: list[dict[str, Any]] = [dict(message) for message in messages]
        if parts:
            given = [{**each, "content": [{"type": "text", "text": each["content"]}]} for each in given]
        names = {"messages": given, "tools": None, "documents": None, "add_generation_prompt": opening}
        return render(self.template, {**self.tokenizer.special_tokens_map, **names})

    def _error(self, problem: str) -> ConfigError:
        return ConfigError(f"template=chat: {self.description} {problem}")


def build_chat(
    tokenizer: "PreTrainedTokenizerBase", model: str = "this model", name: str | None = None, day: date | None = None
) -> Chat:
    """Return the chat template of a tokenizer as a function from conversations to strings.

    Args:
        tokenizer: The model's tokenizer.
        model: How error messages refer to the model.
        name: The name of the template, the path of a file with one, or its text; None selects the template called
            `default` or the only, unnamed one.
        day: The current date as the template sees it; None for the real one.

    Raises:
        ConfigError: If there is no such template or it cannot be compiled.
    """
    text = read_chat_template(name)
    description = f"the chat template {name_chat_template(name)}"
    if text is None:
        text = _choose(tokenizer.chat_template, model, name)
        description = f"the chat template {f'{name!r} ' if name else ''}of {model}"
    calendar = Calendar(day or today())
    try:
        template = _environment(calendar).from_string(text)
    except Exception as error:  # not only errors of Jinja: deep nesting raises RecursionError
        raise ConfigError(f"template=chat: {description} cannot be read: {describe_error(error)}") from None
    return Chat(template, description, tokenizer, calendar)


def _choose(templates: Any, model: str, name: str | None) -> str:
    if not templates:
        raise ConfigError(
            f"template=chat: {model} has no chat template in its tokenizer; use another template, or "
            "model.chat_template=./FILE.jinja"
        )
    named: Mapping[str, str] = templates if isinstance(templates, Mapping) else {"default": templates}
    known = ", ".join(sorted(named))
    if name is None and "default" not in named:
        raise ConfigError(f"template=chat: {model} has several chat templates; choose model.chat_template=… ({known})")
    if name is not None and name not in named:
        raise ConfigError(
            f"model.chat_template={name}: {model} has no such chat template (it has: {known}); a file is ./FILE.jinja"
        )
    return named[name or "default"]


def _environment(calendar: Calendar) -> "jinja2.Environment":
    """Return the environment in which transformers renders chat templates, with bounded work and a fixed date."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    environment = bound_environment(_compile_jinja_template("").environment)
    environment.globals["strftime_now"] = calendar.strftime_now
    return environment


def _build_probe(roles: Sequence[str], start: int = 0) -> list[dict[str, str]]:
    """Return a conversation with unique contents that no template would contain."""
    return [{"role": role, "content": f"Qx{number}zj"} for number, role in enumerate(roles, start)]


def _find_end(content: str, text: str, start: int) -> int | None:
    """Return where a message content ends in a string, verbatim or escaped for JSON or HTML; None if it is missing."""
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
