"""Count which tasks of lm-evaluation-harness can be run as tasks of this package, from their files alone.

    python -m benchmarks.census

What only the data shows is not counted: whether a data set can be loaded, and tasks whose choices each have a prompt of
their own, which are refused when they are loaded.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from lm_eval.tasks import TaskManager

from icl_eval.harnesses.lm_eval.registry import library_version

_KINDS = ("multiple_choice", "generate_until", "loglikelihood")


def find_obstacle(config: Mapping[str, Any]) -> str | None:
    """Return why a task cannot be run; None if nothing in its file prevents it."""
    generation = config.get("generation_kwargs") or {}
    metrics = [metric.get("metric") for metric in config.get("metric_list") or () if isinstance(metric, dict)]
    obstacles = {
        "a class of its own": "class" in config,
        "images or sounds": bool(config.get("doc_to_image") or config.get("doc_to_audio")),
        "runs code that the model writes": bool(config.get("unsafe_code")),
        "a prompt of promptsource": bool(config.get("use_prompt")),
        "rolling likelihoods of whole texts": config.get("output_type") == "loglikelihood_rolling",
        "acc_mutual_info": "acc_mutual_info" in metrics,
    }
    found = next((obstacle for obstacle, applies in obstacles.items() if applies), None)
    if found is None and config.get("output_type", "generate_until") not in _KINDS:
        return "another kind of request"
    if found is None and (generation.get("do_sample") or int(config.get("repeats") or 1) > 1):
        return "samples its completions (needs decoding=sample)"
    return found


def main() -> None:
    """Print the numbers of tasks by kind, and of those that cannot be run by reason."""
    index = TaskManager().task_index
    tasks = {name: entry.cfg for name, entry in index.items() if entry.kind.name in ("TASK", "PY_TASK")}
    found = {name: find_obstacle(config) for name, config in tasks.items()}
    print(f"lm-evaluation-harness {library_version()}: {len(index)} names, {len(tasks)} tasks")
    kinds = Counter(tasks[name].get("output_type", "generate_until") for name in tasks if found[name] is None)
    for kind, count in kinds.most_common():
        print(f"{count:7} run as they are: {kind}")
    for reason, count in Counter(filter(None, found.values())).most_common():
        print(f"{count:7} {reason}")


if __name__ == "__main__":
    main()
