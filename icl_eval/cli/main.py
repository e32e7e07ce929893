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

import errno
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from icl_eval.config import setup as hydra_setup
from icl_eval.config.explaining import explain
from icl_eval.config.files import require_readable_files
from icl_eval.config.overrides import SWEEP_FLAGS, added_folders, read_overrides
from icl_eval.config.schema import (
    CompareConfig,
    ExportConfig,
    ListConfig,
    RunConfig,
    StreamConfig,
    TourConfig,
    TraceConfig,
    register_schemas,
    typed_config,
)
from icl_eval.errors import ConfigError, IclEvalError, UserError

_FILE_ERRORS = (
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG),
    *(errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ELOOP, errno.EPIPE),
)
_FOLDER_FLAG = "--config-dir"


@dataclass(frozen=True)
class Command:
    """What the first word of the command line can be."""

    config_name: str
    schema: type
    run: Callable[[DictConfig], None]
    folders_key: str | None = None
    """The key that takes the words which are folders; None where all words are options."""


def evaluate(cfg: DictConfig) -> None:
    """Evaluate and print a table."""
    from icl_eval.evaluation.pipeline import run_evaluation
    from icl_eval.reporting.pages.run_page import write_run_page
    from icl_eval.reporting.terminal import EvaluationProgress, print_report

    folder = Path(HydraConfig.get().runtime.output_dir)
    evaluation = _build_evaluation(cfg)
    with EvaluationProgress() as progress:
        report = run_evaluation(evaluation, folder, progress)
    write_run_page(folder)
    print_report(report, folder)


def preview(cfg: DictConfig) -> None:
    """Show prompts without loading weights."""
    from icl_eval.commands.preview import print_preview

    print_preview(_build_evaluation(cfg))


def doctor(cfg: DictConfig) -> None:
    """Show whether the model gives the same tokens however it is run."""
    from icl_eval.commands.doctor import print_diagnosis

    print_diagnosis(_build_evaluation(cfg))


def stream(cfg: DictConfig) -> None:
    """Show one completion while it is made."""
    from icl_eval.commands.stream import stream_completion

    stream_completion(typed_config(cfg, StreamConfig))


def trace(cfg: DictConfig) -> None:
    """Show everything that happens to one prompt."""
    from icl_eval.commands.trace.command import run_trace
    from icl_eval.commands.trace.subjects import free_subject, question_subject

    config = typed_config(cfg, TraceConfig)
    if config.runners_up < 0:
        raise ConfigError(f"runners_up={config.runners_up}: must be 0 or more")
    if config.prompt is None:
        subject = question_subject(_build_evaluation(cfg, TraceConfig), config.example)
    else:
        subject = free_subject(config, config.prompt, _given_keys())
    run_trace(subject, config.runners_up, Path(HydraConfig.get().runtime.output_dir))


def tour(cfg: DictConfig) -> None:
    """Generate one prompt in every way there is, side by side."""
    from icl_eval.commands.tour.terminal_view import print_tour
    from icl_eval.commands.tour.tours import take_tour

    config = typed_config(cfg, TourConfig)
    folder = Path(HydraConfig.get().runtime.output_dir)
    print_tour(take_tour(config, folder), folder)


def compare(cfg: DictConfig) -> None:
    """Compare finished runs with the first of them."""
    from icl_eval.commands.compare import compare_folders

    compare_folders(typed_config(cfg, CompareConfig))


def list_runs(cfg: DictConfig) -> None:
    """Show the runs in some folders."""
    from icl_eval.commands.list_runs import print_runs

    print_runs([Path(folder) for folder in typed_config(cfg, ListConfig).folders])


def export(cfg: DictConfig) -> None:
    """Write the figures and tables of runs and sweeps."""
    from icl_eval.commands.export import export_folders

    export_folders([Path(folder) for folder in typed_config(cfg, ExportConfig).folders])


COMMANDS = {
    "evaluate": Command("evaluate", RunConfig, evaluate),
    "preview": Command("preview", RunConfig, preview),
    "doctor": Command("doctor", RunConfig, doctor),
    "stream": Command("stream", StreamConfig, stream),
    "trace": Command("trace", TraceConfig, trace),
    "tour": Command("tour", TourConfig, tour),
    "compare": Command("compare", CompareConfig, compare, folders_key="runs"),
    "list": Command("list", ListConfig, list_runs, folders_key="folders"),
    "export": Command("export", ExportConfig, export, folders_key="folders"),
}


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is ASCII only shows the rest as it can
    arguments = _flags_first(sys.argv[1:])
    first = next((word for word in arguments if not word.startswith("-")), None)
    if first in COMMANDS:
        arguments.remove(first)
    command = COMMANDS[first if first in COMMANDS else "evaluate"]
    if command.folders_key is not None:
        arguments = _gather_folders(command.folders_key, arguments)
    sys.exit(_run(command, arguments))


