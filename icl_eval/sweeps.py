"""Sweeps: many runs into one table.

Each cell of a sweep is an ordinary run folder. When the last cell is finished, whatever the folders hold is
gathered into `sweep.json` and analysed; a cell that failed left `error.json` in place of a report.
"""

import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from icl_eval.errors import IclEvalError, UserError
from icl_eval.reports import Failure, read_failure, write_json
from icl_eval.runs import FAILURE_FILE, REPORT_FILE, leaving_out, read_run

if TYPE_CHECKING:
    from icl_eval.analysis import SweepAnalysis


def write_failure(folder: Path, error: Exception) -> None:
    """Say at once that a cell failed, and leave a note in its folder."""
    message = " ".join(str(error).split())
    if not isinstance(error, IclEvalError):
        traceback.print_exception(error)
        message = f"{type(error).__name__}: {message}"
    print(f"icl-eval: {folder.name} failed: {message}", file=sys.stderr)
    exit_code = error.exit_code if isinstance(error, IclEvalError) else 1
    write_json(asdict(Failure(type(error).__name__, message, exit_code)), folder / FAILURE_FILE)


class SweepReport(Callback):
    """Writes `sweep.json` and `sweep.html` and prints the table when a sweep ends; tells of failed cells."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Forget earlier failures: a cell of this sweep gets another chance, one of another sweep is not ours."""
        overrides = cast("list[str]", OmegaConf.to_container(config.hydra.overrides.hydra))  # `${…}` is not resolved
        if any(override.startswith("hydra.run.dir=") for override in overrides):
            print("icl-eval: hydra.run.dir: a sweep's folder is hydra.sweep.dir", file=sys.stderr)
            sys.exit(UserError.exit_code)
        for note in Path(config.hydra.sweep.dir).glob(f"*/{FAILURE_FILE}"):
            note.unlink()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Gather all cells of the sweep's folder."""
        try:
            exit_code = finish_sweep(Path(config.hydra.sweep.dir))
        except Exception as error:  # Hydra would make a warning of it, and 0 the exit code
            message = str(error) if isinstance(error, IclEvalError) else _describe(error)
            print(f"icl-eval: the sweep cannot be summed up: {message}", file=sys.stderr)
            exit_code = error.exit_code if isinstance(error, IclEvalError) else 1
        if exit_code:
            sys.exit(exit_code)


def finish_sweep(folder: Path) -> int:
    """Write `sweep.json` and `sweep.html`, print what is in them, and return the exit code.

    The cells are written and shown also where their analysis breaks down.
    """
    from icl_eval.analysis.printing import print_analysis
    from icl_eval.pages.sweep_page import write_sweep_page
    from icl_eval.terminal import print_sweep

    cells = gather_cells(folder)
    analysis, has_broken_down = _analyse(folder, cells)
    write_json({"schema_version": 1, "cells": cells, "analysis": asdict(analysis)}, folder / "sweep.json")
    write_sweep_page(folder)
    print_sweep(cells, folder)
    print_analysis(analysis)
    failed = [cell for cell in cells if "error" in cell]
    if failed:
        print(f"icl-eval: {len(failed)} of {len(cells)} cells failed", file=sys.stderr)
    if has_broken_down:
        print(f"icl-eval: {analysis.notes[0]}", file=sys.stderr)
    is_users = bool(failed) and all(cell["error"]["exit_code"] == UserError.exit_code for cell in failed)
    return 1 if has_broken_down or (failed and not is_users) else UserError.exit_code if failed else 0


def _analyse(folder: Path, cells: Sequence[Mapping[str, Any]]) -> "tuple[SweepAnalysis, bool]":
    """Return the analysis of a sweep's finished cells, or why there is none, and whether that is a fault of ours."""
    from icl_eval.analysis import SweepAnalysis, analyse_sweep

    try:
        return analyse_sweep(folder, [cell for cell in cells if "error" not in cell]), False
    except IclEvalError as error:
        return SweepAnalysis((), (), (f"no analysis: {error}",)), False
    except Exception as error:
        return SweepAnalysis((), (), (f"no analysis: {_describe(error)}",)), True


def _describe(error: Exception) -> str:
    """Return an unexpected error and where it was raised, in one line."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    message = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{message} ({Path(place.filename).name}:{place.lineno})"


def gather_cells(folder: Path) -> list[dict[str, Any]]:
    """Return what each cell of a sweep came to, in the order of the cells' overrides.

    A cell is `{"cell": …, "overrides": […]}` with either `run` and `results` as in its report, or `error`. One whose
    report, or note of a failure, is none is left out with a warning that names it.
    """
    cells = []
    for path in folder.iterdir():
        if not (path / ".hydra").is_dir():
            continue
        with leaving_out():
            found = _read_cell(path)
            if found:
                cells.append({"cell": path.name, "overrides": _overrides(path), **found})
    return sorted(cells, key=_natural)


def _read_cell(folder: Path) -> dict[str, Any]:
    """Return what a cell came to; nothing of one that never began or was killed, which the same command finishes."""
    if (folder / FAILURE_FILE).exists():
        return {"error": asdict(read_failure(folder / FAILURE_FILE))}
    if (folder / REPORT_FILE).exists():
        report = asdict(read_run(folder).report)
        return {"run": report["run"], "results": report["results"]}
    return {}


def _overrides(folder: Path) -> list[str]:
    path = folder / ".hydra" / "overrides.yaml"
    return [str(override) for override in OmegaConf.load(path)] if path.exists() else []


def _natural(cell: dict[str, Any]) -> list[tuple[int, str]]:
    """Sort key by which `num_fewshot=8` comes before `num_fewshot=16`; a long name shows only a digest of that."""
    text = " ".join([*cell["overrides"], cell["cell"]])
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
