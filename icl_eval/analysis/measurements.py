"""Recompute the metrics of a finished run from its records, question by question.

A report holds only the score of a metric. Comparisons and analyses of variance need the statistics behind it, which
are recomputed from the records and the options in the report, without a model. The code of a metric defined outside
this package is not run: if the records store its values, these are used, and otherwise the score in the report.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icl_eval.analysis.matching import read_answers, require_same_questions
from icl_eval.errors import ConfigError, DataError
from icl_eval.metrics import Metric
from icl_eval.metrics.building import build_own_metrics
from icl_eval.metrics.measurements import Measurement, measure_records, measure_result
from icl_eval.metrics.ranges import RANGES
from icl_eval.runs.folders import REPORT_FILE, Run
from icl_eval.runs.records import Record

Measured = dict[Path, dict[tuple[str, str], Measurement]]
"""The measurements of each run, by its folder, then by task and metric."""


def gain(before: float | None, after: float | None) -> float:
    """Return the increase in a question's value; 0 if a value is missing or the difference is only rounding error."""
    if before is None or after is None or math.isclose(before, after, rel_tol=1e-9, abs_tol=1e-9):
        return 0.0
    return after - before


def find_range(measurements: Iterable[Measurement]) -> tuple[float, float]:
    """Return the lowest and the highest score that a metric can have; infinite where it is not known.

    Args:
        measurements: The metric's measurements. All of them count, since stored values may look like shares in one run
            and not in another.
    """
    lows, highs = zip(*map(_find_own_range, measurements), strict=True)
    return min(lows), max(highs)


def _find_own_range(measurement: Measurement) -> tuple[float, float]:
    if measurement.statistics.is_bounded:
        return 0.0, 1.0
    known = RANGES.get(measurement.metric)
    return (known.low, known.high) if known else (-math.inf, math.inf)


def measure(run: Run, tasks: tuple[str, ...] | None = None) -> list[Measurement]:
    """Recompute the metrics of a run's tasks, with the questions sorted by id.

    Args:
        run: A finished run.
        tasks: The tasks to measure; None for all of them.

    Raises:
        DataError: When records are missing or do not reproduce the score in the report, or when a metric of the report
            cannot be built.
    """
    chosen = tuple(run.report.results) if tasks is None else tasks
    return [each for task in chosen for each in measure_answers(run, task, read_answers(run, task))]


def measure_alike(runs: Sequence[Run], tasks: Sequence[str]) -> Measured:
    """Return the measurements of runs that answered the same questions.

    Records are read once, and only two runs' are held at a time.

    Raises:
        DataError: If the runs cannot be compared on a task; otherwise as `measure` does.
    """
    measured: Measured = {run.folder: {} for run in runs}
    for task in tasks:
        asked = read_answers(runs[0], task)
        for run in runs:
            answers = asked
            if run is not runs[0]:
                answers = read_answers(run, task)
                require_same_questions(runs[0], run, task, asked, answers)
            measured[run.folder] |= {(task, each.metric): each for each in measure_answers(run, task, answers)}
    return measured


def measure_answers(run: Run, task: str, records: Sequence[Record]) -> list[Measurement]:
    """Recompute the metrics of one task from its records, which `read_answers` returns; raises as `measure` does."""
    scores = run.report.results[task].metrics
    known = [metric for metric in _build_metrics(run, task) if metric.name in scores]  # empty without completions
    measurements = [each for each in measure_records(task, records, known) if each.metric in scores]
    measured = {measurement.metric for measurement in measurements}
    measurements += [
        measure_result(task, records, name, result) for name, result in scores.items() if name not in measured
    ]
    for measurement in measurements:
        expected = scores[measurement.metric].score
        if not np.isclose(measurement.score, expected, rtol=1e-9, atol=1e-9):
            raise DataError(
                f"{run.folder}: the records of task '{task}' give {measurement.metric}={measurement.score:.6g}, but "
                f"the report says {expected:.6g}; run the same command again to rescore them"
            )
    return measurements


def _build_metrics(run: Run, task: str) -> list[Metric]:
    """Build the built-in metrics that scored a task, from the configuration in the run's report."""
    config, where = run.report.provenance.config, f"{run.folder / REPORT_FILE}: provenance.config"
    key, options = "metrics", config.get("metrics")
    if not options:  # a run without metrics of its own, so that each task has its own
        key, options = f"task.{task}.metrics", _find(config, "task", task, "metrics")
    if not isinstance(options, Mapping):
        raise DataError(f"{where}.{key}: does not say how task '{task}' was scored")
    try:
        return build_own_metrics(options, key)
    except ConfigError as error:
        raise DataError(f"{where}.{error}") from None


def _find(config: Any, *names: str) -> Any:
    """Return a value of a nested configuration; None if it is missing."""
    for name in names:
        config = config.get(name) if isinstance(config, Mapping) else None
    return config
