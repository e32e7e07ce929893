"""Notice worker processes and jobs of a launcher that end without a result.

joblib's pool kills all its workers when one of them dies, and does not tell which one did. submitit raises an error for
the first job that has died, although others go on, and without Slurm's accounting waits for its result forever.
"""

import contextlib
import multiprocessing
import os
import pickle
import re
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus

_SECONDS = 0.1
"""Time between two looks for new worker processes; a worker needs longer to start."""
_SECONDS_OF_PARENT = 0.5
"""Time between two looks at the parent process."""
_SECONDS_OF_JOBS = 2.0
"""Time between two looks at jobs."""


@contextmanager
def watching_workers() -> Iterator[list[BaseProcess]]:
    """Yield a list to which the child processes that end within a `with` block are added, the first one first."""
    ended: list[BaseProcess] = []
    stop = threading.Event()
    watcher = threading.Thread(target=_collect_ended, args=(ended, stop), daemon=True)
    watcher.start()
    try:
        yield ended
    finally:
        stop.set()
        watcher.join()


def _collect_ended(ended: list[BaseProcess], stop: threading.Event) -> None:
    """Add processes in the order in which the operating system closes the pipes that they hold."""
    known: set[int | None] = set()
    with selectors.DefaultSelector() as selector:
        while True:
            is_last = stop.is_set()
            for process in multiprocessing.active_children():
                if process.pid not in known:
                    known.add(process.pid)
                    selector.register(os.dup(process.sentinel), selectors.EVENT_READ, process)
            for key, _ in selector.select(0 if is_last else _SECONDS):
                selector.unregister(key.fd)
                os.close(key.fd)
                ended.append(key.data)
            if is_last:
                break
        for key in list(selector.get_map().values()):
            os.close(key.fd)


@cache
def end_with_parent(pid: int) -> None:
    """Let a worker of joblib's pool end when its parent dies, or has died already: it would wait for work forever.

    Args:
        pid: The process that runs the sweep. Nothing is done if it is this one, or if this one is a job.
    """
    if os.getpid() != pid and multiprocessing.current_process().name != "MainProcess":
        threading.Thread(target=_end_without, args=(pid,), daemon=True).start()


def _end_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_OF_PARENT)
    os._exit(1)  # as if it had been killed too: records that are written stay, and the next sweep resumes


def find_culprits(error: Exception | None, ended: Sequence[BaseProcess]) -> dict[int | None, str] | None:
    """Return the workers that broke a pool, each with how it ended; the pool has killed the others.

    Args:
        error: What the launcher raised.
        ended: The worker processes that have ended, the first one first.

    Returns:
        Process ids with their reasons; None if no pool was involved, so that every process that ended did so by itself.
    """
    if not ended or error is None:
        return None
    if not isinstance(error, BrokenExecutor):
        return {}  # joblib ends all workers when one of them raises an error
    count = len(re.findall(r"\(-?\d+\)", str(error)))  # loky's list of the exit codes that it found first
    return {process.pid: _describe_exit(process.exitcode) for process in ended[: max(count, 1)]}


def _describe_exit(code: int | None) -> str:
    if code is None or code >= 0:
        return "" if code is None else f": it ended with exit code {code}"
    hint = ", as when memory runs out" if -code == signal.SIGKILL else ""
    return f" by {signal.Signals(-code).name}{hint}"


@dataclass(frozen=True)
class SubmittedJobs:
    """The jobs that submitit has submitted into a folder."""

    folder: Path
    is_local: bool

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Write an empty result within a `with` block for each job that died, so that submitit does not wait for it.

        The block ends when all jobs have ended, even if it raised an error.
        """
        stop = threading.Event()
        watcher = threading.Thread(target=self._answer, args=(stop,), daemon=True)
        watcher.start()
        try:
            yield
        except Exception:
            while self._list_waiting():
                time.sleep(_SECONDS_OF_JOBS)
            raise
        finally:
            stop.set()

    def describe_end(self, job: str) -> str:
        """Return what Slurm wrote last about a job that died, and where the job's output is."""
        paths = list(self.folder.rglob(f"{job}_0_log.err"))
        if not paths:
            return f"; the output of all jobs is in {self.folder}"
        lines = paths[0].read_text(encoding="utf-8", errors="replace").split("\n")
        errors = [line for line in lines if re.match("(srun|slurmstepd): error:", line)]
        said = f" ({errors[-1]})" if errors else ""
        return f"{said}; its output is in {paths[0].parent}"

    def _answer(self, stop: threading.Event) -> None:
        """Answer for each job that is found dead twice in a row."""
        suspects: set[Path] = set()
        while not stop.wait(_SECONDS_OF_JOBS):
            waiting = self._list_waiting()
            alive = self._list_alive(list(waiting))
            if alive is None:
                continue
            dead = {path for job, path in waiting.items() if job not in alive}
            for path in dead & suspects:
                _write_empty_result(path)
            suspects = dead

    def _list_waiting(self) -> dict[str, Path]:
        """Return the jobs without a result, each with the file in which submitit expects it."""
        jobs = {path.name.removesuffix("_submitted.pkl"): path for path in self.folder.rglob("*_submitted.pkl")}
        results = {job: path.with_name(f"{job}_0_result.pkl") for job, path in jobs.items()}
        return {job: path for job, path in results.items() if not path.exists()}

    def _list_alive(self, jobs: Sequence[str]) -> set[str] | None:
        """Return those jobs that are queued or running; None if Slurm does not answer."""
        if self.is_local:
            return {job for job in jobs if _is_running(int(job))}
        command = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%F %F_%K"]
        try:
            return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        except (OSError, subprocess.CalledProcessError):
            return None


def separate_jobs(launcher: Any, name: str) -> SubmittedJobs | None:
    """Let a launcher of submitit put its jobs into a folder of their own, and return them; None for other launchers.

    A job may have the id of an earlier one, whose result submitit would take for its own.

    Args:
        launcher: The launcher.
        name: The name of the new folder.
    """
    params = getattr(launcher, "params", {})
    if "submitit_folder" not in params:
        return None
    parts = Path(params["submitit_folder"]).parts
    folder = Path(*takewhile(lambda part: "%" not in part, parts)) / name
    params["submitit_folder"] = str(folder / "%j")
    return SubmittedJobs(folder, type(launcher).__name__ == "LocalLauncher")


def _is_running(pid: int) -> bool:
    """Return whether a child process is running, without collecting its exit code."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _write_empty_result(path: Path) -> None:
    result = JobReturn()
    result.status = JobStatus.COMPLETED
    temporary = path.with_suffix(".empty")
    with contextlib.suppress(OSError):
        temporary.write_bytes(pickle.dumps(("success", result)))
        temporary.replace(path)
