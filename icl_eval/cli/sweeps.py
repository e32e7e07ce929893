"""Combine many runs into one table.

Each cell of a sweep is an ordinary run folder. After the last cell, the results of all cells are gathered into
`sweep.json` and analysed. A failed cell has a file `error.json`, which the next successful run of the cell removes.
"""

import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from icl_eval.cli.faults import summarize_error
from icl_eval.cli.words import say
from icl_eval.config.explaining import explaining_errors
from icl_eval.config.overrides import require_distinct_cells
from icl_eval.errors import ConfigError, FolderInUseError, IclEvalError, OutputError, UserError
from icl_eval.formatting import count_noun, escape_controls, join_lines

if TYPE_CHECKING:
    from icl_eval.analysis import SweepAnalysis
    from icl_eval.runs.cells import Cell


def _read_unresolved(node: Any) -> Any:
    """Return the content of a node, with `${…}` as it was typed."""
    return OmegaConf.to_container(node, resolve=False)


def report_failure(folder: Path, error: Exception) -> None:
    """Print why a cell failed, and write the reason into its folder.

    A cell has not failed if another run is writing it, or if it is finished and only its output could not be printed.

    Raises:
        OutputError: If the error is that the cell's output could not be printed.
        FolderInUseError: If another run has started to write the cell.
        OSError: If the reason cannot be written.
    """
    from icl_eval.runs.folders import FAILURE_FILE, locking
    from icl_eval.runs.reports import Failure, write_json

    known = summarize_error(error)
    if isinstance(known, OutputError):
        raise known
    if isinstance(known, FolderInUseError):
        say(f"{folder.name} is in use by another run; skipped")
        return
    message = join_lines(str(known or error))
    if known is None:
        print(escape_controls("".join(traceback.format_exception(error))), end="", file=sys.stderr)
        message = f"{type(error).__name__}: {message}"
    say(f"{folder.name} failed: {message}")
    failure = Failure(type(error).__name__, message, known.exit_code if known else 1)
    with locking(folder):
        write_json(asdict(failure), folder / FAILURE_FILE)


class SweepReport(Callback):
    """Writes `sweep.json` and `sweep.html`, prints the table, and reports failed cells at the end of a sweep."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check the sweep, and remove the failure files of earlier sweeps from its folder."""
        from icl_eval.runs.folders import FAILURE_FILE

        overrides = _read_unresolved(config.hydra.overrides.hydra)
        if any(override.startswith("hydra.run.dir=") for override in overrides):
            _refuse("hydra.run.dir: has no effect in a sweep; set hydra.sweep.dir instead")
        try:
            with explaining_errors(()):
                require_distinct_cells(
                    _read_unresolved(config.hydra.sweeper.get("params") or DictConfig({})),
                    _read_unresolved(config.hydra.overrides.task),
                )
        except ConfigError as error:
            _refuse(str(error))
        for path in Path(config.hydra.sweep.dir).glob(f"*/{FAILURE_FILE}"):
            path.unlink(missing_ok=True)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Let go of a cell's configuration, most of a megabyte, which Hydra would keep until the sweep ends."""
        job_return.cfg = job_return.hydra_cfg = None

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Gather and report all cells in the sweep's folder."""
        try:
            exit_code = finish_sweep(Path(config.hydra.sweep.dir))
        except Exception as error:  # Hydra would only log a warning and exit with 0
            known = summarize_error(error)
            if isinstance(known, OutputError):
                exit_code = known.exit_code
                say(f"{known}")
            else:
                message = join_lines(str(known or _describe(error)))
                say(f"the sweep cannot be summarized: {message}")
                exit_code = known.exit_code if known else 1
        if exit_code:
            sys.exit(exit_code)


def _refuse(sentence: str) -> NoReturn:
    say(sentence)
    sys.exit(UserError.exit_code)


def finish_sweep(folder: Path) -> int:
    """Write `sweep.json` and `sweep.html`, print their content, and return the exit code.

    The cells are written and printed even if their analysis fails. If two sweeps in the same folder end at the same
    time, the second waits for the first.
    """
    from icl_eval.analysis.sweeps import SCHEMA_VERSION, Sweep, write_sweep
    from icl_eval.reporting.output import ignore_closed_output
    from icl_eval.reporting.pages.sweep_page import write_sweep_page
    from icl_eval.reporting.sweep_tables import print_analysis
    from icl_eval.reporting.terminal import print_sweep
    from icl_eval.runs.cells import gather_cells
    from icl_eval.runs.folders import locking

    with locking(folder, timeout=-1):
        cells = gather_cells(folder)
        analysis, has_crashed = _analyse(folder, cells)
        write_sweep(Sweep(SCHEMA_VERSION, tuple(cells), analysis), folder)
        write_sweep_page(folder)
    exit_codes = [*_report_missing(folder, cells)]
    if has_crashed:
        say(analysis.notes[0])
        exit_codes.append(1)
    with ignore_closed_output():
        print_sweep(cells, folder)
        print_analysis(analysis)
    return min(exit_codes, default=0)  # 1, a failure, takes precedence over 2, a user's mistake


def _report_missing(folder: Path, cells: "Sequence[Cell]") -> Iterator[int]:
    """Print how many cells failed or are in use by another run, and yield the exit code of each."""
    from icl_eval.runs.folders import FAILURE_FILE, REPORT_FILE, is_in_use
    from icl_eval.runs.reports import read_failure

    failures = {path.parent: read_failure(path) for path in folder.glob(f"*/{FAILURE_FILE}")}
    if failures:
        earlier = sum(bool(cell.results) and folder / cell.cell in failures for cell in cells)
        note = f"; for {earlier} of them, an earlier run is shown" if earlier else ""
        say(f"{len(failures)} of {len(cells)} cells failed{note}")
    used = [path for path in folder.iterdir() if not (path / REPORT_FILE).exists() and is_in_use(path)]
    if used:
        say(f"{count_noun(len(used), 'cell')} in use by another run")
    elif not cells:
        say(f"{folder}: the sweep has no cells")
    yield from (failure.exit_code for failure in failures.values())
    if used or not cells:
        yield UserError.exit_code


def _analyse(folder: Path, cells: "Sequence[Cell]") -> "tuple[SweepAnalysis, bool]":
    """Return the analysis of a sweep's finished cells, or why there is none, and whether the analysis crashed."""
    from icl_eval.analysis import SweepAnalysis, analyse_runs
    from icl_eval.runs.folders import read_run

    try:
        return analyse_runs([read_run(folder / cell.cell) for cell in cells if cell.results]), False
    except IclEvalError as error:
        return SweepAnalysis((), (), (f"no analysis: {error}",)), False
    except Exception as error:
        return SweepAnalysis((), (), (f"no analysis: {_describe(error)}",)), True


def _describe(error: Exception) -> str:
    """Return an unexpected error and where it was raised, on one line."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    message = join_lines(f"{type(error).__name__}: {error}")
    return f"{message} ({Path(place.filename).name}:{place.lineno})"
