"""Write a run in the format of lm-evaluation-harness, for the tools that read its results.

    org__model/results_2026-11-29T15-43-04.152543.json
    org__model/samples_qa_2026-11-29T15-43-04.152543.jsonl

The date is that of the run, so that the same run always gives the same bytes. What the format has no place for, such as
intervals and signatures, is under `icl_eval` in the results.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from icl_eval.harnesses.lm_eval.documents import find_versions
from icl_eval.harnesses.lm_eval.samples import (
    find_output_type,
    generation_options,
    hash_text,
    list_samples,
    split_name,
)
from icl_eval.metrics.intervals import NUM_RESAMPLES
from icl_eval.runs.folders import Run
from icl_eval.runs.records import Record
from icl_eval.runs.reports import MetricResult
from icl_eval.runs.writing import write_whole

_MISSING = "N/A"


def write_results(run: Run, folder: Path, model_name: str | None) -> list[Path]:
    """Write the results and the samples of a run, and return the paths of the files.

    Args:
        run: A finished run.
        folder: The folder for the folder of the model, created if necessary.
        model_name: The name of the model; None for the one in the report.

    Raises:
        DataError: If records are missing.
    """
    name = model_name or run.report.run.model
    place = folder / re.sub(r'["<>:/|\\?*\[\]]+', "__", name)
    place.mkdir(parents=True, exist_ok=True)
    date = run.finished.replace(tzinfo=None).isoformat(timespec="microseconds").replace(":", "-")
    records = {task: run.records(task) for task in run.report.results}
    samples = {task: list_samples(run, task, records[task]) for task in records}
    path = place / f"results_{date}.json"
    content = {**_describe_tasks(run, records), **_describe_run(run, name), "task_hashes": _digest(samples)}
    write_whole(json.dumps(content, indent=2, ensure_ascii=False) + "\n", path)
    paths = {place / f"samples_{task}_{date}.jsonl": lines for task, lines in samples.items()}
    for samples_path, lines in paths.items():
        write_whole("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), samples_path)
    return [path, *paths]


def _digest(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    keys = ("doc_hash", "prompt_hash", "target_hash")
    return {task: hash_text("".join(line[key] for line in lines for key in keys)) for task, lines in samples.items()}


def _describe_tasks(run: Run, records: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    report = run.report
    groups = {name: _list_scores(name, group.n, group.metrics) for name, group in report.groups.items()}
    return {
        "results": {
            **{task: _list_scores(task, result.n, result.metrics) for task, result in report.results.items()},
            **groups,
        },
        **({"groups": groups} if groups else {}),
        "group_subtasks": {name: list(group.tasks) for name, group in report.groups.items()},
        "configs": {task: _describe_task(run, task, records[task]) for task in report.results},
        "versions": {task: _find_version(run, task) for task in report.results},
        "n-shot": {task: result.num_fewshot for task, result in report.results.items()},
        "higher_is_better": {
            name: {split_name(metric)[0]: score.higher_is_better for metric, score in metrics.items()}
            for name, metrics in (
                (name, each.metrics) for part in (report.results, report.groups) for name, each in part.items()
            )
        },
        "n-samples": {task: _count(run, result.n) for task, result in report.results.items()},
    }


def _find_version(run: Run, task: str) -> str:
    """Return the harness's version of a task of its own, and otherwise the digest of the task's data."""
    found = filter(None, (find_versions(each.signature) for each in run.report.results[task].metrics.values()))
    return next((version for version, _ in found), run.report.provenance.datasets.get(task, _MISSING))


def _find_library(run: Run) -> dict[str, str]:
    """Return the version of the harness that scored the run; empty if it had no part in it."""
    metrics = (each for result in run.report.results.values() for each in result.metrics.values())
    found = filter(None, (find_versions(each.signature) for each in metrics))
    library = next((library for _, library in found), None)
    return {} if library is None else {"lm_eval": library}


def _list_scores(name: str, num_examples: int, metrics: Mapping[str, MetricResult]) -> dict[str, Any]:
    scores: dict[str, Any] = {"name": name, "alias": name, "sample_len": num_examples}
    for metric, score in metrics.items():
        own, filter_name = split_name(metric)
        scores[f"{own},{filter_name}"] = score.score
        scores[f"{own}_stderr,{filter_name}"] = _MISSING if score.known_stderr is None else score.known_stderr
    return scores


def _count(run: Run, num_examples: int) -> dict[str, int]:
    """Return the number of documents; the size of the whole test split is known if there was no limit."""
    config = run.report.provenance.config
    is_whole = "limit" in config and config["limit"] is None
    return ({"original": num_examples} if is_whole else {}) | {"effective": num_examples}


def _describe_task(run: Run, task: str, records: Sequence[Record]) -> dict[str, Any]:
    result, output_type = run.report.results[task], find_output_type(records)
    metrics = {split_name(name)[0]: _describe_metric(name, score, records) for name, score in result.metrics.items()}
    generation = {"generation_kwargs": generation_options(run, task)} if output_type == "generate_until" else {}
    return {
        "task": task,
        "output_type": output_type,
        "num_fewshot": result.num_fewshot,
        "metric_list": list(metrics.values()),
        **generation,
    }


def _describe_metric(name: str, score: MetricResult, records: Sequence[Record]) -> dict[str, Any]:
    """Return a metric's entry. Its aggregation is `mean` if the score is the mean of the values in the samples."""
    values = [record.metrics.get(name) for record in records]
    known = [value for value in values if value is not None]
    mean = math.fsum(known) / len(values) if len(known) == len(values) else math.nan
    is_mean = math.isclose(mean, score.score, rel_tol=1e-9, abs_tol=1e-9)
    metric = split_name(name)[0]
    return {
        "metric": metric,
        "aggregation": "mean" if is_mean else metric,
        "higher_is_better": score.higher_is_better,
    }


def _describe_run(run: Run, model_name: str) -> dict[str, Any]:
    report, config = run.report, run.report.provenance.config
    versions = {**report.provenance.versions, **_find_library(run)}
    return {
        "config": {
            "model": "icl_eval",
            "model_args": {"pretrained": model_name},
            "model_dtype": report.run.decoding.get("dtype"),
            **{key: config[key] for key in ("batch_size", "device", "limit") if key in config},
            "bootstrap_iters": NUM_RESAMPLES,
            "gen_kwargs": report.run.decoding.get("options"),
            "fewshot_seed": report.run.seed,
        },
        "git_hash": report.provenance.git_commit,
        "date": run.finished.timestamp(),
        **{f"{name}_version": versions[name] for name in ("lm_eval", "transformers", "icl_eval") if name in versions},
        "model_source": "icl_eval",
        "model_name": model_name,
        "model_name_sanitized": re.sub(r'["<>:/|\\?*\[\]]+', "__", model_name),
        "total_evaluation_time_seconds": str(sum(report.timing.seconds.values())),
        "icl_eval": {
            "run": _describe_options(run),
            "scores": {
                name: {
                    metric: {"ci95": score.ci95, "signature": score.signature} for metric, score in each.metrics.items()
                }
                for part in (report.results, report.groups)
                for name, each in part.items()
            },
        },
    }


def _describe_options(run: Run) -> dict[str, Any]:
    info = run.report.run
    return {
        name: getattr(info, name)
        for name in (
            "architecture",
            "template",
            "placement",
            "demonstrations",
            "order",
            "control",
            "seed",
            "fingerprint",
        )
    }
