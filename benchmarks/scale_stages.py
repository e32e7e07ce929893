"""Run one command of `icl-eval` in this process, and measure the processor time and the memory of its stages.

    python -m benchmarks.scale_stages FILE task=qa num_fewshot=4
    python -m benchmarks.scale_stages FILE load_runs outputs      `icl_eval.load_runs` in place of a command

A stage is a set of functions. Its time is that of these functions without that of the stages which they call, so that
the times of all stages add up to the time of the process.
"""

import functools
import importlib
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STAGES = {
    "data": ("icl_eval.config.plans:load_task", "icl_eval.config.plans:build_shown"),
    "prompts": ("icl_eval.evaluation.pipeline:prepare",),
    "warnings": ("icl_eval.evaluation.pipeline:_find_mistakes",),
    "card": ("icl_eval.evaluation.preparation:find_card",),
    "metrics": ("icl_eval.evaluation.pipeline:_build_metrics",),
    "model": ("icl_eval.evaluation.running:LazyRunner.open",),
    "decoding": ("icl_eval.evaluation.pipeline:_decode_missing",),
    "planning": (
        "icl_eval.decoding.stream:plan_groups",
        "icl_eval.decoding.engines.in_process:TransformersEngine.count_reused",
    ),
    "rows": ("icl_eval.decoding.stream:begin_hypothesis",),
    "records": (
        "icl_eval.evaluation.pipeline:_open_log",
        "icl_eval.evaluation.pipeline:_make_record",
        "icl_eval.runs.records:RecordLog.append",
        "icl_eval.runs.records:RecordLog.finish",
    ),
    "scoring": ("icl_eval.evaluation.pipeline:score_task",),
    "behaviour": ("icl_eval.evaluation.results:_measure_behaviour",),
    "counts": ("icl_eval.evaluation.results:count_records",),
    "page": ("icl_eval.commands.evaluate:write_run_page",),
}
"""The functions of each stage, where their callers find them."""
_WITH_TORCH = "icl_eval.decoding.stream:"
REST = "start"
"""The stage of everything else: imports, the configuration, the report and the printed table."""


class Meter:
    """Adds up the processor seconds of stages, without those of the stages inside them."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys((REST, *STAGES), 0.0)
        self.megabytes: dict[str, float] = {}
        """The most memory that the process had held when a stage that is in no other last ended."""
        self._running = [REST]
        self._since = 0.0

    def measure(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function so that it counts as part of a stage."""

        @functools.wraps(function)
        def measured(*arguments: Any, **options: Any) -> Any:
            self._switch()
            self._running.append(stage)
            try:
                return function(*arguments, **options)
            finally:
                self._switch()
                self._running.pop()
                if len(self._running) == 1:  # reading it takes longer than many a small stage
                    self.megabytes[stage] = read_peak()

        return measured

    def _switch(self) -> None:
        now = time.process_time()
        self.seconds[self._running[-1]] += now - self._since
        self._since = now

    def read(self) -> dict[str, Any]:
        """Return what was measured so far."""
        self._switch()
        return {"seconds": self.seconds, "megabytes": {**self.megabytes, REST: read_peak()}}


def read_peak() -> float:
    """Return the most memory that this process has held, in megabytes; `getrusage` would count its parent's, too."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def main() -> None:
    """Run the command and write what was measured as JSON."""
    report, *arguments = sys.argv[1:]
    meter = Meter()
    if arguments[:1] == ["load_runs"]:
        import icl_eval

        icl_eval.load_runs(*arguments[1:])
        Path(report).write_text(json.dumps(meter.read()))
        return
    if arguments[:1] not in (["compare"], ["list"]):
        _wrap_all(meter)
    from icl_eval.cli.main import main as run_command

    sys.argv = ["icl-eval", *arguments]
    try:
        run_command()
    finally:
        Path(report).write_text(json.dumps(meter.read()))


def _wrap_all(meter: Meter) -> None:
    """Wrap the functions of all stages, those of a module that imports torch only when a model has been loaded."""
    from icl_eval.decoding.engines import Runner
    from icl_eval.evaluation.running import LazyRunner

    places = [(stage, place) for stage, functions in STAGES.items() for place in functions]
    late = [(stage, place) for stage, place in places if place.startswith(_WITH_TORCH)]
    for stage, place in places:
        if (stage, place) not in late:
            _wrap(meter, stage, place)
    open_runner = LazyRunner.open

    def open_and_wrap(self: LazyRunner) -> Runner:
        opened = open_runner(self)
        while late:
            _wrap(meter, *late.pop())
        return opened

    LazyRunner.open = open_and_wrap  # type: ignore[method-assign]


def _wrap(meter: Meter, stage: str, place: str) -> None:
    module, _, name = place.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, last = name.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    setattr(owner, last, meter.measure(stage, getattr(owner, last)))


if __name__ == "__main__":
    main()
