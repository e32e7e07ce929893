"""The command line: one command, `icl-eval`, whose first word may choose what to do; the rest is Hydra's grammar.

    icl-eval [key=value …]              evaluate, and print a table
    icl-eval -m key=a,b …               a sweep: one run for each combination
    icl-eval preview [key=value …]      show prompts, without loading weights
    icl-eval stream prompt="…"          show one completion while it is made
    icl-eval trace prompt="…"           show everything that happens to one prompt, or to a task's question
    icl-eval tour [prompt="…"]          the ways of generating, side by side, and what each costs
    icl-eval doctor [key=value …]       does the model give the same tokens however it is run?
    icl-eval compare RUN_A RUN_B …      do finished runs differ by more than chance?
    icl-eval list [FOLDER …]            the runs in some folders, with their scores
    icl-eval export FOLDER …            figures and tables of runs and sweeps, for a paper

A user's mistake is one line on stderr and exit code 2; a run that fails exits with 1.
"""

import io
import logging
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from icl_eval.cli.commands import COMMANDS, Command
from icl_eval.cli.faults import in_one_line, open_standard_files
from icl_eval.cli.words import gather_folders, put_flags_first, reject_stray_words, say
from icl_eval.config.collisions import reject_packaged_names
from icl_eval.config.explaining import explained
from icl_eval.config.files import require_readable_files
from icl_eval.config.overrides import added_folders, read_overrides
from icl_eval.config.schema import register_schemas
from icl_eval.config.setup import conf_dir, register_resolvers, set_command_name
from icl_eval.errors import ConfigError, IclEvalError


def main() -> None:
    """Run the command line."""
    open_standard_files()
    logging.raiseExceptions = False  # a warning that cannot be written is no traceback
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is ASCII only shows the rest as it can
    arguments = put_flags_first(sys.argv[1:])
    first = next((word for word in arguments if not word.startswith("-")), None)
    if first in COMMANDS:
        arguments.remove(first)
    command = COMMANDS[first if first in COMMANDS else "evaluate"]
    if command.folders_key is not None:
        arguments = gather_folders(command.folders_key, arguments)
    sys.exit(_run(command, arguments))


def _run(command: Command, arguments: list[str]) -> int:
    """Let Hydra compose and call the command; return the exit code."""
    register_schemas()
    register_resolvers()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us, and we say them in one line
    failures: list[Exception] = []
    decorate = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command.config_name)
    try:
        reject_stray_words(arguments, list(COMMANDS), can_sweep=command is COMMANDS["evaluate"])
        with explained(arguments):
            folders = added_folders(arguments)
            reject_packaged_names(folders)
            require_readable_files(folders)
            set_command_name(arguments)
            sys.argv[1:] = read_overrides(arguments, command.schema, [conf_dir(), *folders])
            try:
                decorate(lambda cfg: _run_job(command, cfg, failures))()
            except SystemExit:
                sys.stdout.flush()
                raise
            sys.stdout.flush()  # if it cannot be written, that is reported below
        if failures:
            raise failures[0]
    except (IclEvalError, OSError) as error:
        known = in_one_line(error)
        if known is None:
            raise
        return _say(str(known), known.exit_code)
    except KeyboardInterrupt:
        return _say("interrupted; the same command goes on from here", 130)
    return 0


def _run_job(command: Command, cfg: DictConfig, failures: list[Exception]) -> float | None:
    """Run one job; in a sweep, a job that fails leaves a note and the next one begins."""
    hydra_config = HydraConfig.get()
    is_cell = hydra_config.mode == RunMode.MULTIRUN
    folder = Path(hydra_config.runtime.output_dir)
    if is_cell and folder.parent.resolve() != Path(hydra_config.sweep.dir).resolve():
        sentence = (
            f"hydra.sweep.subdir: a cell's folder must lie in {hydra_config.sweep.dir} itself, and {folder} does not"
        )
        sys.exit(_say(sentence, ConfigError.exit_code))
    try:
        command.run(cfg)
    except Exception as error:
        if not is_cell:
            failures.append(error)
            return None
        from icl_eval.cli.sweeps import tell_of_failure

        try:
            tell_of_failure(folder, error)
        except Exception as untold:
            failures.append(untold)
        return float("nan")
    return None


def _say(sentence: str, exit_code: int) -> int:
    if sentence:  # to whoever has closed the output there is nothing to say
        say(sentence)
    return exit_code
