"""The channel form of a template: every answer before its question (Min et al., 2022, Noisy Channel, arXiv:2108.04106).

Translate from English to Spanish.      instruction, as it is

Spanish: Buenas noches.                 demonstration: the answer, then the question
English: Good night.

Spanish: El libro está en la mesa.      an answer, up to where its question begins
English:                                ──▶ continued by the question, which is what is scored
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from icl_eval.errors import ConfigError
from icl_eval.prompts.templates import Template, TextBlocks, TextTemplate
from icl_eval.prompts.turns import ChatTemplate
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task


def channel_form(template: Template) -> Template:
    """Return the channel form of a template; raises ConfigError if it has none."""
    if isinstance(template, ChatTemplate) and isinstance(template.wording, TextTemplate):
        return replace(template, wording=_build(template.wording))
    return _build(template)


def _build(template: Template) -> "ChannelTemplate":
    if not isinstance(template, TextTemplate) or template.channel is None:
        raise ConfigError(
            f"likelihood=channel: template '{template.name}' does not say how to show an answer before its question; "
            "set template.channel.answer and template.channel.question, or use another, such as template=labelled"
        )
    return ChannelTemplate(template)


@dataclass(frozen=True)
class ChannelTemplate:
    """Renders answers before their questions. The answer before the last question is the first reference."""

    wording: TextTemplate
    is_chat = False
    demonstration = None
    question_first = False

    def render(self, task: Task, demonstrations: Sequence[Example], example: Example) -> TextBlocks:
        """Render the blocks of one prompt, which ends where the question begins.

        Raises:
            ConfigError: If the template uses a name that a row does not have, or a demonstration shows no answer.
        """
        return TextBlocks(
            instruction=self.wording.fill("instruction", task, example),
            demonstrations=tuple("".join(self._parts(task, shown)) for shown in demonstrations),
            question=self._parts(task, example)[0].rstrip(" "),
            separator=self.wording.fill("separator", task, example),
            question_first=False,
        )

    def bare(self, text: str) -> TextBlocks:
        """Return a text as the only block, without trailing spaces."""
        return self.wording.bare(text)

    def continuation(self, task: Task, example: Example, answer: str) -> str:
        """Return the question as the continuation of an answer, with the spaces stripped from it."""
        shown, question = self._parts(task, replace(example, references=(answer,)))
        return shown[len(shown.rstrip(" ")) :] + question

    @property
    def name(self) -> str:
        """The name of the template in reports."""
        return self.wording.name

    @property
    def question_names(self) -> frozenset[str]:
        """The names that the string uses that shows an answer."""
        return self.wording.names("channel.answer")

    @property
    def demonstration_names(self) -> frozenset[str]:
        """The names that both strings use."""
        return self.question_names | self.wording.names("channel.question")

    def turn(self, task: Task, example: Example) -> tuple[str, str]:
        """Return the answer and the question of a demonstration, without surrounding whitespace."""
        shown, question = self._parts(task, example)
        return shown.strip(), question.strip()

    def _parts(self, task: Task, shown: Example) -> tuple[str, str]:
        """Return the answer up to where the question begins, and the question."""
        if not shown.references:
            raise ConfigError(
                "control=no_targets: likelihood=channel shows every question after its answer; choose another control"
            )
        answer = self.wording.fill("channel.answer", task, shown, answer=shown.references[0])
        return answer, self.wording.fill("channel.question", task, shown)
