"""Identities: what decides a run's records, by which a folder's run is known again.

They and the configurations in reports name every choice as a user does, and no class.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from icl_eval.decoding.searches import SEARCHES, Search
from icl_eval.demonstrations import CONTROLS, ORDERS, SELECTORS
from icl_eval.evaluation.answers import LIKELIHOODS
from icl_eval.evaluation.preparation import TaskPlan
from icl_eval.metrics import METRICS
from icl_eval.postprocessing import POSTPROCESSORS
from icl_eval.prompts.building import PLACEMENTS
from icl_eval.runs.choices import flatten_options, map_choices
from icl_eval.targets import name_target

FAMILIES = {
    "decoding": SEARCHES,
    "placement": PLACEMENTS,
    "demonstrations": SELECTORS,
    "order": ORDERS,
    "control": CONTROLS,
    "likelihood": LIKELIHOODS,
    "postprocessing": POSTPROCESSORS,
    "metrics": METRICS,
}
"""What can be chosen in each group of the configuration."""


def name_choices(config: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """Return a composed configuration with names in place of classes, and with its template's name.

    Args:
        config: As Hydra composes it.
        choices: Which option was chosen for each config group.

    Raises:
        ConfigError: When something is to be built that its key does not take.
    """
    named = map_choices(config, lambda group, key, choice: name_target(choice, key, FAMILIES[group]))
    return {**named, "template": {"name": str(choices.get("template")), **config["template"]}}


def identity_of(config: Mapping[str, Any], plans: Sequence[TaskPlan], search: Search) -> dict[str, Any]:
    """Return what decides a run's records, flat.

    Left out are where data and weights are stored (what they hold counts), how fast to go, and how to score.

    Args:
        config: With the names of its choices.
        plans: The tasks.
        search: How completions are found.
    """
    options = deepcopy(dict(config))
    conventions = {key: options["model"][key] for key in ("source_language", "target_language", "chat_template")}
    for key in ("model", "batch_size", "prefix_cache_mb", "device", "metrics", "postprocessing"):
        del options[key]
    options["demonstrations"].pop("encoder", None)
    options["model"] = conventions
    options["decoding"] = {"name": search.name, "stop": search.stop, **search.recipe}
    for plan in plans:
        task = options["task"][plan.task.name]
        for key in ("pool", "test", "metrics", "postprocessing"):
            del task[key]
        task["data"] = plan.task.content_hash
    return flatten_options(options)
