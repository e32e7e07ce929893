"""Sweeps: many runs into one table.

Each cell of a sweep is an ordinary run folder. When the last cell is finished, whatever the folders hold is
gathered into `sweep.json` and analysed; a cell that failed left a note, `error.json`, which its next run removes
when it finishes.
"""

import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from icl_eval.cli.faults import in_one_line
from icl_eval.cli.words import say
from icl_eval.config.explaining import explained
from icl_eval.config.overrides import require_distinct_cells
from icl_eval.errors import ConfigError, FolderInUseError, IclEvalError, OutputError, UserError
from icl_eval.formatting import counted, one_line, shown
from icl_eval.runs.cells import Cell, gather_cells
from icl_eval.runs.folders import FAILURE_FILE, REPORT_FILE, holding, is_in_use, read_run
from icl_eval.runs.reports import Failure, read_failure, write_json

if TYPE_CHECKING:
    from icl_eval.analysis import SweepAnalysis


def _unresolved(node: Any) -> Any:
    """Return what a node holds, with `${…}` as it was typed."""
    return OmegaConf.to_container(node, resolve=False)


def tell_of_failure(folder: Path, error: Exception) -> None:
    """Print that a cell failed, and leave a note in its folder of why.

    A cell that another run is writing has not failed, nor has one that is finished and could not be printed.

    Raises:
        OutputError: What the cell could not print.
        FolderInUseError: When another run has begun to write the cell.
        OSError: When the note cannot be written.
    """
    known = in_one_line(error)
    if isinstance(known, OutputError):
        raise known
    if isinstance(known, FolderInUseError):
        say(f"{folder.name} is in use by another run, and left to it")
        return
    message = one_line(str(known or error))
    if known is None:
        print(shown("".join(traceback.format_exception(error))), end="", file=sys.stderr)
        message = f"{type(error).__name__}: {message}"
    say(f"{folder.name} failed: {message}")
    note = Failure(type(error).__name__, message, known.exit_code if known else 1)
    with holding(folder):
        write_json(asdict(note), folder / FAILURE_FILE)


class SweepReport(Callback):
    """Writes `sweep.json` and `sweep.html` and prints the table when a sweep ends; tells of failed cells."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Forget earlier failures: a cell of this sweep gets another chance, one of another sweep is not ours."""
        overrides = _unresolved(config.hydra.overrides.hydra)
        if any(override.startswith("hydra.run.dir=") for override in overrides):
            _refuse("hydra.run.dir: a sweep's folder is hydra.sweep.dir")
        try:
            with explained(()):
                require_distinct_cells(
                    _unresolved(config.hydra.sweeper.get("params") or DictConfig({})),
                    _unresolved(config.hydra.overrides.task),
                )
        except ConfigError as error:
            _refuse(str(error))
        for note in Path(config.hydra.sweep.dir).glob(f"*/{FAILURE_FILE}"):
            note.unlink(missing_ok=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Gather all cells of the sweep's folder."""
        try:
            exit_code = finish_sweep(Path(config.hydra.sweep.dir))
        except Exception as error:  # Hydra would make a warning of it, and 0 the exit code
            known = in_one_line(error)
            if isinstance(known, OutputError):
                exit_code = known.exit_code
                say(f"{known}")
            else:
                message = one_line(str(known or _describe(error)))
                say(f"the sweep cannot be summed up: {message}")
                exit_code = known.exit_code if known else 1
        if exit_code:
            sys.exit(exit_code)


def _refuse(sentence: str) -> NoReturn:
    say(sentence)
    sys.exit(UserError.exit_code)


def finish_sweep(folder: Path) -> int:
    """Write `sweep.json` and `sweep.html`, print what is in them, and return the exit code.

    The cells are written and shown also where their analysis breaks down. Of two sweeps that end at once in one folder,
    the second waits for the first.
    """
    from icl_eval.analysis.sweeps import SCHEMA_VERSION, Sweep, write_sweep
    from icl_eval.reporting.output import ignore_closed_output
    from icl_eval.reporting.pages.sweep_page import write_sweep_page
    from icl_eval.reporting.tables import print_analysis
    from icl_eval.reporting.terminal import print_sweep

    with holding(folder, patience=-1):
        cells = gather_cells(folder)
        analysis, has_broken_down = _analyse(folder, cells)
        write_sweep(Sweep(SCHEMA_VERSION, tuple(cells), analysis), folder)
        write_sweep_page(folder)
    exit_codes = [*_tell_of_missing(folder, cells)]
    if has_broken_down:
        say(analysis.notes[0])
        exit_codes.append(1)
    with ignore_closed_output():
        print_sweep(cells, folder)
        print_analysis(analysis)
    return min(exit_codes, default=0)  # 1, a failure, tells more than 2, a mistake


def _tell_of_missing(folder: Path, cells: Sequence[Cell]) -> Iterator[int]:
    """Say how many cells failed or are another run's, and yield what each makes the exit code."""
    failures = {path.parent: read_failure(path) for path in folder.glob(f"*/{FAILURE_FILE}")}
    if failures:
        earlier = sum(bool(cell.results) and folder / cell.cell in failures for cell in cells)
        note = f"; of {earlier} of them an earlier run is shown" if earlier else ""
        say(f"{len(failures)} of {len(cells)} cells failed{note}")
    used = [path for path in folder.iterdir() if not (path / REPORT_FILE).exists() and is_in_use(path)]
    if used:
        say(f"{counted(len(used), 'cell')} in use by another run")
    elif not cells:
        say(f"{folder}: the sweep has no cells")
    yield from (failure.exit_code for failure in failures.values())
    if used or not cells:
        yield UserError.exit_code


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
    message = one_line(f"{type(error).__name__}: {error}")
    return f"{message} ({Path(place.filename).name}:{place.lineno})"
