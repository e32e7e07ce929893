"""Frames: finished runs as pandas data frames, so that analysis in a notebook begins in one line."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_eval.runs.folders import Run, find_runs, leaving_out
from icl_eval.runs.options import differing_keys
from icl_eval.runs.records import Record
from icl_eval.runs.reports import MetricResult, TaskResult

if TYPE_CHECKING:
    import pandas


_COLUMNS = ("num_fewshot", "placement", "seed", "template")
"""Options that have a column of their own."""


def load_runs(*roots: str | Path) -> "pandas.DataFrame":
    """Return the scores of all finished runs in some folders and below them, one row a score.

    A run that cannot be read is left out with a warning that names it.

    >>> run = icl_eval.evaluate(model="icl_t5", task="induction_numbers", num_fewshot=8, limit=4, folder="runs/first")
    >>> icl_eval.load_runs("runs")[["num_fewshot", "metric", "score"]].values.tolist()
    [[8, 'exact_match', 1.0]]

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
    varying = [key for key in differing_keys([run.options for run in runs]) if key not in _COLUMNS]
    rows = []
    for run in runs:
        own = {key: run.options.get(key) for key in varying}
        for task, result in run.report.results.items():
            rows += [{**_score_row(run, task, result, *found), **own} for found in result.metrics.items()]
    return pandas.DataFrame(rows)


def load_records(*roots: str | Path) -> "pandas.DataFrame":
    """Return the records of all finished runs in some folders and below them, one row a question.

    >>> run = icl_eval.evaluate(model="icl_t5", task="induction_numbers", num_fewshot=8, limit=4, folder="runs/first")
    >>> icl_eval.load_records("runs")["metrics.exact_match"].tolist()
    [1.0, 1.0, 1.0, 1.0]

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
        **found.as_columns(),
    }
