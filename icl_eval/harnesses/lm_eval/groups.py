"""Groups of lm-evaluation-harness: the scores of several tasks as one, with the group's own weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from icl_eval.runs.reports import GroupResult, MetricResult, TaskResult

_NORMAL_95 = 1.959964
"""The 97.5 % quantile of the standard normal distribution."""


@dataclass(frozen=True)
class HarnessGroup:
    """A group and the tasks in it."""

    source: Any
    """The `lm_eval.api.group.Group`."""
    names: Mapping[str, str]
    """The name of each of its tasks in this package, by its name in the harness."""

    @property
    def name(self) -> str:
        """The name of the group."""
        return str(self.source.name)

    def aggregate(self, results: Mapping[str, TaskResult]) -> GroupResult | None:
        """Return the scores of the group, or None if it has none.

        The value is the harness's. Its standard error combines those of the tasks; the interval is that of a normal
        distribution.
        """
        scores = {theirs: _as_harness_result(results[ours]) for theirs, ours in self.names.items()}
        found = self.source.aggregate(scores)
        metrics = {}
        for key, value in found.items():
            metric, comma, filter_name = key.partition(",")
            if not comma or metric.endswith("_stderr"):
                continue
            stderr = found.get(f"{metric}_stderr,{filter_name}")
            stderr = stderr if isinstance(stderr, float) else None
            ends = None if stderr is None else (value - _NORMAL_95 * stderr, value + _NORMAL_95 * stderr)
            some = next(results[ours].metrics[key] for ours in self.names.values() if key in results[ours].metrics)
            signature = f"{key}|group:{self.name}|tasks:{len(self.names)}"
            metrics[key] = MetricResult(float(value), stderr, ends, signature, some.higher_is_better)
        if not metrics:
            return None
        tasks = tuple(self.names.values())
        return GroupResult(tasks, sum(results[task].n for task in tasks), metrics)


def _as_harness_result(result: TaskResult) -> dict[str, Any]:
    """Return the scores of a task under the keys of the harness's results."""
    scores: dict[str, Any] = {"sample_len": result.n}
    for key, metric in result.metrics.items():
        name, comma, filter_name = key.partition(",")
        if comma:
            scores[key] = metric.score
            scores[f"{name}_stderr,{filter_name}"] = "N/A" if metric.stderr is None else metric.stderr
    return scores
