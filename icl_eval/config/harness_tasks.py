"""Plan the tasks of lm-evaluation-harness that a task of the configuration names.

    task=lm_eval task.lm_eval.name=mmlu     57 tasks, each with the harness's prompts, demonstrations and scores

What the run leaves open is the harness's own. What it gives replaces that part alone, so that a task can be run with
other demonstrations in the harness's wording, or with another template.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from icl_eval.config.composing import ComposedConfig
from icl_eval.config.given import is_given
from icl_eval.config.plans import SharedOptions, apply_limit, build_plan, choose_few_shot
from icl_eval.config.ranges import require_task_name
from icl_eval.config.schema import TaskConfig
from icl_eval.decoding.searches import Search
from icl_eval.errors import ConfigError
from icl_eval.evaluation.preparation import TaskGroup, TaskPlan
from icl_eval.formatting import count_noun, format_options
from icl_eval.harnesses.lm_eval.encoding import encode_answers
from icl_eval.harnesses.lm_eval.groups import HarnessGroup
from icl_eval.harnesses.lm_eval.scores import HarnessScores
from icl_eval.harnesses.lm_eval.tasks import SEED, HarnessTask, read_tasks

logger = logging.getLogger(__name__)

_LIKELIHOODS: dict[str, dict[str, Any]] = {
    "multiple_choice": {"_target_": "icl_eval.evaluation.answers.ChoiceLikelihood", "content_free": None},
    "loglikelihood": {"_target_": "icl_eval.evaluation.answers.ReferenceLikelihood"},
}
"""The likelihoods that a kind of task asks for."""
_OF_OUR_TASKS = ("instruction", "labels", "fields", "demonstration_fields", "match_field", "stop", "max_new_tokens")
"""Keys of a task that the harness decides for its own tasks."""


@dataclass(frozen=True)
class HarnessPlans:
    """What a task of the configuration stands for."""

    plans: tuple[TaskPlan, ...]
    groups: tuple[TaskGroup, ...]


def build_harness_plans(
    name: str, config: TaskConfig, shared: SharedOptions, composed: ComposedConfig, search: Search
) -> HarnessPlans:
    """Load tasks of the harness and plan them; raises ConfigError and DataError."""
    key = f"task.{name}"
    _require_no_other_keys(key, config)
    found = read_tasks(f"{key}.name", _list_names(key, config.name), config.include_path, config.trust_remote_code)
    names = [task.task.name for task in found.tasks.values()]
    if len(set(names)) < len(names):
        raise ConfigError(f"{key}.name: the names of its tasks are the same as file names ({', '.join(sorted(names))})")
    if not names:
        raise ConfigError(f"{key}.name={config.name}: stands for no task")
    for each in names:
        require_task_name(f"{key}.name", each)
    plans = tuple(_plan(task, config, shared, composed, search) for task in found.tasks.values())
    groups = tuple(
        HarnessGroup(group, {each.task_name: found.tasks[each.task_name].task.name for each in group.get_all_tasks()})
        for group in found.groups.values()
    )
    return HarnessPlans(plans, groups)


def _require_no_other_keys(key: str, config: TaskConfig) -> None:
    default = TaskConfig()
    for other in _OF_OUR_TASKS:
        if getattr(config, other) != getattr(default, other):
            raise ConfigError(f"{key}.{other}: the tasks of lm-evaluation-harness bring their own; leave it out")


def _list_names(key: str, name: Any) -> list[str]:
    names = [name] if isinstance(name, str) else name
    if not isinstance(names, Sequence) or not names or not all(isinstance(each, str) and each for each in names):
        raise ConfigError(f"{key}.name={name}: must be the name of a task, group or tag, a pattern, or a list of these")
    return list(names)


def _plan(
    harness: HarnessTask, config: TaskConfig, shared: SharedOptions, composed: ComposedConfig, search: Search
) -> TaskPlan:
    _require_sampling(harness, search)
    run = shared.run
    own = replace(
        config,
        stop=list(harness.generation.stop),
        max_new_tokens=harness.generation.max_new_tokens,
        num_fewshot=harness.num_fewshot if config.num_fewshot is None else config.num_fewshot,
        likelihood=config.likelihood or _LIKELIHOODS.get(harness.kind),
    )
    if not is_given(composed, "demonstrations"):
        few_shot = choose_few_shot(f"task.{harness.task.name}", own, shared)
        seed = run.seed if is_given(composed, "seed") else SEED
        ids = [example.id for example in apply_limit(harness.task.examples, run.limit, run.limit_seed)]
        drawn = harness.draw(few_shot.num_fewshot, seed, ids)
        shared = replace(shared, few_shot=replace(few_shot, selector=drawn))
    scores = None if run.metrics or config.metrics else HarnessScores(harness)
    plan = build_plan(harness.task, own, shared, own_template=harness.template, record_metrics=scores)
    return replace(_require_answers(harness, plan), encode_answers=encode_answers)


def _require_answers(harness: HarnessTask, plan: TaskPlan) -> TaskPlan:
    """Return the plan without scores for which nothing is decoded; refuse likelihoods that the scores cannot use."""
    if plan.record_metrics is None or harness.kind == "loglikelihood":
        return plan
    if harness.kind == "generate_until":
        return plan if plan.max_new_tokens else replace(plan, record_metrics=None)
    if plan.likelihood is None or not plan.likelihood.ranks_choices:
        raise ConfigError(
            f"likelihood=references: task '{harness.task.name}' of lm-evaluation-harness scores its choices; leave it "
            "out, or choose other metrics"
        )
    return plan


def _require_sampling(harness: HarnessTask, search: Search) -> None:
    """Refuse a task that samples, unless the run samples as well."""
    repeats, sampling = harness.source.config.repeats or 1, harness.generation.sampling
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise ConfigError(
            f"task '{harness.task.name}' of lm-evaluation-harness: repeats={repeats!r}: must be 1 or more"
        )
    if sampling and search.name == "greedy":
        options = format_options({f"decoding.{key}": value for key, value in sampling.items()})
        raise ConfigError(
            f"task '{harness.task.name}' of lm-evaluation-harness samples its completions; add decoding=sample "
            f"{options}"
        )
    differing = {key: value for key, value in sampling.items() if search.recipe.get(key, value) != value}
    if differing:
        logger.warning("%s: the harness samples with %s", harness.task.name, format_options(differing))
    if repeats != search.num_samples:
        raise ConfigError(
            f"decoding.num_samples={search.num_samples}: task '{harness.task.name}' of lm-evaluation-harness takes "
            f"{count_noun(repeats, 'completion')} of each question (decoding=sample decoding.num_samples={repeats})"
        )
