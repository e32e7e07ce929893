"""Answer the requests of one task with one model of lm-evaluation-harness, in a process of its own.

    python -m benchmarks.lm_eval_requests FOLDER arc_first --model icl_eval --weights ./model --questions 20

One thread answers, so that processor time does not depend on what else the machine does. The time begins when the
model is loaded and the requests are made.
"""

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

from benchmarks.lm_eval_tasks import NUM_FEWSHOT, TASKS

MODELS = ("icl_eval", "hf")
_SEED = 1234


def main() -> None:
    """Answer the requests and print what was measured as JSON."""
    options = _parse()
    import torch

    torch.set_num_threads(1)
    model = _load(options)
    task = _build(options.folder, options.task, options.questions)
    begin = time.process_time()
    answers = getattr(model, task.instances[0].request_type)(task.instances, disable_tqdm=True)
    seconds = time.process_time() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_bytes": peak, "answers": answers}))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.lm_eval_requests", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--weights", required=True, help="a folder")
    parser.add_argument("--batch-size", default="auto")
    parser.add_argument("--questions", type=int, required=True)
    return parser.parse_args()


def _load(options: argparse.Namespace) -> Any:
    arguments = {"dtype": "float32", "device": "cpu", "batch_size": options.batch_size}
    if options.model == "icl_eval":
        from icl_eval.harnesses.lm_eval.model import IclEvalLM

        return IclEvalLM(pretrained=options.weights, **arguments)
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=options.weights, **arguments)


def _build(folder: Path, name: str, num_questions: int) -> Any:
    """Return a task with its requests."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    task = manager.load([name])["tasks"][name]
    task.set_config("num_fewshot", NUM_FEWSHOT)
    task.set_fewshot_seed(seed=_SEED)
    task.build_all_requests(limit=num_questions, rank=0, world_size=1)
    return task


if __name__ == "__main__":
    main()
