"""Sweeps in processes of their own, whose cells are killed while they are computed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from icl_eval.runs.attempts import read_attempt

OPTIONS = ("task=qa", "limit=3", "max_new_tokens=4", "num_fewshot=0,1,2")
QUESTIONS = 3


@dataclass(frozen=True)
class LaunchedSweep:
    """A sweep over `num_fewshot=0,1,2` in the folder `sweep`, by one launcher."""

    model: Path
    root: Path
    launcher: tuple[str, ...]
    environment: dict[str, str]

    @property
    def folder(self) -> Path:
        return self.root / "sweep"

    def start(self) -> "subprocess.Popen[str]":
        """Start the command, as the leader of a group of processes."""
        model = self.root / "gpt2"
        if not model.exists():
            model.symlink_to(self.model)  # its path is short, so that the names of cells show num_fewshot
        command = [sys.executable, "-m", "icl_eval", "model.source=./gpt2", *OPTIONS, "-m", *self.launcher]
        return subprocess.Popen(
            [*command, "hydra.sweep.dir=sweep"],
            cwd=self.root,
            env=self.environment,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self) -> tuple[int, list[str]]:
        """Run the command, and return its exit code and its own words on stderr."""
        return finish(self.start())

    def wait_for_cell(self, shots: int) -> int:
        """Wait until a cell is being computed, and return its process id."""
        end = time.monotonic() + 300
        while time.monotonic() < end:
            for path in self.folder.glob(f"*num_fewshot={shots},*"):
                attempt = read_attempt(path)
                if attempt is not None and attempt.state == "running":
                    return attempt.pid
            time.sleep(0.02)
        raise TimeoutError(f"the cell num_fewshot={shots} has not begun")

    def kill_cell(self, shots: int) -> int:
        """Kill the process that computes a cell as soon as it does, and return its id."""
        pid = self.wait_for_cell(shots)
        os.kill(pid, signal.SIGKILL)
        return pid

    def name(self, shots: int) -> str:
        [path] = self.folder.glob(f"*num_fewshot={shots},*")
        return path.name

    def read(self) -> dict:
        assert (self.folder / "sweep.html").is_file()
        return json.loads((self.folder / "sweep.json").read_text(encoding="utf-8"))

    def outcomes(self) -> list[str | int]:
        """Return how many questions each cell in `sweep.json` answered, or the kind of its error."""
        return [
            cell["error"]["error"] if "error" in cell else cell["results"]["qa"]["n"] for cell in self.read()["cells"]
        ]

    def reports(self) -> set[tuple[str, int]]:
        """Return the cells with a report, and when it was written, in nanoseconds."""
        return {(path.parent.name, path.stat().st_mtime_ns) for path in self.folder.glob("*/report.json")}

    def remnants(self) -> list[str]:
        return [path.name for path in self.folder.rglob(".attempt*")]


def finish(process: "subprocess.Popen[str]") -> tuple[int, list[str]]:
    """Wait for a command, and return its exit code and its own words on stderr."""
    _, errors = process.communicate(timeout=600)
    return process.returncode, [line for line in errors.splitlines() if line.startswith("icl-eval:")]


def run_serially(sweep: LaunchedSweep) -> dict:
    """Return what the basic launcher finds, and remove its folder."""
    serial = LaunchedSweep(sweep.model, sweep.root, (), sweep.environment)
    assert serial.run() == (0, [])
    found = serial.read()
    shutil.rmtree(serial.folder)
    return found
