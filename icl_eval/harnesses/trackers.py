"""Log runs to experiment trackers, through their own clients, and without a network unless their settings ask for it.

Each gets a run's options, its scores with standard errors and intervals, and its records. The runs of a sweep are a
group.
"""

import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from icl_eval.errors import ConfigError
from icl_eval.formatting import format_value
from icl_eval.runs.folders import Run
from icl_eval.runs.records import Record

_MAX_PARAMETER = 500
"""The number of characters that mlflow keeps of an option in every version."""


def _require_client(name: str, *modules: str) -> None:
    """Check that the modules of a tracker's client are installed, without importing them; raises ConfigError."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ConfigError(f"format={name}: needs {module}; install it with pip install 'icl-eval[{name}]'")


def log_to_wandb(runs: Sequence[Run], folder: Path, project: str) -> list[Path]:
    """Log runs to Weights & Biases and return the folders of its files, which `wandb sync` uploads.

    Args:
        runs: Finished runs.
        folder: The folder for `wandb`; its name is the group of several runs.
        project: The name of the project.

    Raises:
        ConfigError: If the client is not installed.
        DataError: If records are missing.
    """
    _require_client("wandb", "wandb")
    import wandb

    logged = []
    for run in runs:
        with wandb.init(
            project=project,
            dir=folder,
            id=run.report.run.fingerprint,
            name=run.folder.name,
            group=folder.name if len(runs) > 1 else None,
            config=run.options,
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(console="off", silent=True),
        ) as logger:
            logger.summary.update(dict(_list_scores(run)))
            for task in run.report.results:
                columns, rows = _make_table(run.records(task))
                logger.log({f"{task}/records": wandb.Table(columns=columns, data=rows)})
            logged.append(Path(logger.settings.sync_dir))
    return logged


def log_to_mlflow(runs: Sequence[Run], folder: Path, project: str) -> list[Path]:
    """Log runs to MLflow and return the path of its store, unless `MLFLOW_TRACKING_URI` chooses another one.

    Args:
        runs: Finished runs; several are nested in a run with the name of the folder.
        folder: The folder for `mlflow.db` and `mlartifacts`.
        project: The name of the experiment.

    Raises:
        ConfigError: If the client is not installed.
        DataError: If records are missing.
    """
    own = "MLFLOW_TRACKING_URI" not in os.environ
    _require_client("mlflow", "mlflow", *(["sqlalchemy"] if own else []))  # which mlflow-skinny lacks
    import mlflow

    store = folder.absolute() / "mlflow.db"
    if own:
        mlflow.set_tracking_uri(f"sqlite:///{store}")
    if own and mlflow.get_experiment_by_name(project) is None:
        mlflow.create_experiment(project, artifact_location=(folder.absolute() / "mlartifacts").as_uri())
    mlflow.set_experiment(project)
    if len(runs) == 1:
        _log_run(runs[0])
    else:
        with mlflow.start_run(run_name=folder.name):
            for run in runs:
                _log_run(run, nested=True)
    return [store] if own else []


def _log_run(run: Run, nested: bool = False) -> None:
    import mlflow

    options = {_clean(key): format_value(value)[:_MAX_PARAMETER] for key, value in run.options.items()}
    with mlflow.start_run(run_name=run.folder.name, nested=nested, tags={"fingerprint": run.report.run.fingerprint}):
        mlflow.log_params(options)
        mlflow.log_metrics({_clean(key): value for key, value in _list_scores(run)})
        for task in run.report.results:
            columns, rows = _make_table(run.records(task))
            table = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))
            mlflow.log_table(table, f"{task}_records.json")


def _clean(name: str) -> str:
    """Return a name with only the characters that mlflow allows."""
    return "".join(character if character.isalnum() or character in "_-./ " else "_" for character in name)


def _list_scores(run: Run) -> Iterator[tuple[str, float]]:
    """Yield scores with their standard errors and the ends of their intervals, such as `qa/exact_match/ci95_low`."""
    for name, _, metrics in run.report.rows:
        for metric, score in metrics.items():
            low, high = score.ci95 or (None, None)
            parts = {"": score.score, "/stderr": score.stderr, "/ci95_low": low, "/ci95_high": high}
            yield from ((f"{name}/{metric}{part}", value) for part, value in parts.items() if value is not None)


def _make_table(records: Sequence[Record]) -> tuple[list[str], list[list[Any]]]:
    """Return the columns and the rows of a table of records."""
    metrics = list(records[0].metrics)
    columns = ["example_id", "question", "references", "encoder", "decoder", "completion", "prediction", *metrics]
    rows = [
        [
            record.example_id,
            format_value(record.doc.get("question") or dict(record.doc)),
            "\n".join(record.targets),
            *(record.encoder, record.decoder, record.completion, record.prediction),
            *(record.metrics[metric] for metric in metrics),
        ]
        for record in records
    ]
    return columns, rows
