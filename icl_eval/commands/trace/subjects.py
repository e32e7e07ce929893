"""The subject of a trace: a free prompt, or one question of a task with its demonstrations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from icl_eval.commands.trace.tracer import Limits
from icl_eval.config.free_prompts import open_prompts
from icl_eval.config.schema import ModelOptions, TraceConfig
from icl_eval.decoding.engines.in_process import require_in_process
from icl_eval.decoding.searches import Greedy, Sample, Search, build_search, require_one_sample
from icl_eval.errors import ConfigError
from icl_eval.evaluation.preparation import Evaluation, TaskPlan, prepare
from icl_eval.formatting import count_noun
from icl_eval.metrics.postprocessing import Postprocessor
from icl_eval.models.loading import LanguageModel
from icl_eval.prompts.building import EncodedPrompt, PromptBuilder
from icl_eval.prompts.tokenization import Continuations, encode_continuations
from icl_eval.tasks.examples import Example

_FREE_PROMPT_KEYS = {"prompt", "runners_up", "heads", *(field.name for field in fields(ModelOptions))}
"""The keys that apply to a free prompt, without a task."""


@dataclass(frozen=True)
class Question:
    """A question of a task, and how its prompt was built."""

    example: Example
    builder: PromptBuilder
    tokenizer: PreTrainedTokenizerBase
    """The tokenizer that encoded the prompt, with its source and target languages set."""
    template: str
    placement: str
    postprocess: Postprocessor

    def encode_answer(self, prompt: EncodedPrompt) -> Continuations:
        """Return the tokens of the first reference as a continuation of a prompt."""
        template, task = self.builder.template, self.builder.task
        answer = template.continuation(task, self.example, self.example.references[0])
        return encode_continuations(self.tokenizer, prompt, [answer])


@dataclass(frozen=True)
class TraceSubject:
    """A prompt to trace, with everything that decoding it needs."""

    model: LanguageModel
    prompt: EncodedPrompt
    limits: Limits
    search: Greedy | Sample
    settings: Mapping[str, Any]
    """Generation settings that differ from the model's generation config."""
    question: Question | None
    """None for a free prompt."""
    text: str = ""
    """The free prompt, without a task prefix."""

    @property
    def written(self) -> dict[str, str]:
        """What the user wrote, by field."""
        if self.question:
            return dict(self.question.example.inputs)
        return {"prompt": self.text}


def free_subject(config: TraceConfig, text: str, given: Sequence[str]) -> TraceSubject:
    """Return the subject for a free prompt, which goes to the encoder, or is continued by a decoder-only model.

    Args:
        config: The command's options.
        text: The prompt.
        given: The names of the keys that the user has set.

    Raises:
        UserError: When an option is invalid or applies only to tasks, or the prompt does not fit.
    """
    for key in given:
        if key not in _FREE_PROMPT_KEYS:
            raise ConfigError(
                f"{key}: has no effect on a free prompt, which uses no task, template or demonstrations; "
                f"remove {key}, or remove prompt to trace a question of a task"
            )
    search = _require_token_search(build_search(config.decoding))
    opened = open_prompts(config, search, [text])
    limits = Limits(opened.max_new_tokens, tuple(search.stop or ()))
    return TraceSubject(opened.model, opened.encoded[0], limits, search, opened.conventions.settings, None, text)


def question_subject(evaluation: Evaluation, example_id: str | None) -> TraceSubject:
    """Return the subject for one question of an evaluation with a single task.

    Raises:
        UserError: When there are several tasks, the question does not exist, or the evaluation cannot be run.
    """
    if len(evaluation.plans) != 1:
        names = ", ".join(plan.task.name for plan in evaluation.plans)
        raise ConfigError(
            f"trace: needs prompt=… or a single task, such as "
            f"task={evaluation.plans[0].task.name} (selected tasks: {names})"
        )
    search = _require_token_search(evaluation.search)
    plan = evaluation.plans[0]
    if plan.max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens={plan.max_new_tokens}: must be 1 or more for a trace")
    example = _find_example(plan, example_id)
    prepared = prepare(replace(evaluation, plans=(replace(plan, examples=(example,)),)))
    task = prepared.tasks[0]
    model = require_in_process(evaluation.engine, "trace").load(evaluation.model)
    question = Question(
        example,
        task.builder,
        prepared.card.tokenizer,
        plan.template.name,
        prepared.placement.name,
        plan.postprocess,
    )
    limits = Limits(plan.max_new_tokens, plan.stop)
    return TraceSubject(model, task.prompts[0], limits, search, prepared.conventions.settings, question)


def _require_token_search(search: Search) -> Greedy | Sample:
    if not isinstance(search, Greedy | Sample):
        raise ConfigError(f"decoding={search.name}: cannot be traced token by token; use greedy or sample")
    require_one_sample(search)
    return search


def _find_example(plan: TaskPlan, example_id: str | None) -> Example:
    if example_id is None:
        return plan.examples[0]
    for example in plan.examples:
        if example.id == example_id:
            return example
    raise ConfigError(
        f"example={example_id}: task '{plan.task.name}' has no such question "
        f"(it has {count_noun(len(plan.examples), 'question')}, such as {plan.examples[0].id!r})"
    )
