"""The results in a log: one for each metric of a task, with its uncertainty, its data and its options."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icl_eval.metrics.intervals import NUM_RESAMPLES, share_interval
from icl_eval.metrics.ranges import RANGES, ScoreRange
from icl_eval.runs.folders import Run
from icl_eval.runs.reports import MetricResult
from icl_eval.tasks.rows import DataSource

_ARGUMENTS = ("temperature", "top_p", "top_k")


def result_id(task: str, metric: str) -> str:
    """Return the identifier of a result, to which rows refer."""
    return f"{task}/{metric}"


def find_metric_range(metric: str, result: MetricResult, num_examples: int) -> ScoreRange | None:
    """Return the range of a metric; None if it is another program's or an average over samples.

    A variant of exact match (`exact_match_strict`) has its range. A share of right answers that another program
    computed is recognized by its interval, which is Wilson's.
    """
    is_variant = metric.startswith("exact_match_") and "|samples:" not in result.signature
    if is_variant or (result.stored and result.higher_is_better and is_wilson(result, num_examples)):
        return RANGES["exact_match"]
    return RANGES.get(metric.partition(",")[0])  # without the filter of another harness


def is_wilson(result: MetricResult, num_examples: int) -> bool:
    """Return whether the interval of a score is that of a share of right answers."""
    if result.ci95 is None or not 0 <= result.score <= 1:
        return False
    return tuple(result.ci95) == share_interval(result.score, num_examples)


def list_results(run: Run) -> list[dict[str, Any]]:
    """Return the results of a run."""
    return [
        {
            "evaluation_result_id": result_id(task, metric),
            "evaluation_name": task,
            "source_data": _describe_data(run, task),
            "metric_config": _describe_metric(metric, score, result.n),
            "score_details": _describe_score(score, result.n),
            "generation_config": _describe_generation(run, task, result.num_fewshot),
        }
        for task, result in run.report.results.items()
        for metric, score in result.metrics.items()
    ]


def _describe_metric(name: str, score: MetricResult, num_examples: int) -> dict[str, Any]:
    known = find_metric_range(name, score, num_examples)
    described = {
        "metric_id": name,
        "metric_name": name,
        "lower_is_better": not score.higher_is_better,
        "additional_details": {"signature": score.signature},
    }
    if known is None:
        return described
    return described | {
        "score_type": "continuous",  # which needs both limits
        "metric_unit": known.unit,
        "min_score": _as_limit(known.low),
        "max_score": _as_limit(known.high),
    }


def _as_limit(value: float) -> float | str:
    return value if math.isfinite(value) else f"{'-' if value < 0 else ''}Infinity"


def _describe_score(score: MetricResult, num_examples: int) -> dict[str, Any]:
    uncertainty: dict[str, Any] = {"num_samples": num_examples}
    if score.stderr is not None:
        uncertainty["standard_error"] = {"value": score.stderr, "method": _name_error(score)}
    if score.method in (None, "bootstrap") and score.stderr is not None:
        uncertainty["num_bootstrap_samples"] = NUM_RESAMPLES
    if score.ci95 is not None:
        uncertainty["confidence_interval"] = {
            "lower": score.ci95[0],
            "upper": score.ci95[1],
            "confidence_level": 0.95,
            "method": _name_interval(score, num_examples),
        }
    return {"score": score.score, "uncertainty": uncertainty}


def _name_error(score: MetricResult) -> str:
    return {"wilson": "analytic", "jackknife": "jackknife"}.get(score.method or "", "bootstrap")


def _name_interval(score: MetricResult, num_examples: int) -> str:
    if score.method is None:  # a report of an earlier version
        return "wilson" if is_wilson(score, num_examples) else "bootstrap percentile"
    return {"jackknife": "jackknife t of the logarithm", "bootstrap": "bootstrap percentile"}.get(
        score.method, score.method
    )


def _describe_data(run: Run, task: str) -> dict[str, Any]:
    """Return where a task's questions are from: a data set of the hub, or anything else, with a digest of it."""
    origin = run.report.provenance
    test = origin.config.get("task", {}).get(task, {}).get("test") or {}
    digest = {"additional_details": {"digest": origin.datasets[task]}} if task in origin.datasets else {}
    path, split = test.get("path"), test.get("split")
    if path and split and not DataSource(path).is_file and not Path(path).exists():
        name = {"hf_repo": path, "hf_split": split}
        return {"dataset_name": task, "source_type": "hf_dataset", **name, **digest}
    return {"dataset_name": task, "source_type": "other", **digest}


def _describe_generation(run: Run, task: str, num_fewshot: int) -> dict[str, Any]:
    info = run.report.run
    options: Mapping[str, Any] = info.decoding.get("options") or {}
    task_options = dict(info.decoding.get("tasks", {}).get(task, {}))
    limit = task_options.pop("max_new_tokens", task_options.pop("max_gen_toks", None))
    details = {
        "num_fewshot": num_fewshot,
        **{
            name: getattr(info, name)
            for name in ("demonstrations", "order", "control", "template", "placement", "seed")
        },
        "search": info.decoding.get("search"),
        **{name: value for name, value in {**options, **task_options}.items() if name not in _ARGUMENTS},
    }
    return {
        "generation_args": {
            **{name: options[name] for name in _ARGUMENTS if name in options},
            **({"max_tokens": limit} if limit else {}),
        },
        "additional_details": {
            name: value if isinstance(value, str) else json.dumps(value) for name, value in details.items()
        },
    }