def _flags_first(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with flags before overrides, as argparse wants them, each in one word with its folder."""
    words: list[str] = []
    for word in arguments:
        if words and words[-1] == _FOLDER_FLAG:
            words[-1] += f"={word}"
        else:
            words.append(re.sub("^-cd(=|$)", rf"{_FOLDER_FLAG}\1", word))
    return sorted(words, key=lambda word: word not in SWEEP_FLAGS and not word.startswith(f"{_FOLDER_FLAG}="))


def _gather_folders(key: str, arguments: Sequence[str]) -> list[str]:
    """Return the arguments with those that are folders made one option, so that the others keep Hydra's grammar.

    A run's folder may well have a `=` in its name, but there is no option with a `/` before it.
    """
    folders = [
        word
        for word in arguments
        if not word.startswith("-") and (Path(word).is_dir() or "/" in word.partition("=")[0] or "=" not in word)
    ]
    others = [word for word in arguments if word not in folders]
    if not folders:
        return others
    quoted = ",".join("'" + folder.replace("\\", "\\\\").replace("'", "\\'") + "'" for folder in folders)
    return [*others, f"{key}=[{quoted}]"]


def _run(command: Command, arguments: list[str]) -> int:
    """Let Hydra compose and call the command; return the exit code."""
    register_schemas()
    hydra_setup.register_resolvers()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us, and we say them in one line
    failures: list[Exception] = []
    decorate = hydra.main(version_base="1.3", config_path=str(hydra_setup.conf_dir()), config_name=command.config_name)
    try:
        _reject_stray_words(command, arguments)
        folders = added_folders(arguments)
        _reject_names_of_ours(folders)
        require_readable_files(folders)
        hydra_setup.set_command_name(arguments)
        words = read_overrides(arguments, command.schema, [hydra_setup.conf_dir(), *folders])
        sys.argv = [sys.argv[0], *words]
        _compose(decorate(lambda cfg: _run_job(command, cfg, failures)), arguments)
        if failures:
            raise failures[0]
    except IclEvalError as error:
        return _say(str(error), error.exit_code)
    except (HydraException, OmegaConfBaseException, MarkedYAMLError) as error:
        return _say(explain(error), UserError.exit_code)
    except OSError as error:
        if error.errno not in _FILE_ERRORS:
            raise
        return _say_file_error(error)
    except KeyboardInterrupt:
        return _say("interrupted; the same command goes on from here", 130)
    return 0


def _compose(run: Callable[[], None], arguments: Sequence[str]) -> None:
    """Call Hydra, which has no error class of its own for some mistakes (`task=null`, `placement.x=1`)."""
    try:
        run()
    except (AssertionError, AttributeError, ValueError) as error:
        if isinstance(error, OmegaConfBaseException):
            raise
        raise ConfigError(f"{explain(error)} (given: {' '.join(arguments)})") from error
    finally:
        sys.stdout.flush()  # what cannot be written is said in time


def _run_job(command: Command, cfg: DictConfig, failures: list[Exception]) -> float | None:
    """Run one job; in a sweep, a job that fails leaves a note and the next one begins."""
    is_cell = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        command.run(cfg)
    except Exception as error:
        if not is_cell:
            failures.append(error)
            return None
        from icl_eval.cli.sweeps import write_failure

        write_failure(Path(HydraConfig.get().runtime.output_dir), error)
        return float("nan")
    return None


def _build_evaluation(cfg: DictConfig, schema: Any = None) -> Any:
    from icl_eval.config.choices import require_distinct_choices
    from icl_eval.config.evaluations import build_evaluation

    runtime = HydraConfig.get().runtime
    own = ("hydra", "main", "schema")
    added = [Path(source.path) for source in runtime.config_sources if source.provider not in own]
    require_distinct_choices(has_own_files=bool(added))
    return build_evaluation(cfg, runtime.choices, [Path.cwd(), *added], schema or RunConfig)


def _given_keys() -> list[str]:
    """Return the first name of every key that the user has set."""
    overrides = HydraConfig.get().overrides.task
    return [re.split("[=.@]", override.lstrip("+~"))[0] for override in overrides]


def _reject_stray_words(command: Command, arguments: Sequence[str]) -> None:
    """Refuse what Hydra would take for a command of its own or pass over."""
    if command is not COMMANDS["evaluate"] and set(SWEEP_FLAGS) & set(arguments):
        raise ConfigError("-m: only evaluations can be swept")
    words = [argument for argument in arguments if argument not in SWEEP_FLAGS]
    for word in words:
        if any("\ud800" <= character <= "\udfff" for character in word):  # how Python hands on other bytes
            raise ConfigError(f"{word!r}: is not UTF-8")
    for previous, word in zip(["", *words], words, strict=False):
        if word.isidentifier() and not previous.startswith("-"):
            known = ", ".join(COMMANDS)
            raise ConfigError(f"{word!r}: unknown command (known, as the first word: {known}; options are key=value)")


def _reject_names_of_ours(folders: Sequence[Path]) -> None:
    """Refuse a user's configs that are called like ours: Hydra would take ours without a word."""
    for folder in folders:
        for path in sorted(folder.glob("*/*.yaml")):
            ours = hydra_setup.conf_dir() / path.relative_to(folder)
            if ours.exists() and not ours.samefile(path):
                choice = f"{path.parent.name}={path.stem}"
                raise ConfigError(f"{path}: {choice} already names {ours}, which would be taken; rename yours")


def _say_file_error(error: OSError) -> int:
    """Say which file cannot be used; what has no name is the output, or a file that was open already."""
    if error.filename:
        return _say(f"{error.filename}: cannot be read or written ({error.strerror})", UserError.exit_code)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what Python would still flush must not complain
    if isinstance(error, BrokenPipeError):  # whoever read the output has enough of it
        return IclEvalError.exit_code
    return _say(f"output cannot be written ({error.strerror})", IclEvalError.exit_code)


def _say(sentence: str, exit_code: int) -> int:
    print(f"icl-eval: {' '.join(sentence.split())}", file=sys.stderr)
    return exit_code
