"""The command `python -m benchmarks scale`: what an evaluation costs beside its network, and how the cost grows.

Every command runs in a process of its own with one thread, so that processor time and memory are the command's alone.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.machine import machine_facts
from benchmarks.scale_data import SHAPES, TASK, write_model, write_task
from benchmarks.scale_stages import REST, STAGES
from benchmarks.tables import render_machine

_PARTS = ("run", "again", "compare", "list", "sweep")
_NETWORK = ("card", "model", "decoding")
"""The stages that run the network, or load it or its tokenizer with the libraries for them."""
_NOTICEABLE = 0.2
"""Seconds below which the growth of a stage cannot be told from noise."""


@dataclass(frozen=True)
class Measured:
    """What one command cost."""

    size: int
    """The number of questions, or of cells."""
    seconds: Mapping[str, float]
    """The processor time of each stage."""
    megabytes: Mapping[str, float]
    """The most memory that the process had held by the end of each stage."""

    @property
    def total(self) -> float:
        """The processor time of the command."""
        return sum(self.seconds.values())

    @property
    def peak(self) -> float:
        """The most memory that the command held, in megabytes."""
        return self.megabytes[REST]


class Workplace:
    """A folder with a model, in which commands are measured."""

    def __init__(self, folder: Path):
        """Write the model into an empty folder."""
        self.folder = folder
        self._model = write_model(folder / "model")

    def evaluate(self, config: Path, output: Path, size: int, *overrides: str) -> Measured:
        """Run an evaluation of a task, and return what it cost."""
        words = [f"--config-dir={config}", f"task={TASK}", f"model.source={self._model}", "device=cpu"]
        return self.measure(size, *overrides, *words, f"hydra.{'sweep' if '-m' in overrides else 'run'}.dir={output}")

    def measure(self, size: int, *arguments: str) -> Measured:
        """Run a command of `icl-eval`, and return what it cost."""
        report = self.folder / "measured.json"
        command = [sys.executable, "-m", "benchmarks.scale_stages", str(report), *arguments]
        alone = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        alone["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH"))))
        done = subprocess.run(command, cwd=self.folder, env=os.environ | alone, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"icl-eval {' '.join(arguments)}\n{done.stdout}{done.stderr}")
        measured = json.loads(report.read_text())
        return Measured(size, measured["seconds"], measured["megabytes"])


def measure_scale(arguments: Sequence[str]) -> None:
    """Measure runs of several sizes and the commands that read them, and print a table for each."""
    options = _parse(arguments)
    print(render_machine({**machine_facts(), "threads": "1", "shape": options.shape}), flush=True)
    with TemporaryDirectory() as folder:
        place = Workplace(Path(folder))
        report = {name: _MEASURES[name](place, options) for name in _PARTS if name in options.parts}
    if options.json:
        found = {name: [vars(each) for each in measured] for name, measured in report.items()}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks scale", description=__doc__)
    parser.add_argument(
        "--questions", nargs="+", type=int, default=[1000, 4000, 16000, 64000], metavar="N", help="sizes of the runs"
    )
    parser.add_argument("--shape", choices=SHAPES, default="short", help="what a row is like: " + ", ".join(SHAPES))
    parser.add_argument(
        "--parts", nargs="+", choices=_PARTS, default=list(_PARTS), metavar="NAME", help=", ".join(_PARTS)
    )
    parser.add_argument("--cells", nargs="+", type=int, default=[10, 50], metavar="N", help="sizes of the sweeps")
    parser.add_argument("--runs", type=int, default=500, metavar="N", help="number of runs to list and to load")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all measurements to this file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options of every run, such as num_fewshot=8")
    options = parser.parse_args(arguments)
    if min(*options.questions, *options.cells, options.runs) < 1:
        parser.error("--questions, --cells and --runs: must be 1 or more")
    if {"again", "compare"} & set(options.parts) and "run" not in options.parts:
        parser.error("--parts: again and compare need run")
    return options


def _measure_runs(place: Workplace, options: argparse.Namespace) -> list[Measured]:
    for size in options.questions:
        write_task(place.folder / f"data-{size}", options.shape, size)
    return _start_runs(place, options, "a run of {:,} questions", "Runs: processor seconds by number of questions")


def _measure_again(place: Workplace, options: argparse.Namespace) -> list[Measured]:
    """Start finished runs a second time."""
    return _start_runs(place, options, "the run of {:,} questions again", "A second start of a finished run")


def _start_runs(place: Workplace, options: argparse.Namespace, doing: str, title: str) -> list[Measured]:
    measured = []
    for size in sorted(options.questions):
        _tell(doing.format(size))
        config = place.folder / f"data-{size}" / "conf"
        measured.append(place.evaluate(config, place.folder / f"run-{size}", size, *options.overrides))
    print("\n" + render_stages(title, measured), flush=True)
    return measured


def _measure_comparisons(place: Workplace, options: argparse.Namespace) -> list[Measured]:
    """Compare each run with one that shows no demonstrations."""
    measured = []
    for size in sorted(options.questions):
        _tell(f"a comparison of two runs of {size:,} questions")
        config, other = place.folder / f"data-{size}" / "conf", place.folder / f"other-{size}"
        place.evaluate(config, other, size, *options.overrides, "num_fewshot=0")
        measured.append(place.measure(size, "compare", str(place.folder / f"run-{size}"), str(other)))
    print("\n" + render_totals("`compare` of two runs", "questions", measured), flush=True)
    return measured


def _measure_lists(place: Workplace, options: argparse.Namespace) -> list[Measured]:
    """List copies of one run, and load them."""
    config = write_task(place.folder / "data-list", options.shape, 8)
    place.evaluate(config, place.folder / "listed" / "0", 8)
    for number in range(1, options.runs):
        shutil.copytree(place.folder / "listed" / "0", place.folder / "listed" / str(number))
    _tell(f"a list of {options.runs:,} runs")
    listed = place.measure(options.runs, "list", "listed")
    loaded = place.measure(options.runs, "load_runs", "listed")
    print("\n" + render_totals("`list`", "runs", [listed]), flush=True)
    print("\n" + render_totals("`load_runs`", "runs", [loaded]), flush=True)
    return [listed, loaded]


def _measure_sweeps(place: Workplace, options: argparse.Namespace) -> list[Measured]:
    """Sweep over seeds, with a handful of questions in each cell."""
    config = write_task(place.folder / "data-sweep", options.shape, 4)
    measured = []
    for size in sorted(options.cells):
        _tell(f"a sweep of {size:,} cells")
        seeds = f"seed={','.join(map(str, range(size)))}"
        output = place.folder / f"sweep-{size}"
        measured.append(place.evaluate(config, output, size, "-m", seeds, "num_fewshot=2", *options.overrides))
    print("\n" + render_stages("Sweeps: processor seconds by number of cells", measured), flush=True)
    return measured


_MEASURES = {
    "run": _measure_runs,
    "again": _measure_again,
    "compare": _measure_comparisons,
    "list": _measure_lists,
    "sweep": _measure_sweeps,
}


def render_stages(title: str, measured: Sequence[Measured]) -> str:
    """Return a table with a row for each stage and a column for each size."""
    stages = [stage for stage in (REST, *STAGES) if any(each.seconds[stage] >= 0.005 for each in measured)]
    rows = [(stage, [each.seconds[stage] for each in measured]) for stage in stages]
    beside = [stage for stage in STAGES if stage not in _NETWORK]
    rows.append(("**beside network and start**", [sum(each.seconds[stage] for stage in beside) for each in measured]))
    rows.append(("**all**", [each.total for each in measured]))
    sizes = [each.size for each in measured]
    lines = [_render_row(name, seconds, sizes) for name, seconds in rows]
    memory = [f"{each.peak:,.0f}" for each in measured]
    slope = f"{1024 * _slope(sizes, [each.peak for each in measured]):.1f} kB" if len(sizes) > 1 else "–"
    lines.append(f"| peak memory, MB | {' | '.join(memory)} | {slope} | |")
    header = f"| stage | {' | '.join(f'{size:,}' for size in sizes)} | each | exponent |"
    return "\n".join([f"### {title}", "", header, "|---" + "|---:" * (len(sizes) + 2) + "|", *lines])


def render_totals(title: str, unit: str, measured: Sequence[Measured]) -> str:
    """Return a table of commands as wholes."""
    header = f"| {unit} | processor seconds | peak memory, MB |"
    lines = [f"| {each.size:,} | {each.total:.1f} | {each.peak:,.0f} |" for each in measured]
    return "\n".join([f"### {title}", "", header, "|---:|---:|---:|", *lines])


def _render_row(name: str, seconds: Sequence[float], sizes: Sequence[int]) -> str:
    """Return a row: the seconds for each size, what one more question takes in milliseconds, and the exponent."""
    cells = [f"{each:.2f}" for each in seconds]
    cells.append(f"{1000 * _slope(sizes, seconds):.3f} ms" if len(sizes) > 1 else "–")
    exponent = growth_exponent(sizes, seconds)
    return f"| {name} | {' | '.join(cells)} | {'–' if exponent is None else f'{exponent:.2f}'} |"


def _slope(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Return by how much a value grows with each unit, between the two largest sizes."""
    return (values[-1] - values[-2]) / (sizes[-1] - sizes[-2])


def growth_exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float | None:
    """Return the power of the size with which a time grows, between the two largest sizes; None if it is only noise."""
    if len(sizes) < 2 or min(seconds[-2:]) < _NOTICEABLE:
        return None
    return log(seconds[-1] / seconds[-2]) / log(sizes[-1] / sizes[-2])


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
