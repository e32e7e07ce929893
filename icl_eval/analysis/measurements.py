"""Measurements: a finished run's metrics computed again from its records, question by question.

A report holds a metric's score; whoever compares runs, or asks where their spread comes from, needs the statistics
behind it. They come from the records and from the options in the report, and never from a model. A metric from
elsewhere has the score that the report says.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from icl_eval.errors import ConfigError, DataError
from icl_eval.metrics import Metric, Statistics
from icl_eval.metrics.building import build_own_metrics
from icl_eval.metrics.measurements import Measurement, measure_records
from icl_eval.runs.folders import REPORT_FILE, Run
from icl_eval.runs.reports import MetricResult


def gain(before: float | None, after: float | None) -> float:
    """Return by how much a question's own value rose; 0 without values, and where only rounding sets them apart."""
    if before is None or after is None or math.isclose(before, after, rel_tol=1e-9, abs_tol=1e-9):
        return 0.0
    return after - before


def measure(run: Run, tasks: tuple[str, ...] | None = None) -> list[Measurement]:
    """Compute the metrics of a run's tasks again, with the questions sorted by their ids.

    Args:
        run: A finished run.
        tasks: Only these of its tasks; None for all.

    Raises:
        DataError: When records are missing, or do not give the score that the report holds, or a metric of the report
            cannot be built.
    """
    chosen = tuple(run.report.results) if tasks is None else tasks
    return [measurement for task in chosen for measurement in _measure_task(run, task)]


def _measure_task(run: Run, task: str) -> list[Measurement]:
    records = sorted(run.records(task), key=lambda record: record.example_id)
    scores = run.report.results[task].metrics
    known = [metric for metric in _build_metrics(run, task) if metric.name in scores]  # none without completions
    found = measure_records(task, records, known)
    measured = {measurement.metric for measurement in found}
    ids = tuple(record.example_id for record in records)
    found += [
        Measurement(task, name, result.higher_is_better, ids, _recorded(result, len(ids)))
        for name, result in scores.items()
        if name not in measured
    ]
    for measurement in found:
        expected = scores[measurement.metric].score
        if not np.isclose(measurement.score, expected, rtol=1e-9, atol=1e-9):
            raise DataError(
                f"{run.folder}: the records of task '{task}' give {measurement.metric}={measurement.score:.6g}, the "
                f"report says {expected:.6g}; score them again by running the same command"
            )
    return found


def _recorded(result: MetricResult, num_examples: int) -> Statistics:
    """Return what a report says of a metric from elsewhere, whose code is not run again."""
    return Statistics(
        value=result.score,
        rows=np.empty((num_examples, 0)),
        score_sums=None,
        per_example=(None,) * num_examples,
        signature=result.signature,
    )


def _build_metrics(run: Run, task: str) -> list[Metric]:
    """Build the metrics of ours that scored a task, from the configuration in a run's report."""
    config, where = run.report.provenance.config, f"{run.folder / REPORT_FILE}: provenance.config"
    key, options = "metrics", config.get("metrics")
    if not options:
        key, options = f"task.{task}.metrics", _find(config, "task", task, "metrics")
    if not isinstance(options, Mapping):
        raise DataError(f"{where}.{key}: does not say how task '{task}' was scored")
    try:
        return build_own_metrics(options, key)
    except ConfigError as error:
        raise DataError(f"{where}.{error}") from None


def _find(config: Any, *names: str) -> Any:
    """Return what a nested configuration holds; None where it does not have it."""
    for name in names:
        config = config.get(name) if isinstance(config, Mapping) else None
    return config
