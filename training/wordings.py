"""Word episodes with the templates of `icl_eval`, so that the two cannot diverge.

Rendering a template takes ten times as long as everything else about an episode. Each template is therefore rendered
once, with placeholders for the question and the answer, and the text around the placeholders is kept.
"""

from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from icl_eval.config.setup import conf_dir
from icl_eval.prompts.templates import TextTemplate
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task
from training.families import FAMILIES, Pair

LABELS = {"question": "Input", "answer": "Output"}
"""The labels of questions and answers in the tasks."""
_QUESTION, _ANSWER = "\x00", "\x01"


@dataclass(frozen=True)
class Wording:
    """The fixed text of one template for the episodes of one family."""

    instruction: str
    before_question: str
    after_question: str
    before_answer: str
    separator: str

    def question(self, pair: Pair) -> str:
        """Return the question with all text up to the answer."""
        return self.before_question + pair.question + self.after_question

    def answer(self, pair: Pair) -> str:
        """Return the answer with the white space before it."""
        return self.before_answer + pair.answer


def load_wordings(template: str) -> dict[str, Wording]:
    """Load a template of `conf/template/` as a wording for each family."""
    config: Any = OmegaConf.load(conf_dir() / f"template/{template}.yaml")
    parts = TextTemplate(
        instruction=config.get("instruction", ""),
        question=config.question,
        answer=config.answer,
        demonstration=None,
        separator=config.separator,
        question_first=False,
        name=template,
    )
    return {family: _wording(parts, family) for family in FAMILIES}


def _wording(template: TextTemplate, family: str) -> Wording:
    task = Task(family, FAMILIES[family].instruction, LABELS, (), (), content_hash="")
    marked = Example("", {"question": _QUESTION}, (_ANSWER,))
    blocks = template.render(task, (marked,), marked)
    before, after = blocks.question.split(_QUESTION)
    before_answer = blocks.demonstrations[0].removeprefix(blocks.question).removesuffix(_ANSWER)
    return Wording(blocks.instruction, before, after, before_answer, blocks.separator)
