"""The command `python -m benchmarks selection`: what it costs to select demonstrations from a large pool.

Texts and vectors are made up. Vectors lie in 200 clusters, as those of a pool with topics do, or in any direction, so
that all candidates are about as far from a question. Embedding them is not measured.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from benchmarks.machine import machine_facts
from benchmarks.tables import render_machine
from icl_eval.demonstrations import (
    Bm25Demonstrations,
    DemonstrationSelector,
    DiverseDemonstrations,
    DppDemonstrations,
    NearestDemonstrations,
    RandomDemonstrations,
    build_selection,
)
from icl_eval.demonstrations.vectors import Float32Array
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

_QUESTIONS = 32
_WORDS = 10
_CLUSTERS = 200
_SPREAD = 0.7


@dataclass(frozen=True)
class MadeUpVectors:
    """An encoder that knows the vector of each id."""

    rows: Mapping[str, int]
    vectors: Float32Array

    def embed(self, examples: Sequence[Example]) -> Float32Array:
        """Return the vectors of examples, [examples, size]."""
        return self.vectors[[self.rows[example.id] for example in examples]]


def measure_selection(arguments: Sequence[str]) -> None:
    """Select demonstrations of made-up questions, and print the processor time of one."""
    options = _parse(arguments)
    print(render_machine(machine_facts()), flush=True)
    shots = [f"{count} shown" for count in options.shots]
    print(f"\n| pool | vectors | strategy | {' | '.join(shots)} |\n|---:|---|---|{'---:|' * len(shots)}", flush=True)
    for size, kind in product(options.pools, options.kinds):
        task, encoder = make_task(size, kind, options.size, options.seed)
        for name, selector in _build_selectors(encoder).items():
            if name in options.strategies:
                found = [f"{1000 * _time_selection(task, selector, count):.1f}" for count in options.shots]
                print(f"| {size:,} | {kind} | `{name}` | {' | '.join(found)} |", flush=True)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks selection", description=__doc__)
    strategies = list(_build_selectors(MadeUpVectors({}, np.empty((0, 0), np.float32))))
    kinds = ["clusters", "any"]
    parser.add_argument("--pools", nargs="+", type=int, default=[10_000, 100_000], metavar="N")
    parser.add_argument("--shots", nargs="+", type=int, default=[4, 64, 256], metavar="K")
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds, metavar="NAME", help=", ".join(kinds))
    parser.add_argument(
        "--strategies", nargs="+", choices=strategies, default=strategies, metavar="NAME", help=", ".join(strategies)
    )
    parser.add_argument("--size", type=int, default=384, metavar="N", help="numbers in a vector")
    parser.add_argument("--seed", type=int, default=0, help="random seed of texts and vectors")
    options = parser.parse_args(arguments)
    if min(*options.pools, *options.shots, options.size) < 1 or max(options.shots) > min(options.pools):
        parser.error("--pools, --shots and --size: must be 1 or more, and a pool as large as what is shown")
    return options


def make_task(size: int, kind: str, numbers: int, seed: int) -> tuple[Task, MadeUpVectors]:
    """Return a task with a pool of some size, and the vectors of its examples."""
    rng = np.random.default_rng(seed)
    count = size + 2 * _QUESTIONS
    vectors = rng.normal(size=(count, numbers))
    if kind == "clusters":
        vectors = rng.normal(size=(_CLUSTERS, numbers))[rng.integers(_CLUSTERS, size=count)] + _SPREAD * vectors
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    words = rng.zipf(1.3, (count, _WORDS))
    texts = [f"{place} " + " ".join(f"w{word}" for word in row) for place, row in enumerate(words)]
    examples = tuple(Example(str(place), {"question": text}, ("x",)) for place, text in enumerate(texts))
    rows = {example.id: place for place, example in enumerate(examples)}
    task = Task("made_up", "", {}, examples[:size], examples[size:], "")
    return task, MadeUpVectors(rows, vectors.astype(np.float32))


def _build_selectors(encoder: Any) -> dict[str, DemonstrationSelector]:
    return {
        "random": RandomDemonstrations(0),
        "per_question": RandomDemonstrations(0, per_question=True),
        "bm25": Bm25Demonstrations(0),
        "nearest": NearestDemonstrations(0, encoder),
        "diverse": DiverseDemonstrations(0, encoder),
        "dpp": DppDemonstrations(0, encoder),
    }


def _time_selection(task: Task, selector: DemonstrationSelector, num_fewshot: int) -> float:
    """Return the processor seconds of a question, those of the threads of matrix products included."""
    select = build_selection(task, selector, num_fewshot)
    select(task.examples[0])  # what is done once for all questions
    start = time.process_time()
    for question in task.examples[_QUESTIONS:]:  # one block of those that are compared together, none before them
        select(question)
    return (time.process_time() - start) / _QUESTIONS
