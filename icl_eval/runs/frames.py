"""Load finished runs as pandas data frames, for analysis in a notebook."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_eval.errors import DataError
from icl_eval.runs.folders import Run, find_runs, skipping_unreadable
from icl_eval.runs.options import find_differing_keys
from icl_eval.runs.records import Record

if TYPE_CHECKING:
    import pandas


_COLUMNS = ("num_fewshot", "placement", "seed", "template")
"""Options that always have a column."""


def load_runs(*roots: str | Path) -> "pandas.DataFrame":
    """Return the scores of all finished runs in folders and their subfolders, with one row per score.

    A run that cannot be read is skipped with a warning that names it.

    >>> run = icl_eval.evaluate(model="icl_t5", task="induction_numbers", num_fewshot=8, limit=4, folder="runs/first")
    >>> icl_eval.load_runs("runs")[["num_fewshot", "metric", "score"]].values.tolist()
    [[8, 'exact_match', 1.0]]

    Columns are `run` (its folder), `model`, `architecture`, `template`, `placement`, `num_fewshot`, `seed`, `task`,
    `n`, `metric`, `score`, `stderr`, `ci_low`, `ci_high`, `higher_is_better` and `signature`. Every other option in
    which the runs differ has a column with its name, such as `order` or `demonstrations.per_question`.

    Args:
        roots: The folders to search; `outputs` if none are given.

    Raises:
        DataError: If a folder does not exist.
    """
    import pandas

    runs = _find(roots)
    options = [run.options for run in runs]
    varying = [key for key in find_differing_keys(options) if key not in _COLUMNS]
    rows = []
    for run, run_options in zip(runs, options, strict=True):
        own = {key: run_options.get(key) for key in varying}
        rows += [{**_describe(run, scores["task"]), **scores, **own} for scores in run.score_rows()]
    return pandas.DataFrame(rows)


def load_records(*roots: str | Path) -> "pandas.DataFrame":
    """Return the records of all finished runs in folders and their subfolders, with one row per question.

    >>> run = icl_eval.evaluate(model="icl_t5", task="induction_numbers", num_fewshot=8, limit=4, folder="runs/first")
    >>> icl_eval.load_records("runs")["metrics.exact_match"].tolist()
    [1.0, 1.0, 1.0, 1.0]

    Columns are `run`, `task` and the fields of `icl_eval.runs.records.Record`, with one column per metric, such as
    `metrics.exact_match`, instead of `metrics`. A run or task that cannot be read is skipped with a warning.

    Args:
        roots: The folders to search; `outputs` if none are given.

    Raises:
        DataError: If a folder does not exist.
    """
    import pandas

    rows = []
    for run in _find(roots):
        for task in run.report.results:
            with skipping_unreadable():
                rows += [_make_record_row(run, task, record) for record in run.records(task)]
    return pandas.DataFrame(rows)


def _make_record_row(run: Run, task: str, record: Record) -> dict[str, Any]:
    fields = asdict(record)
    scores = {f"metrics.{name}": value for name, value in fields.pop("metrics").items()}
    return {"run": str(run.folder), "task": task, **fields, **scores}


def _find(roots: Sequence[str | Path]) -> list[Run]:
    for root in roots:
        if not isinstance(root, str | Path):
            raise DataError(f"a {type(root).__name__} is not a folder; each must be the path of a folder with runs")
        if not str(root):
            raise DataError("'' is not a folder; each must be the path of a folder with runs")
    runs = {run.folder.resolve(): run for root in roots or ("outputs",) for run in find_runs(Path(root))}
    return list(runs.values())


def _describe(run: Run, task: str) -> dict[str, Any]:
    info = run.report.run
    own_shots = run.report.results[task].num_fewshot
    return {
        "run": str(run.folder),
        "model": info.model,
        "architecture": info.architecture,
        "template": info.template,
        "placement": info.placement,
        "num_fewshot": own_shots if info.num_fewshot is None else info.num_fewshot,
        "seed": info.seed,
    }
