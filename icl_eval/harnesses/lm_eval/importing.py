"""Turn a run of lm-evaluation-harness into a run folder, so that everything that reads runs can read it."""

import hashlib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import icl_eval
from icl_eval.errors import ConfigError
from icl_eval.harnesses.lm_eval.documents import task_name
from icl_eval.harnesses.lm_eval.logged_answers import make_records
from icl_eval.harnesses.lm_eval.logged_metrics import LoggedResults, find_corpus_metrics, find_groups, measure_documents
from icl_eval.harnesses.lm_eval.logged_runs import LoggedRun, read_documents
from icl_eval.metrics.building import build_own_metrics
from icl_eval.metrics.measurements import measure_records, score_measurements
from icl_eval.runs import provenance
from icl_eval.runs.counts import count_records
from icl_eval.runs.folders import FINGERPRINT_FILE, REPORT_FILE, locking, name_records
from icl_eval.runs.records import Record, RecordLog
from icl_eval.runs.reports import SCHEMA_VERSION, Provenance, Report, RunInfo, TaskResult, Timing, write_report

_NAME = "lm_eval"
_UNKNOWN = "unknown"
_MOST_SHOTS = 1_000_000
_MOST_SECONDS = 1e11
"""No date is later than this, in seconds since 1970: the year 5138."""
_LEFT_OUT = ("results", "groups", "samples", "pretty_env_info")
"""Keys of a results file that are not options of the run."""


@dataclass(frozen=True)
class ImportOptions:
    """What the files may not say, and the seed of the intervals."""

    model_name: str | None
    num_fewshot: int | None
    seed: int


@dataclass(frozen=True)
class ImportedRun:
    """A run of the harness as records and a report."""

    report: Report
    records: Mapping[str, tuple[Record, ...]]
    """The records of each task."""
    identity: Mapping[str, Any]
    """The options and the content of the files."""

    def write(self, folder: Path) -> None:
        """Write the run into an existing folder, which is empty or holds the same import.

        Raises:
            FingerprintMismatchError: If the folder contains another run.
        """
        with locking(folder):
            provenance.require_same_identity(folder / FINGERPRINT_FILE, self.identity, "output=…")
            for task, records in self.records.items():
                with closing(RecordLog(folder / name_records(task))) as log:
                    log.finish(records)
            write_report(self.report, folder / REPORT_FILE)


def convert_run(logged: LoggedRun, options: ImportOptions) -> ImportedRun:
    """Convert a run of the harness.

    Args:
        logged: The files of the run.
        options: What the files do not say.

    Raises:
        ConfigError: If an option is missing, or contradicts the files.
        DataError: If a file is damaged, or the files do not belong together.
    """
    results = LoggedResults.of(logged)
    model = _find_model(logged, results, options)
    shots = {task_name(task): _find_shots(logged, results, options, task) for task in logged.samples}
    tasks = {
        task_name(task): _convert_task(logged, results, task, shots[task_name(task)], options.seed)
        for task in logged.samples
    }
    identity = _identify(logged, model, shots, options.seed)
    report = Report(
        schema_version=SCHEMA_VERSION,
        run=_describe_run(results, model, shots, options.seed, provenance.fingerprint(identity)),
        results={name: task.result for name, task in tasks.items()},
        groups=find_groups(results, {name: task.result for name, task in tasks.items()}),
        timing=_describe_timing(results),
        provenance=_describe_origin(results, {name: task.metrics for name, task in tasks.items()}),
    )
    return ImportedRun(report, {name: task.records for name, task in tasks.items()}, identity)


def _find_model(logged: LoggedRun, results: LoggedResults, options: ImportOptions) -> str:
    name = options.model_name or results.find("model_name")
    if not name:
        raise ConfigError(f"model_name: {_describe(logged)} does not say which model answered; add model_name=…")
    return str(name)


