"""Tasks of lm-evaluation-harness as tasks of this package.

The harness loads a task and says what its documents, prompts, filters and metrics are; this package runs and scores it.
Unless the run chooses otherwise, prompts are the harness's to the character, which is checked for every question, and
scores are its own to the last digit.
"""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal

import numpy as np

from icl_eval.errors import ConfigError, DataError
from icl_eval.harnesses.lm_eval.documents import example_id, explaining, task_name
from icl_eval.harnesses.lm_eval.draws import HarnessDemonstrations
from icl_eval.harnesses.lm_eval.generation_options import GenerationOptions, read_generation
from icl_eval.harnesses.lm_eval.registry import load_tasks
from icl_eval.harnesses.lm_eval.wording import HarnessTemplate
from icl_eval.tasks.examples import Example, Examples
from icl_eval.tasks.kept_tasks import get_or_read
from icl_eval.tasks.loading import Task

SEED = 1234
"""The seed of the harness's demonstrations and of NumPy's generator unless its user gives another."""
_PYTHON_SEED = 0
"""The harness's seed of Python's generator."""


@dataclass(frozen=True)
class HarnessTask:
    """One task of the harness, as the parts of a run."""

    source: Any
    """The `lm_eval.api.task.ConfigurableTask`."""
    task: Task
    template: HarnessTemplate
    docs: Mapping[str, Any] = field(repr=False)
    """The documents to evaluate by the id of their example, in the harness's order."""
    pool_docs: Sequence[Any] = field(repr=False)
    """The documents of the pool, in its order."""
    kind: Literal["generate_until", "multiple_choice", "loglikelihood"]
    generation: GenerationOptions

    @property
    def num_fewshot(self) -> int:
        """The number of demonstrations that the task asks for."""
        return int(self.source.config.num_fewshot or 0)

    @property
    def _demonstrates_questions(self) -> bool:
        """Whether demonstrations come from the questions themselves, so that a draw has to leave one out."""
        return bool(self.source.fewshot_cfg.split == self.source.config.test_split)

    def draw(self, num_fewshot: int, seed: int, ids: Sequence[str]) -> HarnessDemonstrations:
        """Draw demonstrations as the harness does, and check that prompts with them are the harness's own.

        Args:
            num_fewshot: The number of demonstrations.
            seed: The seed of the harness's generator.
            ids: The first questions of the task, in its order.

        Raises:
            ConfigError: If the harness would show another number of demonstrations, or there are not enough.
            DataError: If the prompt of a question cannot be rebuilt from the task's parts.
        """
        name, fixed = self.task.name, self.source.config.num_fewshot
        if fixed == 0 and num_fewshot:
            raise ConfigError(
                f"num_fewshot={num_fewshot}: lm-evaluation-harness always runs task '{name}' with num_fewshot=0, which "
                "its file fixes; choose demonstrations yourself (demonstrations=random)"
            )
        if num_fewshot and num_fewshot + self._demonstrates_questions > len(self.task.pool):
            reason = ", one of which may be the question itself" if self._demonstrates_questions else ""
            raise ConfigError(
                f"num_fewshot={num_fewshot}: task '{name}' of lm-evaluation-harness has only {len(self.task.pool)} "
                f"examples to demonstrate{reason}"
            )
        with explaining(name, "its prompts cannot be built"):
            drawn = self._draw_ids(num_fewshot, seed, ids)
            self._require_same_prompts(num_fewshot, seed, drawn)
        return HarnessDemonstrations(drawn)

    def _draw_ids(self, num_fewshot: int, seed: int, ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        if not num_fewshot:
            return dict.fromkeys(ids, ())
        self.source.set_fewshot_seed(seed=seed)
        names = {id(doc): example.id for doc, example in zip(self.pool_docs, self.task.pool, strict=True)}
        drawn = {}
        for each in ids:
            left_out = self.docs[each] if self._demonstrates_questions else None
            shown = self.source.sampler.sample(n=num_fewshot, eval_doc=left_out)
            drawn[each] = tuple(names[id(doc)] for doc in shown)
        return drawn

    def _require_same_prompts(self, num_fewshot: int, seed: int, drawn: Mapping[str, tuple[str, ...]]) -> None:
        pool = {example.id: example for example in self.task.pool}
        examples = {example.id: example for example in self.task.examples}
        self.source.set_fewshot_seed(seed=seed)
        for each, shown in drawn.items():
            blocks = self.template.render(self.task, [pool[example_id] for example_id in shown], examples[each])
            doc = self.docs[each]
            prompt = self.source.fewshot_context(doc, num_fewshot, gen_prefix=self.source.doc_to_prefix(doc))
            if blocks.everything() != prompt:
                raise DataError(
                    f"task '{self.task.name}', document {each}: its prompt cannot be rebuilt from its parts, so its "
                    "demonstrations cannot be recorded; run it inside lm-evaluation-harness (icl-eval lm-eval run)"
                )


@dataclass(frozen=True)
class HarnessTasks:
    """The tasks and groups that names stand for."""

    tasks: Mapping[str, HarnessTask]
    """By the harness's name; a group stands for all of its tasks."""
    groups: Mapping[str, Any]
    """`lm_eval.api.group.Group` by name, with those inside other groups."""

    @property
    def num_examples(self) -> int:
        """The number of examples of all tasks."""
        return sum(each.task.num_examples for each in self.tasks.values())


def read_tasks(
    key: str, names: Sequence[str], include_path: str | None = None, trust_remote_code: bool = False
) -> HarnessTasks:
    """Load tasks with their data and adapt them, or return them as a cell before this one has; see `load_tasks`.

    Raises:
        ConfigError: If a task cannot be found or run here.
        DataError: If a task cannot be loaded, or a document has no answer that can be scored.
    """

    def read() -> HarnessTasks:
        with _seeded():
            loaded = load_tasks(key, names, include_path, trust_remote_code)
            return HarnessTasks({name: adapt_task(source) for name, source in loaded.tasks.items()}, loaded.groups)

    return get_or_read(("lm_eval", key, tuple(names), include_path, trust_remote_code), read)


@contextmanager
def _seeded() -> Iterator[None]:
    """Seed the generators of Python and NumPy as the harness does before it loads tasks, some of which shuffle choices.

    The documents are then the same in every run. The harness, which reads them more than once, may draw others.
    Afterwards, the generators go on from where they were.
    """
    states = random.getstate(), np.random.get_state()
    random.seed(_PYTHON_SEED)
    np.random.seed(SEED)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def adapt_task(source: Any) -> HarnessTask:
    """Return a loaded task as the parts of a run.

    Args:
        source: The `lm_eval.api.task.Task`.

    Raises:
        ConfigError: If the task is of a kind that cannot be run here; the message says which.
        DataError: If a document has no answer that can be scored.
    """
    kind = _require_supported(source)
    parts = _Parts(source, kind)
    name = task_name(source.task_name)
    with explaining(name, "its documents cannot be read"):
        pool_docs = _list_pool_docs(source)
        pool = Examples(parts.demonstration(f"pool-{number}", doc) for number, doc in enumerate(pool_docs))
        docs = {example_id(number): doc for number, doc in enumerate(source.eval_docs)}
        examples = Examples(parts.question(each, doc) for each, doc in docs.items())
        for example in examples:  # a description may be no text
            parts.describe(docs[example.id])
    content = [*map(_describe, pool), *map(_describe, examples)]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
    task = Task(name, "", {"question": "Question", "answer": "Answer"}, pool, examples, digest)
    template = HarnessTemplate(
        describe=lambda example: parts.describe(docs[example.id]),
        word_demonstration=parts.word_demonstration,
        word_question=parts.word_question,
        delimiter="" if kind == "loglikelihood" else source.config.target_delimiter,
    )
    generation = read_generation(name, source.config.generation_kwargs if kind == "generate_until" else None)
    return HarnessTask(source, task, template, docs, pool_docs, kind, generation)


def _list_pool_docs(source: Any) -> list[Any]:
    """Return the documents from which a task draws demonstrations; empty if it has none."""
    sampler = getattr(source, "sampler", None)
    return [] if sampler is None else list(sampler.df)


def _describe(example: Example) -> list[Any]:
    return [example.id, dict(example.inputs), example.references, example.choices]


def _require_supported(source: Any) -> Literal["generate_until", "multiple_choice", "loglikelihood"]:
    """Raise ConfigError for a task whose requests or scores this package cannot reproduce."""
    from lm_eval.api.task import ConfigurableTask

    if not isinstance(source, ConfigurableTask):
        raise _unsupported(source, "it is a class of its own instead of a configuration")
    reasons = {
        "its requests are rolling likelihoods of whole texts": source.OUTPUT_TYPE == "loglikelihood_rolling",
        "each of its choices has a prompt of its own (multiple inputs)": source.multiple_input,
        "it shows images or sounds": getattr(source, "MULTIMODAL", False),
        "its metrics run code that the model writes": getattr(source, "UNSAFE_CODE", False),
        "it takes a prompt from promptsource": source.prompt is not None,
        "acc_mutual_info needs answers without a prompt": "acc_mutual_info" in source.aggregation(),
    }
    for reason, applies in reasons.items():
        if applies:
            raise _unsupported(source, reason)
    kind: Literal["generate_until", "multiple_choice", "loglikelihood"] = source.OUTPUT_TYPE
    return kind


def _unsupported(source: Any, reason: str) -> ConfigError:
    return ConfigError(
        f"task '{source.task_name}' of lm-evaluation-harness cannot be run here: {reason}; run it inside the harness "
        "(icl-eval lm-eval run)"
    )


@dataclass(frozen=True)
class _Worded:
    """A document as the harness words it."""

    question: str
    """The field of its example."""
    text: str
    """The result of `doc_to_text`."""
    prefix: str | None
    """The beginning of an answer that a prompt shows (`gen_prefix`)."""


@dataclass(frozen=True)
class _Parts:
    """Reads and words the documents of a task through the harness."""

    source: Any
    kind: str
    worded: dict[str, "_Worded"] = field(default_factory=dict)
    """What the harness makes of each document, by the id of its example."""

    def demonstration(self, example_id: str, doc: Any) -> Example:
        """Return a candidate of the pool, with the texts that the harness takes for demonstrations."""
        few = self.source.fewshot_cfg
        choices = self.source.doc_to_choice(doc, few.doc_to_choice) if few.doc_to_choice else None
        target = self.source.doc_to_target(doc, few.doc_to_target)
        answers = _list_answers(target, choices)
        prefix = self.source.resolve_field(doc, few.gen_prefix)
        return self._example(example_id, doc, self.source.doc_to_text(doc, few.doc_to_text), answers, (), prefix)

    def question(self, example_id: str, doc: Any) -> Example:
        """Return a question with its references and choices."""
        choices = tuple(self.source.doc_to_choice(doc)) if self.source.config.doc_to_choice else None
        references = _list_answers(self.source.doc_to_target(doc), choices)
        if choices is not None and self.kind == "multiple_choice" and not set(choices) & set(references):
            raise DataError(
                f"task '{self.source.task_name}', document {example_id}: its target {references} is none of its "
                f"choices {list(choices)}"
            )
        ranked = choices if self.kind == "multiple_choice" and choices else ()
        prefix = self.source.doc_to_prefix(doc)
        return self._example(example_id, doc, self.source.doc_to_text(doc), references, ranked, prefix)

    def _example(
        self,
        example_id: str,
        doc: Any,
        text: Any,
        references: tuple[str, ...],
        choices: Sequence[str],
        prefix: str | None,
    ) -> Example:
        # no other column: any may hold the answer, and retrieval compares whatever an example has
        own = doc.get("question")
        question = own if isinstance(own, str) and own.strip() else str(text)
        self.worded[example_id] = _Worded(question, str(text), prefix)
        return Example(example_id, {"question": question}, references, tuple(choices))

    def describe(self, doc: Any) -> str:
        """Return the description, which a document may change."""
        return str(self.source.resolve_field(doc, self.source.config.description) or "")

    def word_demonstration(self, example: Example) -> str:
        """Return a demonstration with its first reference, and the delimiter after it."""
        few = self.source.fewshot_cfg
        return self._word(example, few.target_delimiter, few.fewshot_delimiter, example.references[0])

    def word_question(self, example: Example) -> str:
        """Return a question, up to where its answer begins."""
        return self._word(example, self.source.config.target_delimiter, "", None)

    def _word(self, example: Example, delimiter: str, after: str, answer: str | None) -> str:
        worded = self.worded[example.id]
        if example.inputs["question"] != worded.question:
            raise ConfigError(
                f"task '{self.source.task_name}': the harness words its documents itself, so that a control or "
                "likelihood.content_free cannot change a question; choose a template, such as template=plain"
            )
        turn = self.source.build_qa_turn(
            q=worded.text,
            a=answer,
            gen_prefix=worded.prefix,
            tgt_delim=delimiter,
            few_delim=after,
        )
        return "".join(message.to_text() for message in turn)


def _list_answers(target: Any, choices: Sequence[str] | None) -> tuple[str, ...]:
    """Return a target of the harness as strings: a text, the number of a choice, or a list of either."""
    targets = target if isinstance(target, list) else [target]
    if choices is not None:
        targets = [_find_choice(each, choices) for each in targets]
    return tuple(dict.fromkeys(str(each) for each in targets if each is not None)) or ("",)


def _find_choice(target: Any, choices: Sequence[str]) -> str | None:
    if not isinstance(target, Integral):  # of NumPy, too
        return str(target)
    return choices[int(target)] if 0 <= int(target) < len(choices) else None
