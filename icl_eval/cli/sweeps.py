"""Sweeps: many runs into one table.

Each cell of a sweep is an ordinary run folder. When the last cell is finished, whatever the folders hold is
gathered into `sweep.json` and analysed; a cell that failed left `error.json` in place of a report.
"""

import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from icl_eval.cli.words import say
from icl_eval.config.overrides import require_distinct_cells
from icl_eval.errors import ConfigError, IclEvalError, UserError
from icl_eval.formatting import shown
from icl_eval.runs.cells import Cell, gather_cells
from icl_eval.runs.folders import FAILURE_FILE, read_run
from icl_eval.runs.reports import Failure, write_json

if TYPE_CHECKING:
    from icl_eval.analysis import SweepAnalysis


def write_failure(folder: Path, error: Exception) -> None:
    """Print that a cell failed, and leave a note in its folder of why."""
    message = " ".join(str(error).split())
    if not isinstance(error, IclEvalError):
        print(shown("".join(traceback.format_exception(error))), end="", file=sys.stderr)
        message = f"{type(error).__name__}: {message}"
    say(f"{folder.name} failed: {message}")
    exit_code = error.exit_code if isinstance(error, IclEvalError) else 1
    write_json(asdict(Failure(type(error).__name__, message, exit_code)), folder / FAILURE_FILE)


class SweepReport(Callback):
    """Writes `sweep.json` and `sweep.html` and prints the table when a sweep ends; tells of failed cells."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Forget earlier failures: a cell of this sweep gets another chance, one of another sweep is not ours."""
        overrides = cast("list[str]", OmegaConf.to_container(config.hydra.overrides.hydra))  # `${…}` is not resolved
        if any(override.startswith("hydra.run.dir=") for override in overrides):
            say("hydra.run.dir: a sweep's folder is hydra.sweep.dir")
            sys.exit(UserError.exit_code)
        try:
            require_distinct_cells(config.hydra.sweeper.get("params"), config.hydra.overrides.task)
        except ConfigError as error:
            say(str(error))
            sys.exit(error.exit_code)
        for note in Path(config.hydra.sweep.dir).glob(f"*/{FAILURE_FILE}"):
            note.unlink()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Gather all cells of the sweep's folder."""
        try:
            exit_code = finish_sweep(Path(config.hydra.sweep.dir))
        except Exception as error:  # Hydra would make a warning of it, and 0 the exit code
            message = str(error) if isinstance(error, IclEvalError) else _describe(error)
            say(f"the sweep cannot be summed up: {message}")
            exit_code = error.exit_code if isinstance(error, IclEvalError) else 1
        if exit_code:
            sys.exit(exit_code)


def finish_sweep(folder: Path) -> int:
    """Write `sweep.json` and `sweep.html`, print what is in them, and return the exit code.

    The cells are written and shown also where their analysis breaks down.
    """
    from icl_eval.analysis.sweeps import SCHEMA_VERSION, Sweep, write_sweep
    from icl_eval.reporting.pages.sweep_page import write_sweep_page
    from icl_eval.reporting.tables import print_analysis
    from icl_eval.reporting.terminal import print_sweep

    cells = gather_cells(folder)
    analysis, has_broken_down = _analyse(folder, cells)
    write_sweep(Sweep(SCHEMA_VERSION, tuple(cells), analysis), folder)
    write_sweep_page(folder)
    print_sweep(cells, folder)
    print_analysis(analysis)
    failed = [cell.error for cell in cells if cell.error]
    if failed:
        say(f"{len(failed)} of {len(cells)} cells failed")
    if has_broken_down:
        say(analysis.notes[0])
    is_users = bool(failed) and all(error.exit_code == UserError.exit_code for error in failed)
    return 1 if has_broken_down or (failed and not is_users) else UserError.exit_code if failed else 0


def _analyse(folder: Path, cells: Sequence[Cell]) -> "tuple[SweepAnalysis, bool]":
    """Return the analysis of a sweep's finished cells, or why there is none, and whether that is a fault of ours."""
    from icl_eval.analysis import SweepAnalysis, analyse_runs

    try:
        return analyse_runs([read_run(folder / cell.cell) for cell in cells if cell.results]), False
    except IclEvalError as error:
        return SweepAnalysis((), (), (f"no analysis: {error}",)), False
    except Exception as error:
        return SweepAnalysis((), (), (f"no analysis: {_describe(error)}",)), True


def _describe(error: Exception) -> str:
    """Return an unexpected error and where it was raised, in one line."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    message = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{message} ({Path(place.filename).name}:{place.lineno})"