def _find_shots(logged: LoggedRun, results: LoggedResults, options: ImportOptions, task: str) -> int:
    stated, given = results.find_number("n-shot", task, most=_MOST_SHOTS), options.num_fewshot
    if stated is None:
        stated = given
    if stated is None:
        raise ConfigError(
            f"num_fewshot: {_describe(logged)} does not say how many demonstrations the prompts of task '{task}' "
            "show; add num_fewshot=…"
        )
    if given is not None and stated != given:
        raise ConfigError(f"num_fewshot={given}: {results.path} says {stated:g} for task '{task}'")
    return int(stated)


def _describe(logged: LoggedRun) -> str:
    return str(logged.results or next(iter(logged.samples.values())))


@dataclass(frozen=True)
class _ConvertedTask:
    """The scored records of a task, its result, and the options of the metrics that were computed again."""

    records: tuple[Record, ...]
    result: TaskResult
    metrics: Mapping[str, Any]


def _convert_task(logged: LoggedRun, results: LoggedResults, task: str, num_fewshot: int, seed: int) -> _ConvertedTask:
    documents, name = read_documents(logged.samples[task]), task_name(task)
    records = make_records(documents, num_fewshot)
    options = find_corpus_metrics(documents, records)
    measurements = [
        *measure_documents(task, documents, results),
        *measure_records(name, records, build_own_metrics(options, f"task.{name}.metrics")),
    ]
    scored = score_measurements(records, measurements, seed)
    counts = count_records(scored.records, None, scored.unparsed)
    result = TaskResult(len(records), num_fewshot, scored.results, counts, behaviour=None)
    return _ConvertedTask(scored.records, result, options)


def _identify(logged: LoggedRun, model: str, shots: dict[str, int], seed: int) -> dict[str, Any]:
    """Return what determines the imported run: the options and the content of the files."""
    files = [*logged.samples.values(), *([logged.results] if logged.results else [])]
    digests = {f"file.{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    shown = {f"task.{task}.num_fewshot": number for task, number in shots.items()}
    return {"imported_from": _NAME, "model": model, "seed": seed, **shown, **digests}


def _describe_run(results: LoggedResults, model: str, shots: dict[str, int], seed: int, fingerprint: str) -> RunInfo:
    """Return the options of the run. The harness chose and placed demonstrations in its own way."""
    numbers = set(shots.values())
    dtype = str(results.find("config", "model_dtype") or _UNKNOWN).removeprefix("torch.")
    return RunInfo(
        model=model,
        architecture=_UNKNOWN,
        template=_NAME,
        placement=_NAME,
        conventions={},
        num_fewshot=numbers.pop() if len(numbers) == 1 else None,
        demonstrations=_NAME,
        order=_NAME,
        control="none",
        leave_out=None,
        seed=seed,
        decoding={
            "search": _NAME,
            "dtype": dtype,
            "batch_invariant": None if dtype == _UNKNOWN else dtype in ("float32", "float64"),
            "tasks": {task: results.find("configs", task, "generation_kwargs") or {} for task in shots},
        },
        fingerprint=fingerprint,
    )


def _describe_timing(results: LoggedResults) -> Timing:
    if not isinstance(results.find("date"), int | float):
        return Timing({}, None)
    started = results.find_number("date", most=_MOST_SECONDS) or 0.0
    seconds = results.find_number("total_evaluation_time_seconds", most=_MOST_SECONDS)
    duration = round(seconds or 0.0, 3)
    finished = datetime.fromtimestamp(started + duration, UTC).isoformat(timespec="microseconds")
    return Timing({_NAME: duration} if seconds else {}, None, finished)


def _describe_origin(results: LoggedResults, metrics: Mapping[str, Mapping[str, Any]]) -> Provenance:
    names = {"lm_eval": "lm_eval_version", "transformers": "transformers_version"}
    versions = {name: str(results.find(key)) for name, key in names.items() if results.find(key)}
    return Provenance(
        versions={"icl_eval": icl_eval.__version__, **versions},
        git_commit=None,
        weights=str(results.find("config", "model_sha") or _UNKNOWN),
        datasets={},
        config={
            "task": {task: {"metrics": options} for task, options in metrics.items()},
            _NAME: {key: value for key, value in results.content.items() if key not in _LEFT_OUT},
        },
        host={},
    )
