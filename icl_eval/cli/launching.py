"""Launch the cells of a sweep, and go on if a worker dies.

A cell whose process dies has failed, and is not started again by the same command. The cells that a launcher gave up
because of it are launched again.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from icl_eval.cli.words import require_direct, say
from icl_eval.cli.workers import SubmittedJobs, find_culprits, separate_jobs, watching_workers
from icl_eval.errors import WorkerDiedError
from icl_eval.formatting import count_noun, join_lines
from icl_eval.runs.attempts import Attempt, is_alive, queue_attempt, read_attempt, remove_attempt
from icl_eval.runs.folders import FAILURE_FILE, REPORT_FILE, is_in_use, locking, write_overrides
from icl_eval.runs.reports import Failure, read_failure, write_json

_MAX_FRUITLESS = 3
"""The number of launches in a row that may break without any cell having ended."""
_SECONDS = 1.0
"""Time between two looks at a cell that another process is computing."""

_NO_LIMIT = 525600
"""Minutes in a year."""


@dataclass(frozen=True)
class LaunchedCell:
    """A cell of a sweep."""

    folder: Path
    number: int
    overrides: tuple[str, ...]
    """What distinguishes it, and what the cells share; without settings of Hydra."""
    arguments: tuple[str, ...]
    """What the launcher gets."""


@dataclass(frozen=True)
class LaunchEnd:
    """How a launch ended: the launcher's error, and the workers that caused it."""

    error: Exception | None
    culprits: dict[int | None, str] | None
    """See `find_culprits`."""
    jobs: SubmittedJobs | None


class RecoveringLauncher(Launcher):
    """Launches cells with another launcher until each of them has a report or has failed."""

    def __init__(self, launcher: Launcher, config_loader: ConfigLoader, config: DictConfig) -> None:
        self._launcher: Any = launcher
        self._config_loader = config_loader
        self._config = config

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Set up the other launcher."""
        self._launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Launch cells, and wait until each of them has a report or has failed."""
        cells = [self._find_cell(overrides, initial_job_idx + n) for n, overrides in enumerate(job_overrides)]
        self._announce_time_limit()
        waiting, fruitless = cells, 0
        while waiting:
            for cell in waiting:
                queue_attempt(cell.folder)
            end = self._launch_once(waiting)
            left = [cell for cell in waiting if not self._settle(cell, end)]
            fruitless = fruitless + 1 if end.error and len(left) == len(waiting) else 0
            if end.error and fruitless >= (_MAX_FRUITLESS if isinstance(end.error, BrokenExecutor) else 1):
                self._give_up(left, end.error)
                left = []
            if left:
                cause = f"the launcher stopped ({type(end.error).__name__}); " if end.error else ""
                say(f"{cause}launching {count_noun(len(left), 'cell')} again")
            waiting = left
        for cell in cells:
            remove_attempt(cell.folder)
        return []

    def _find_cell(self, overrides: Sequence[str], number: int) -> LaunchedCell:
        """Return a cell, with an override that keeps its folder the same if its number changes."""
        config = self._config_loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config.hydra.job):
            config.hydra.job.num = number
            config.hydra.job.id = f"{config.hydra.job.name}_{number}"
        name = str(config.hydra.sweep.subdir)
        quoted = name.replace("\\", "\\\\").replace("'", "\\'")
        folder = Path(str(config.hydra.sweep.dir)) / name
        require_direct(folder, Path(str(config.hydra.sweep.dir)))
        chosen = tuple(config.hydra.overrides.task)
        return LaunchedCell(folder, number, chosen, (*overrides, f"hydra.sweep.subdir='{quoted}'"))

    def _announce_time_limit(self) -> None:
        """Say what becomes of a cell that takes longer than its job may."""
        params = getattr(self._launcher, "params", {})
        if params.get("timeout_min", _NO_LIMIT) >= _NO_LIMIT:
            return
        count = params.get("max_num_timeout", 3)  # submitit's default, which its launcher for this machine keeps
        fate = f"is started again, up to {count} times, and resumes" if count else "fails; repeat the command to resume"
        say(f"a cell that takes longer than {params['timeout_min']} minutes (hydra.launcher.timeout_min) {fate}")

    def _launch_once(self, cells: Sequence[LaunchedCell]) -> LaunchEnd:
        error = None
        jobs = separate_jobs(self._launcher, f"{datetime.now(UTC):%Y-%m-%d_%H-%M-%S}_{os.getpid()}")
        with watching_workers() as ended:
            try:
                with jobs.answering() if jobs else nullcontext():
                    self._launcher.launch([cell.arguments for cell in cells], initial_job_idx=cells[0].number)
            except Exception as raised:
                error = raised
        return LaunchEnd(error, None if jobs else find_culprits(error, ended), jobs)

    def _settle(self, cell: LaunchedCell, end: LaunchEnd) -> bool:
        """Return whether a cell has ended, after writing why if it has died."""
        while (attempt := read_attempt(cell.folder)) and attempt.state == "running" and is_alive(cell.folder):
            time.sleep(_SECONDS)
        if attempt is None:
            return self._check_ended(cell, end)
        if attempt.state == "skipped":
            return self._wait_for_other(cell)
        if attempt.state == "queued" and end.error:
            return False
        if attempt.state == "running" and end.culprits is not None and attempt.pid not in end.culprits:
            return False
        self._fail(cell, self._describe_death(attempt, end))
        return True

    def _check_ended(self, cell: LaunchedCell, end: LaunchEnd) -> bool:
        failure = cell.folder / FAILURE_FILE
        if not failure.exists() and not (cell.folder / REPORT_FILE).exists():
            self._fail(cell, "it ended without a report")
        elif failure.exists() and end.jobs:  # its own words are in the job's output
            say(f"{cell.folder.name} failed: {read_failure(failure).message}")
        return True

    def _wait_for_other(self, cell: LaunchedCell) -> bool:
        if is_in_use(cell.folder):
            say(f"waiting for another run to end {cell.folder.name}")
        while is_in_use(cell.folder):
            time.sleep(_SECONDS)
        return (cell.folder / REPORT_FILE).exists()

    def _describe_death(self, attempt: Attempt, end: LaunchEnd) -> str:
        where = end.jobs.describe_end(attempt.job) if end.jobs else ""
        if attempt.state == "queued":
            return f"its job ended before the cell began{where}"
        how = (end.culprits or {}).get(attempt.pid, "")
        job = f"job {attempt.job}, " if end.jobs else ""
        return f"its process was killed{how} ({job}process {attempt.pid} on {attempt.host}){where}"

    def _fail(self, cell: LaunchedCell, reason: str) -> None:
        message = join_lines(reason)
        say(f"{cell.folder.name} failed: {message}")
        with locking(cell.folder):
            write_overrides(cell.folder, cell.overrides)
            write_json(
                asdict(Failure(WorkerDiedError.__name__, message, WorkerDiedError.exit_code)),
                cell.folder / FAILURE_FILE,
            )

    def _give_up(self, cells: Sequence[LaunchedCell], error: Exception) -> None:
        for cell in cells:
            self._fail(cell, f"the launcher failed ({type(error).__name__}: {join_lines(str(error))})")
