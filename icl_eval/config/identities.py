"""Collect the options that determine a run's records, to recognize the run in a folder.

Identities, and the configurations in reports, name each choice as the user does and never mention a class.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from icl_eval.decoding.engines import ENGINES, Engine
from icl_eval.decoding.searches import SEARCHES, Search
from icl_eval.demonstrations import CONTROLS, ORDERS, SELECTORS
from icl_eval.evaluation.answers import LIKELIHOODS
from icl_eval.evaluation.preparation import TaskPlan
from icl_eval.metrics import METRICS
from icl_eval.metrics.postprocessing import POSTPROCESSORS
from icl_eval.prompts.building import PLACEMENTS
from icl_eval.prompts.chat_templates import identify_chat_template
from icl_eval.runs.choices import flatten_options, map_choices
from icl_eval.targets import name_target

FAMILIES = {
    "engine": ENGINES,
    "decoding": SEARCHES,
    "placement": PLACEMENTS,
    "demonstrations": SELECTORS,
    "order": ORDERS,
    "control": CONTROLS,
    "likelihood": LIKELIHOODS,
    "postprocessing": POSTPROCESSORS,
    "metrics": METRICS,
}
"""The classes that each group of the configuration can build."""

_WITHOUT_EFFECT_IN_A_RUN = ("batch_size", "prefix_cache_mb", "device", "metrics", "postprocessing")
"""Keys of a run that only affect speed or scoring."""
_WITHOUT_EFFECT_ON_RECORDS = (
    *("name", "include_path", "trust_remote_code", "card", "pool", "test", "demonstration_fields"),
    *("metrics", "postprocessing"),
)
"""Keys of a task that only say where its data are or how it is scored; the data are identified by their content."""


def name_choices(config: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """Return a composed configuration with names instead of classes, and with the name of its template.

    Args:
        config: The configuration, as Hydra composes it.
        choices: The config chosen in each config group.

    Raises:
        ConfigError: If a `_target_` is not a class that its key accepts.
    """
    named = map_choices(config, lambda group, key, choice: name_target(choice, key, FAMILIES[group]))
    return {**named, "template": {"name": str(choices.get("template")), **config["template"]}}


def identity_of(
    config: Mapping[str, Any], plans: Sequence[TaskPlan], engine: Engine, search: Search, is_template_given: bool
) -> dict[str, Any]:
    """Return the options that determine a run's records, as a flat mapping.

    Options that only affect speed or scoring are left out. So are the locations of data and weights, which are
    identified by their content.

    Args:
        config: The configuration, with the names of its choices.
        plans: The tasks.
        engine: What runs the model.
        search: The search that produces the completions.
        is_template_given: Whether the template of the run replaces a task's own.
    """
    options = deepcopy(dict(config))
    model = options["model"]
    conventions = {key: model[key] for key in ("source_language", "target_language")}
    conventions["chat_template"] = identify_chat_template(model["chat_template"])
    conventions |= {key: model[key] for key in ("quantization", "attn_implementation") if model[key]}
    for key in (*_WITHOUT_EFFECT_IN_A_RUN, "model", "engine", "dtype"):
        del options[key]
    options |= engine.identity
    options["demonstrations"].pop("encoder", None)
    if options["control"].get("fraction") == 1:  # runs from before the option existed are the same runs
        del options["control"]["fraction"]
    options["model"] = conventions
    if options["limit_seed"] is None:
        del options["limit_seed"]  # so that older folders of runs still fit
    options["decoding"] = {"name": search.name, "stop": search.stop, **search.recipe}
    for plan in plans:
        task = options["task"][plan.task.name]
        for key in _WITHOUT_EFFECT_ON_RECORDS:
            del task[key]
        task["fields"].pop("cluster", None)  # decides how a record is scored
        if is_template_given:
            task["template"] = None
        task["data"] = plan.task.content_hash
    reverses = any(plan.likelihood is not None and plan.likelihood.reverses for plan in plans)
    for each in (options, *options["task"].values()):
        _drop_unused(each, reverses)
    return flatten_options(options)


def _drop_unused(options: dict[str, Any], reverses: bool) -> None:
    """Remove options of a run or a task without effect: runs from before they existed are the same runs.

    Args:
        options: The options.
        reverses: Whether the channel forms of templates are used.
    """
    likelihood = options["likelihood"] or {}
    unused = {"domain_texts": ("domain_texts", "seed"), "premise": ("premise",)}
    for switch, keys in unused.items():
        if likelihood.get(switch) is None:
            for key in keys:
                likelihood.pop(key, None)
    if options["template"] and not reverses:
        del options["template"]["channel"]
