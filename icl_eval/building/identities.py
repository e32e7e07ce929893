"""Identities: what decides a run's records, by which a folder's run is known again."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from icl_eval.config import RunConfig
from icl_eval.flattening import flatten
from icl_eval.preparation import TaskPlan
from icl_eval.searches import Search


def identity_of(config: RunConfig, plans: Sequence[TaskPlan], search: Search) -> dict[str, Any]:
    """Return what decides a run's records, flat.

    Left out are where data and weights are stored (what they hold counts), how fast to go, and how to score.
    """
    options = asdict(config)
    languages = {key: options["model"][key] for key in ("source_language", "target_language")}
    for key in ("model", "batch_size", "prefix_cache_mb", "device", "metrics", "postprocessing"):
        del options[key]
    options["demonstrations"].pop("encoder", None)
    options["model"] = languages
    options["decoding"] = {"search": search.name, "stop": search.stop, **search.recipe}
    for plan in plans:
        task = options["task"][plan.task.name]
        for key in ("pool", "test", "metrics", "postprocessing"):
            del task[key]
        task["data"] = plan.task.content_hash
    return flatten(options)
