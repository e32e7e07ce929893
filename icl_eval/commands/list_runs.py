"""The command `icl-eval list`: prints a table of the runs in some folders."""

import logging
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from icl_eval.errors import DataError
from icl_eval.formatting import count_noun, format_score, join_lines, mark_direction
from icl_eval.reporting.terminal import from_here, open_console
from icl_eval.runs.choices import flatten
from icl_eval.runs.folders import FAILURE_FILE, FINGERPRINT_FILE, REPORT_FILE, Run, no_folder, read_run, read_yaml
from icl_eval.runs.reports import read_failure

logger = logging.getLogger(__name__)

_MARKS = (REPORT_FILE, FAILURE_FILE, FINGERPRINT_FILE)
"""Files that a run writes when it finishes, when it fails, and when it starts."""


def print_runs(roots: Sequence[Path]) -> None:
    """Print one row per task of each run in some folders, searched recursively.

    Runs that cannot be read are left out, with a warning that names the file.

    Raises:
        DataError: When a folder does not exist, or none of the folders holds a readable run.
    """
    rows_by_folder = {folder: rows for folder in _find_run_folders(roots) if (rows := _read_rows(folder))}
    if not rows_by_folder:
        raise DataError(f"{', '.join(map(str, roots))}: no run found")
    table = Table(title=_title(list(rows_by_folder)), title_justify="left")
    for column in ("run", "model", "task"):
        table.add_column(column, overflow="fold")
    for column in ("k", "seed"):
        table.add_column(column, justify="right")
    for column in ("placement", "template", "metric"):
        table.add_column(column)
    table.add_column("score", justify="right")
    table.add_column("state")
    for folder, rows in rows_by_folder.items():
        for row in rows:
            table.add_row(str(from_here(folder)), *row)
    open_console().print(table)


def _find_run_folders(roots: Sequence[Path]) -> list[Path]:
    for root in roots:
        if not root.is_dir():
            raise DataError(f"{root}: {no_folder(root)}")
    return sorted({path.parent for root in roots for mark in _MARKS for path in root.rglob(mark)})


def _read_rows(folder: Path) -> list[list[str]]:
    try:
        return _finished_rows(read_run(folder)) if (folder / REPORT_FILE).exists() else [_unfinished_row(folder)]
    except DataError as error:
        reason = str(error)
    except Exception as error:  # the files may belong to another program and hold any YAML or JSON
        reason = f"{folder}: not a run ({join_lines(f'{type(error).__name__}: {error}')})"
    logger.warning("%s; left out", reason)
    return []


def _title(folders: Sequence[Path]) -> str:
    finished = sum((folder / REPORT_FILE).exists() for folder in folders)
    return f"{count_noun(len(folders), 'run')}, {finished} finished"


def _finished_rows(run: Run) -> list[list[str]]:
    """Return one row per task, with the task's first metric."""
    info = run.report.run
    rows = []
    for task, result in run.report.results.items():
        metric, first = next(iter(result.metrics.items()))
        score = format_score(first.score) + mark_direction(first.higher_is_better)
        shots = result.num_fewshot if info.num_fewshot is None else info.num_fewshot
        options = [str(shots), str(info.seed), info.placement, info.template]
        rows.append([info.model, task, *options, metric, score, f"finished, n={result.n}"])
    return rows


def _unfinished_row(folder: Path) -> list[str]:
    """Return the row of a run without a report. Options whose defaults depend on the model are left empty."""
    path = folder / ".hydra" / "config.yaml"
    config = read_yaml(path) if path.exists() else {}
    known = flatten(config)
    model, shots, seed = (
        "" if known.get(key) is None else str(known[key]) for key in ("model.source", "num_fewshot", "seed")
    )
    tasks = ", ".join(config.get("task") or {})
    return [Path(model).name, tasks, shots, seed, "", "", "", "", _state(folder)]


def _state(folder: Path) -> str:
    failure = folder / FAILURE_FILE
    if failure.exists():
        return f"failed: {read_failure(failure).message}"
    done = sum(path.read_bytes().count(b"\n") for path in folder.glob("samples_*.jsonl"))
    return f"unfinished, {count_noun(done, 'record')}"
