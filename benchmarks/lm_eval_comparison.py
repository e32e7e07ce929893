"""The command `python -m benchmarks lm_eval`: this package and `hf` as models of lm-evaluation-harness."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.lm_eval_tasks import MOST_QUESTIONS, TASKS, write_tasks
from benchmarks.machine import machine_facts
from benchmarks.systems import BATCH_SIZES
from benchmarks.tables import render_machine
from icl_eval.models.specs import ModelSpec
from icl_eval.models.weights import resolve_weights

_HEADER = (
    "| model | processor seconds | times icl_eval | peak memory, MB | the same answers as hf | largest difference |\n"
    "|---|---:|---:|---:|---:|---:|"
)


@dataclass(frozen=True)
class Answered:
    """One model's answers to one task's requests."""

    name: str
    seconds: float
    """Processor time of one thread, the median of all rounds."""
    peak_bytes: int
    """The most memory that the process held."""
    answers: Sequence[Any]
    """A text, or a log-likelihood and whether the continuation is greedy, for each request."""

    def agreement(self, reference: "Answered") -> tuple[int, float]:
        """Return how many answers are the same but for rounding, and the largest difference of log-likelihoods."""
        pairs = list(zip(self.answers, reference.answers, strict=True))
        texts = [(own, other) for own, other in pairs if isinstance(own, str)]
        scored = [(own, other) for own, other in pairs if not isinstance(own, str)]
        differences = [abs(own[0] - other[0]) for own, other in scored]
        same = sum(own == other for own, other in texts) + sum(own[1] == other[1] for own, other in scored)
        return same, max(differences, default=0.0)


def compare_models(arguments: Sequence[str], default: ModelSpec) -> None:
    """Answer each task's requests with both models in turn, and print a table for each task.

    Args:
        arguments: The arguments of the command.
        default: The weights if they name none.
    """
    options = _parse(arguments)
    weights = options.model or str(resolve_weights(default).folder)
    print(render_machine({**machine_facts(), "threads": "1", "dtype": "float32"}), flush=True)
    report = {}
    with TemporaryDirectory() as folder:
        write_tasks(Path(folder), options.seed)
        for task in options.tasks:
            models = [("icl_eval", "auto"), *(("hf", str(size)) for size in options.batch_sizes)]
            rounds = [
                [_answer(folder, task, *model, weights, options.questions) for model in models]
                for _ in range(options.rounds)
            ]
            results = [
                _summarize(model, column) for model, column in zip(models, zip(*rounds, strict=True), strict=True)
            ]
            print("\n" + render_answers(task, options.questions, results), flush=True)
            report[task] = [vars(result) for result in results]
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks lm_eval", description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="NAME", help=", ".join(TASKS))
    most = f"number of questions of each task, {MOST_QUESTIONS} at most"
    parser.add_argument("--questions", type=int, default=100, metavar="N", help=most)
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=BATCH_SIZES, metavar="N", help="of hf")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="random seed of the word problems")
    parser.add_argument("--model", help="a folder with another model")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write all measurements and answers to this file"
    )
    options = parser.parse_args(arguments)
    if not 1 <= options.questions <= MOST_QUESTIONS:
        parser.error(f"--questions {options.questions}: must be from 1 to {MOST_QUESTIONS}")
    if min(options.batch_sizes) < 1 or options.rounds < 1:
        parser.error("--batch-sizes and --rounds: must be 1 or more")
    if find_spec("lm_eval") is None:
        parser.error("lm-evaluation-harness is not installed: pip install -c constraints.txt -e '.[benchmark]'")
    return options


def _answer(folder: str, task: str, model: str, batch_size: str, weights: str, num_questions: int) -> dict[str, Any]:
    """Answer a task's requests in a process of its own, and return what it has measured."""
    command = [sys.executable, "-m", "benchmarks.lm_eval_requests", folder, task, "--model", model]
    command += ["--weights", weights, "--batch-size", batch_size, "--questions", str(num_questions)]
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    print(f"{task}: {model}, batch {batch_size}", file=sys.stderr, flush=True)
    finished = subprocess.run(command, env=os.environ | one_thread, stdout=subprocess.PIPE, check=True)
    answered: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return answered


def _summarize(model: tuple[str, str], rounds: Sequence[dict[str, Any]]) -> Answered:
    return Answered(
        name=", batch ".join(model) if model[0] == "hf" else model[0],
        seconds=median(each["seconds"] for each in rounds),
        peak_bytes=max(each["peak_bytes"] for each in rounds),
        answers=rounds[0]["answers"],
    )


def render_answers(task: str, num_questions: int, results: Sequence[Answered]) -> str:
    """Return a task's table: this package, then `hf` with each batch size, of which the first is the reference."""
    ours, reference = results[:2]
    fastest = min(result.seconds for result in results[1:])
    rows = []
    for result in results:
        same, difference = result.agreement(reference)
        cells = (
            result.name,
            f"{result.seconds:.1f}",
            f"{result.seconds / ours.seconds:.1f}",
            f"{result.peak_bytes / 1e6:.0f}",
            f"{same} of {len(result.answers)}",
            f"{difference:.1e}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    gain = f"{fastest / ours.seconds:.1f} times as fast as hf at its best batch size"
    title = f"### {task}, {num_questions} questions, {len(ours.answers)} requests: {gain}"
    return "\n".join([title, "", _HEADER, *rows])
