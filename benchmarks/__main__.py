"""The commands: `python -m benchmarks`, alone or followed by `lm_eval`, `scale`, `pages`, `selection` or `tokens`."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from benchmarks.choosers import build_choosers
from benchmarks.floor import floor_seconds, measure_rates
from benchmarks.lm_eval_comparison import compare_models
from benchmarks.machine import machine_facts
from benchmarks.native import VLLM_PYTHON
from benchmarks.rounds import run_rounds
from benchmarks.scale import measure_scale
from benchmarks.selection import measure_selection
from benchmarks.systems import FAMILIES, PACKAGES, build_systems
from benchmarks.tables import Outcome, render_machine, render_outcome
from benchmarks.tokens import measure_tokens
from benchmarks.workloads import WORKLOADS, Workload
from icl_eval.models.loading import load_model
from icl_eval.models.quiet import quiet_transformers
from icl_eval.models.specs import ModelSpec

_DEFAULT_MODEL = Path(__file__).parent.parent / "conf/model/smollm2_135m.yaml"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the chosen benchmarks and print each table as soon as it is ready."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = words[0] if words else None
    if command == "lm_eval":
        compare_models(words[1:], _model_spec(None))
    elif command == "scale":
        measure_scale(words[1:])
    elif command == "tokens":
        measure_tokens(words[1:])
    elif command == "selection":
        measure_selection(words[1:])
    elif command == "pages":
        from benchmarks.pages import measure_pages  # needs Playwright

        measure_pages(words[1:])
    else:
        _compare_systems(_parse(words))


def _compare_systems(options: argparse.Namespace) -> None:
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    for family, package in PACKAGES.items():
        apart = family == "vLLM" and os.environ.get(VLLM_PYTHON)
        if family in options.systems and not find_spec(package) and not apart:
            _tell(f"skipping {family}, which is not installed (benchmarks/README.md says how to install it)")
    model = load_model(_model_spec(options.model), options.dtype, options.device)
    facts = {**machine_facts(options.device), "dtype": options.dtype}
    print(render_machine(facts), flush=True)
    outcomes = {}
    for name, num_questions in product(options.workloads, options.questions):
        with quiet_transformers(reports=False):
            outcome = _measure(WORKLOADS[name](model, num_questions, options.seed), options)
        print("\n" + render_outcome(outcome), flush=True)
        outcomes[f"{name}, {num_questions} questions"] = outcome
    if options.json:
        report = {"machine": facts, "workloads": {name: _as_json(outcome) for name, outcome in outcomes.items()}}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--workloads", nargs="+", choices=WORKLOADS, default=["k8"], metavar="NAME", help=", ".join(WORKLOADS)
    )
    parser.add_argument(
        "--systems",
        nargs="+",
        choices=FAMILIES,
        default=FAMILIES,
        metavar="NAME",
        help="in addition to icl_eval: " + ", ".join(FAMILIES[1:]),
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--questions",
        nargs="+",
        type=_count,
        default=[64],
        metavar="N",
        help="number of questions in each workload; several numbers run each workload several times",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the prompts")
    parser.add_argument(
        "--sample",
        type=_count,
        help="run all systems except icl_eval on the first N questions only, and scale their times",
    )
    parser.add_argument("--rounds", type=_count, default=3)
    parser.add_argument("--model", help="a folder with another decoder-only model")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all timings and answers to this file")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here")
    return options


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError(text)
    return count


def _model_spec(folder: str | None) -> ModelSpec:
    return ModelSpec(folder or str(OmegaConf.load(_DEFAULT_MODEL).source))


def _measure(workload: Workload, options: argparse.Namespace) -> Outcome:
    build = build_choosers if workload.choices else build_systems
    systems = build(options.systems, workload)
    before = measure_rates(options.dtype, options.device)
    results = run_rounds(systems, workload, options.rounds, options.sample, _tell)
    rates = before.best(measure_rates(options.dtype, options.device))
    num_generated = [answer.num_tokens or 0 for answer in results[0].answers]
    return Outcome(workload, results, rates, floor_seconds(workload, num_generated, rates))


def _as_json(outcome: Outcome) -> dict[str, Any]:
    results = [asdict(result) for result in outcome.results]
    return {"rates": asdict(outcome.rates), "floor": outcome.floor, "results": results}


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
