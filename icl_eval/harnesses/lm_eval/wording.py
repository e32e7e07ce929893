"""The wording of a task of lm-evaluation-harness, as a template.

Its prompts are built from the harness's own parts, so that our demonstrations, orders and controls can be worded as it
words its own. With its own demonstrations they are its prompts to the character, which `tasks` checks for every
question:

    The following are questions.        description, without a separator
    Question: 2 + 2?                    a demonstration, with the harness's delimiters
    Answer: 4

    Question: 3 + 3?                    the question, up to where its answer begins; trailing spaces are kept
    Answer:
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from icl_eval.errors import ConfigError
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task


@dataclass(frozen=True)
class HarnessBlocks:
    """The parts of a prompt, each with the delimiter that follows it."""

    description: str
    demonstrations: tuple[str, ...]
    question: str
    messages = ()

    def everything(self) -> str:
        """Return the parts one after another."""
        return self.description + "".join(self.demonstrations) + self.question

    def examples_after_question(self) -> str:
        """Return the parts in the only order that the harness has."""
        return self.everything()

    def split(self) -> tuple[str, str]:
        """Return the description, and the demonstrations with the question."""
        return self.description, "".join(self.demonstrations) + self.question


@dataclass(frozen=True)
class HarnessTemplate:
    """Words a question and its demonstrations as a task of the harness does."""

    describe: Callable[[Example], str]
    """Returns the description that opens the prompt of a question."""
    word_demonstration: Callable[[Example], str]
    """Returns a demonstration with its first reference as the answer, and the delimiter after it."""
    word_question: Callable[[Example], str]
    """Returns a question up to where its answer begins."""
    delimiter: str
    """The string between a question and its answer."""

    name = "lm_eval"
    is_chat = False
    question_names = frozenset({"question"})
    demonstration_names = frozenset({"question", "answer"})

    def render(self, task: Task, demonstrations: Sequence[Example], example: Example) -> HarnessBlocks:
        """Render the parts of one prompt.

        Raises:
            ConfigError: If a control takes the answers away, which the harness has no wording for.
        """
        for shown in demonstrations:
            if not shown.references:
                raise ConfigError(
                    f"control=no_targets: a demonstration of task '{task.name}' needs an answer in the wording of "
                    "lm-evaluation-harness; choose a template, such as template=plain"
                )
        return HarnessBlocks(
            self.describe(example), tuple(map(self.word_demonstration, demonstrations)), self.word_question(example)
        )

    def bare(self, text: str) -> HarnessBlocks:
        """Return a text as the only part."""
        return HarnessBlocks("", (), text)

    def continuation(self, task: Task, example: Example, answer: str) -> str:
        """Return an answer as the harness asks for its likelihood."""
        return self.delimiter + answer
