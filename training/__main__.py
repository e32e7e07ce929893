"""The command: `python -m training`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import distributed

from training.evaluation import render_curves
from training.learning import Schedule, train
from training.models import build_model, load_model, save_model
from training.task_data import write_task_data

_DATA = Path(__file__).parent.parent / "data"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command named by the first argument."""
    options = _parse(arguments)
    options.command(options)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    training = commands.add_parser("train", help="train the model from scratch, measure it and save it")
    training.add_argument("--output", type=Path, default=_DATA / "icl_t5")
    training.add_argument("--steps", type=int, default=Schedule.steps)
    training.add_argument("--seed", type=int, default=0)
    training.set_defaults(command=_train)
    measuring = commands.add_parser("measure", help="measure a model's shot curves on freshly drawn episodes")
    measuring.add_argument("--model", type=Path, default=_DATA / "icl_t5")
    measuring.add_argument("--seed", type=int, default=1)
    measuring.add_argument("--episodes", type=int, default=500, help="number of episodes for each point of a curve")
    measuring.set_defaults(command=_measure)
    writing = commands.add_parser("write-tasks", help="draw the episodes of the tasks induction_*")
    writing.add_argument("--output", type=Path, default=_DATA / "induction")
    writing.add_argument("--seed", type=int, default=0)
    writing.add_argument("--episodes", type=int, default=96, help="number of episodes of each family")
    writing.set_defaults(command=_write_tasks)
    return parser.parse_args(arguments)


def _train(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)  # more threads gain nothing at this size and change the order of sums
    shared = "WORLD_SIZE" in os.environ  # torchrun has started this process
    if shared:
        distributed.init_process_group("gloo")
    model = build_model(options.seed)

    def keep(line: str) -> None:
        print(line, file=sys.stderr, flush=True)
        if not shared or distributed.get_rank() == 0:
            save_model(model, options.output)

    train(model, Schedule(steps=options.steps), options.seed, keep)
    if shared:
        distributed.destroy_process_group()


def _measure(options: argparse.Namespace) -> None:
    print(render_curves(load_model(options.model), options.seed, options.episodes))


def _write_tasks(options: argparse.Namespace) -> None:
    write_task_data(options.output, options.seed, options.episodes)


if __name__ == "__main__":
    main()
