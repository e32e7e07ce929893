"""Groups of lm-evaluation-harness: the scores of several tasks as one, with the group's own weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from icl_eval.metrics.intervals import NORMAL_QUANTILE, share_interval
from icl_eval.runs.reports import GroupResult, MetricResult, TaskResult


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

        The value is the harness's. Its standard error combines those of the tasks.
        """
        tasks = {theirs: results[ours] for theirs, ours in self.names.items()}
        found = self.source.aggregate({name: _as_harness_result(result) for name, result in tasks.items()})
        return score_group(self.name, found, {ours: results[ours] for ours in self.names.values()})


def score_group(name: str, found: Mapping[str, Any], results: Mapping[str, TaskResult]) -> GroupResult | None:
    """Return the scores of a group, or None if it has none.

    Args:
        name: The name of the group.
        found: Its scores as the harness writes them: `{"acc,none": 0.5, "acc_stderr,none": 0.02}`.
        results: The results of its tasks.
    """
    num_examples = sum(result.n for result in results.values())
    metrics = {}
    for key, value in found.items():
        metric, comma, filter_name = key.partition(",")
        parts = [result.metrics[key] for result in results.values() if key in result.metrics]
        if comma and parts and isinstance(value, int | float):
            stderr = found.get(f"{metric}_stderr,{filter_name}")
            stderr = stderr if isinstance(stderr, float) else None
            signature = f"{key}|group:{name}|tasks:{len(results)}"
            result = MetricResult(float(value), stderr or None, None, signature, parts[0].higher_is_better)
            if stderr is not None:
                ends, method = _find_interval(value, stderr, num_examples, parts)
                result = replace(result, ci95=ends, method=method)
            metrics[key] = result
    return GroupResult(tuple(results), num_examples, metrics) if metrics else None


def _find_interval(
    value: float, stderr: float, num_examples: int, parts: Sequence[MetricResult]
) -> tuple[tuple[float, float], str]:
    """Return the 95 % interval of a group's score, and how it is computed.

    For shares of right answers it is Wilson's, with the number of questions of which a simple share would have the same
    standard error; for other means it is that of a normal distribution.
    """
    if all(0 <= end <= 1 for part in parts for end in (part.ci95 or (value,))):
        variance = value * (1 - value)
        return share_interval(value, variance / stderr**2 if stderr and variance > 0 else num_examples), "wilson"
    return (value - NORMAL_QUANTILE * stderr, value + NORMAL_QUANTILE * stderr), "normal"


def _as_harness_result(result: TaskResult) -> dict[str, Any]:
    """Return the scores of a task under the keys of the harness's results."""
    scores: dict[str, Any] = {"sample_len": result.n}
    for key, metric in result.metrics.items():
        name, comma, filter_name = key.partition(",")
        if comma:
            scores[key] = metric.score
            scores[f"{name}_stderr,{filter_name}"] = "N/A" if metric.known_stderr is None else metric.known_stderr
    return scores
