"""Run the command `icl-eval`, with an optional subcommand followed by overrides in Hydra's grammar.

    icl-eval [key=value …]              evaluate a model and print a table
    icl-eval -m key=a,b …               sweep: one run for each combination
    icl-eval preview [key=value …]      print prompts without loading weights
    icl-eval stream prompt="…"          print a completion while it is generated
    icl-eval trace prompt="…"           show every step from a prompt, or a task's question, to its completion
    icl-eval tour [prompt="…"]          compare decoding methods on one prompt, with their costs
    icl-eval doctor [key=value …]       check whether batching and caching change the model's tokens
    icl-eval compare RUN_A RUN_B …      test whether finished runs differ by more than chance
    icl-eval plan [PILOT …]             plan how many draws and questions a study needs
    icl-eval list [FOLDER …]            list the runs in folders, with their scores
    icl-eval list tasks                 list the tasks that can be chosen
    icl-eval import PATH …              turn logged samples of lm-evaluation-harness into runs
    icl-eval export FOLDER …            write figures and tables of runs and sweeps, for a paper
    icl-eval lm-eval run …              run lm-evaluation-harness with icl_eval as one of its models

A user's mistake is reported in one line on stderr with exit code 2; a failed run exits with code 1.
"""

import atexit
import gc
import io
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from icl_eval import __version__
from icl_eval.cli.commands import COMMANDS, OTHERS, Command
from icl_eval.cli.faults import open_standard_files, summarize_error
from icl_eval.cli.loader import install_loader
from icl_eval.cli.words import gather_folders, put_flags_first, reject_stray_words, require_direct, say
from icl_eval.config.arguments import read_arguments
from icl_eval.config.explaining import explaining_errors
from icl_eval.config.schema import register_schema
from icl_eval.config.setup import conf_dir, register_resolvers, set_command_name
from icl_eval.errors import ConfigError, IclEvalError
from icl_eval.tasks.kept_tasks import keeping_tasks, start_keeping_tasks

_ALLOCATIONS = 50_000
"""New objects after which Python looks for unreachable cycles; its default of 700 is a tenth of a start's time."""
_SPINS = 10_000
"""How often a thread of torch looks whether the others are ready before it sleeps (`GOMP_SPINCOUNT`): 0.1 ms. By GNU's
default, 300,000, it keeps its core for milliseconds, from the very thread that it waits for if other programs run."""


def main() -> None:
    """Run the command line."""
    open_standard_files()
    gc.set_threshold(_ALLOCATIONS)
    atexit.register(gc.freeze)  # or Python looks through all there is for cycles: a second with torch
    if "OMP_WAIT_POLICY" not in os.environ:
        # read when torch is imported, and by the workers of a sweep
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))
    logging.raiseExceptions = False  # no traceback if a warning cannot be written
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an ASCII terminal shows other characters as escapes
    if sys.argv[1:] and (other := OTHERS.get(sys.argv[1])):
        sys.exit(_report_errors(lambda: other(sys.argv[2:])))
    if sys.argv[1:] == ["--version"]:
        sys.exit(_report_errors(lambda: print(f"icl-eval {__version__} (Hydra {hydra.__version__})")))
    arguments = put_flags_first(sys.argv[1:])
    command = _take_command(arguments)
    sys.exit(_report_errors(lambda: _run(command, arguments)))


def _take_command(arguments: list[str]) -> Command:
    """Remove the one or two words of the command from the arguments, and return the command."""
    words = [word for word in arguments if not word.startswith("-")]
    for taken in (words[:2], words[:1]):
        if " ".join(taken) in COMMANDS:
            for word in taken:
                arguments.remove(word)
            return COMMANDS[" ".join(taken)]
    return COMMANDS["evaluate"]


def _report_errors(run: Callable[[], None]) -> int:
    """Run a function, report an expected error in one line, and return the exit code."""
    try:
        run()
        sys.stdout.flush()  # a failure to write is reported below
    except (IclEvalError, OSError) as error:
        known = summarize_error(error)
        if known is None:
            raise
        return _report(str(known), known.exit_code)
    except KeyboardInterrupt:
        return _report("interrupted; repeat the command to resume", 130)
    return 0


def _run(command: Command, arguments: list[str]) -> None:
    """Compose the configuration with Hydra and run the command."""
    if command.folders_key is not None:
        arguments = gather_folders(command.folders_key, arguments)
    register_schema(command.schema)
    register_resolvers()
    install_loader()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises errors, which are reported below in one line
    failures: list[Exception] = []
    sweep_pid = os.getpid()
    decorate = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command.config_name)
    reject_stray_words(arguments, [*COMMANDS, *OTHERS], can_sweep=command is COMMANDS["evaluate"])
    with explaining_errors(arguments), keeping_tasks():
        set_command_name(arguments)
        sys.argv[1:] = read_arguments(arguments, command.schema)
        try:
            decorate(lambda cfg: _run_job(command, cfg, failures, sweep_pid))()
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()  # a failure to write is reported by the caller
    if failures:
        raise failures[0]


def _run_job(command: Command, cfg: DictConfig, failures: list[Exception], sweep_pid: int) -> float | None:
    """Run one job, in the process of the sweep or another. In a sweep, report a failed job and continue."""
    hydra_config = HydraConfig.get()
    is_cell = hydra_config.mode == RunMode.MULTIRUN
    folder = Path(hydra_config.runtime.output_dir)
    if is_cell:
        try:
            require_direct(folder, Path(hydra_config.sweep.dir))
        except ConfigError as error:
            sys.exit(_report(str(error), error.exit_code))
        return _run_cell(command, cfg, folder, failures, sweep_pid)
    try:
        command.run(cfg)
    except Exception as error:
        failures.append(error)
    return None


def _run_cell(
    command: Command, cfg: DictConfig, folder: Path, failures: list[Exception], sweep_pid: int
) -> float | None:
    from icl_eval.cli.sweeps import report_failure
    from icl_eval.cli.workers import end_with_parent
    from icl_eval.runs.attempts import attempting

    end_with_parent(sweep_pid)
    start_keeping_tasks()  # in a worker; this process keeps them already
    with attempting(folder, HydraConfig.get().job.id):
        try:
            command.run(cfg)
        except Exception as error:
            try:
                report_failure(folder, error)
            except Exception as unreported:
                failures.append(unreported)
            return float("nan")
    return None


def _report(sentence: str, exit_code: int) -> int:
    if sentence:  # empty if the reader of the output has closed it
        say(sentence)
    return exit_code
