"""Frames: finished runs as pandas data frames, so that analysis in a notebook begins in one line.

>>> import icl_eval
>>> runs = icl_eval.load_runs("outputs")
>>> runs.pivot_table("score", "num_fewshot", "task")
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_eval.runs.folders import Run, find_runs, leaving_out
from icl_eval.runs.records import Record
from icl_eval.runs.reports import MetricResult, TaskResult

if TYPE_CHECKING:
    import pandas


def load_runs(*roots: str | Path) -> "pandas.DataFrame":
    """Return the scores of all finished runs in some folders and below them, one row a score.

    A run that cannot be read is left out with a warning that names it.

    Columns are `run` (its folder), `model`, `architecture`, `template`, `placement`, `num_fewshot`, `seed`, `task`,
    `n`, `metric`, `score`, `stderr`, `ci_low`, `ci_high`, `higher_is_better`, `signature`; and every other option in
    which the runs differ, under its own name such as `order` or
    `demonstrations.per_question`.

    Args:
        roots: Folders; `outputs` where there are none.

    Raises:
        DataError: When a folder does not exist.
    """
    import pandas

    runs = _find(roots)
    varying = _varying(runs)
    rows = []
    for run in runs:
        own = {key: run.options.get(key) for key in varying}
        for task, result in run.report.results.items():
            rows += [{**_score_row(run, task, result, *found), **own} for found in result.metrics.items()]
    return pandas.DataFrame(rows)


def load_records(*roots: str | Path) -> "pandas.DataFrame":
    """Return the records of all finished runs in some folders and below them, one row a question.

    Columns are `run`, `task`, the fields of `icl_eval.runs.records.Record`, and in place of its `metrics` one column a
    metric, such as `metrics.exact_match`. A run, or a task of one, that cannot be read is left out with a warning.

    Raises:
        DataError: When a folder does not exist.
    """
    import pandas

    rows = []
    for run in _find(roots):
        for task in run.report.results:
            with leaving_out():
                rows += [_record_row(run, task, record) for record in run.records(task)]
    return pandas.DataFrame(rows)


def _record_row(run: Run, task: str, record: Record) -> dict[str, Any]:
    fields = asdict(record)
    scores = {f"metrics.{name}": value for name, value in fields.pop("metrics").items()}
    return {"run": str(run.folder), "task": task, **fields, **scores}


def _find(roots: Sequence[str | Path]) -> list[Run]:
    found = {run.folder.resolve(): run for root in roots or ("outputs",) for run in find_runs(Path(root))}
    return list(found.values())


def _score_row(run: Run, task: str, result: TaskResult, metric: str, found: MetricResult) -> dict[str, Any]:
    low, high = found.ci95 or (None, None)
    info = run.report.run
    return {
        "run": str(run.folder),
        "model": info.model,
        "architecture": info.architecture,
        "template": info.template,
        "placement": info.placement,
        "num_fewshot": info.num_fewshot,
        "seed": info.seed,
        "task": task,
        "n": result.n,
        "metric": metric,
        "score": found.score,
        "stderr": found.stderr,
        "ci_low": low,
        "ci_high": high,
        "higher_is_better": found.higher_is_better,
        "signature": found.signature,
    }


def _varying(runs: Sequence[Run]) -> list[str]:
    """Return the options whose values differ between runs and that no other column shows."""
    options = [run.options for run in runs]
    keys = dict.fromkeys(key for one in options for key in one)
    return [
        key for key in keys if key not in ("num_fewshot", "placement", "seed", "template") and _differs(key, options)
    ]


def _differs(key: str, options: Iterable[Mapping[str, Any]]) -> bool:
    return len({json.dumps(one.get(key), sort_keys=True) for one in options}) > 1
