"""The formats of other programs in which results are exported."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from icl_eval.commands.compare import read_runs
from icl_eval.config.schema import ExportConfig
from icl_eval.errors import ConfigError
from icl_eval.harnesses.every_eval_ever.logs import Publisher, write_log
from icl_eval.harnesses.lm_eval.results import write_results
from icl_eval.harnesses.trackers import log_to_mlflow, log_to_wandb
from icl_eval.runs.folders import Run

PAPER = "paper"
"""The default format: tables and figures."""
_PROJECT = "icl-eval"
_OPTIONS = ("model_id", "organization", "relationship", "project")
"""Options that only some formats have."""


@dataclass(frozen=True)
class ResultFormat:
    """A format of another program."""

    write: Callable[[Sequence[Run], Path, ExportConfig], list[Path]]
    """Writes the runs of a folder and returns the paths of the files."""
    options: tuple[str, ...] = ()
    """The options that it has."""
    required: tuple[str, ...] = ()
    """Those without which it cannot be written."""


def _write_lm_eval(runs: Sequence[Run], folder: Path, config: ExportConfig) -> list[Path]:
    return [path for run in runs for path in write_results(run, run.folder / "lm_eval", config.model_id)]


def _write_every_eval_ever(runs: Sequence[Run], folder: Path, config: ExportConfig) -> list[Path]:
    publisher = Publisher(config.model_id or "", config.organization or "", config.relationship or "")
    return [path for run in runs for path in write_log(run, run.folder / "every_eval_ever", publisher)]


def _write_wandb(runs: Sequence[Run], folder: Path, config: ExportConfig) -> list[Path]:
    return log_to_wandb(runs, folder, config.project or _PROJECT)


def _write_mlflow(runs: Sequence[Run], folder: Path, config: ExportConfig) -> list[Path]:
    return log_to_mlflow(runs, folder, config.project or _PROJECT)


_PUBLISHER = ("model_id", "organization", "relationship")
RESULT_FORMATS = {
    "lm_eval": ResultFormat(_write_lm_eval, ("model_id",)),
    "every_eval_ever": ResultFormat(_write_every_eval_ever, _PUBLISHER, required=_PUBLISHER),
    "wandb": ResultFormat(_write_wandb, ("project",)),
    "mlflow": ResultFormat(_write_mlflow, ("project",)),
}


def check_format(config: ExportConfig) -> None:
    """Check that the format exists, and that its options are given and no others.

    Raises:
        ConfigError: If the format is unknown, or an option is missing or has no effect.
    """
    if config.format not in (PAPER, *RESULT_FORMATS):
        raise ConfigError(f"format={config.format}: must be one of {', '.join((PAPER, *RESULT_FORMATS))}")
    chosen = RESULT_FORMATS.get(config.format, ResultFormat(lambda *_: []))
    for option in _OPTIONS:
        value = getattr(config, option)
        if value is not None and option not in chosen.options:
            raise ConfigError(f"{option}={value}: has no effect with format={config.format}")
        if value is None and option in chosen.required:
            raise ConfigError(f"{option}: format={config.format} needs it, and a run does not say it ({option}=…)")


def export_runs(folder: Path, config: ExportConfig) -> list[Path]:
    """Export a run, or the finished cells of a sweep, and return the paths of the files.

    Raises:
        DataError: If the folder holds neither.
    """
    return RESULT_FORMATS[config.format].write(read_runs([folder]), folder, config)
