"""Reports: what one run found, as `report.json` and as the schema that describes it.

`run` and `results` are the same bytes for the same inputs; everything that may differ between two runs of the
same command is in `timing` and `provenance`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from icl_eval.errors import DataError
from icl_eval.formatting import find_not_finite
from icl_eval.runs.behaviour import Behaviour
from icl_eval.runs.migration import upgrade_config
from icl_eval.runs.records import describe_mistake
from icl_eval.runs.writing import write_whole

SCHEMA_VERSION: Literal[2] = 2
"""Version 1 had classes in place of names in `provenance.config`; such reports are read as version 2."""


_WRITTEN_WHOLE = ConfigDict(json_schema_serialization_defaults_required=True)
"""A field that an earlier report lacks has a default for reading; a report that is written has all fields."""


@dataclass(frozen=True)
class MetricResult:
    """One score and the recipe behind it."""

    score: float
    """0 to 1 for exact match, F1, numeric match and accuracy; sacrebleu's scale (0 to 100) for BLEU, chrF and TER; nats
    for log-probabilities; ranks from 1; perplexities."""
    stderr: float | None
    """Standard error over test examples (bootstrap); null for a single example, and where a metric gives no per-example
    statistics."""
    ci95: tuple[float, float] | None
    """Over test examples: Wilson's interval for a share of right answers, else the bootstrap's percentiles; null where
    `stderr` is."""
    signature: str
    """Every option that changes the number."""
    higher_is_better: bool

    def as_columns(self) -> dict[str, Any]:
        """Return the score as columns of a data frame."""
        low, high = self.ci95 or (None, None)
        return {
            "score": self.score,
            "stderr": self.stderr,
            "ci_low": low,
            "ci_high": high,
            "higher_is_better": self.higher_is_better,
            "signature": self.signature,
        }


@dataclass(frozen=True)
class Counts:
    """What went in and out, summed over a task's examples."""

    __pydantic_config__ = _WRITTEN_WHOLE

    prompt_tokens: int
    """Tokens of all prompts, encoder and decoder side, without padding."""
    prefix_tokens_reused: int
    """How many of them were served from the cache of a prefix shared with other prompts."""
    completion_tokens: int
    finish_reasons: Mapping[str, int]
    """How many completions ended by `eos`, `stop` or `length`; `undecoded` where nothing was to be decoded."""
    unparsed: Mapping[str, int]
    """By metric, in how many predictions it found nothing that it could compare."""
    shots_effective: Mapping[str, int]
    """How many prompts held how many demonstrations."""
    empty: int = 0
    """Predictions that are empty, or nothing but a tag such as `<think>`, though no reference is."""
    stopped_empty: Mapping[str, int] = field(default_factory=dict)
    """By stop string, how many completions it ended before any such text."""


@dataclass(frozen=True)
class TaskResult:
    """The scores of one task."""

    n: int
    """How many examples were scored."""
    num_fewshot: int
    """How many demonstrations a prompt was to show: those asked for, without those that a control
    or `leave_out` takes away."""
    metrics: Mapping[str, MetricResult]
    counts: Counts
    behaviour: Behaviour | None
    """How outputs agree with demonstrations; null where no prompt shows a target."""


@dataclass(frozen=True)
class RunInfo:
    """What was asked, with what the defaults came to."""

    model: str
    architecture: str
    template: str
    placement: str
    conventions: Mapping[str, str]
    """What was asked of the model's own conventions: task prefix, languages, and the text that opens prompts."""
    num_fewshot: int
    demonstrations: str
    """The strategy that chose them."""
    order: str
    """How prompts arrange them."""
    control: str
    """What was taken away from them; `none` for nothing."""
    leave_out: int | None
    """The rank, from 1, of the one that was selected and not shown."""
    seed: int
    decoding: Mapping[str, Any]
    """Search, dtype, the tokens that end a completion (`ends`), what the model's generation config changes in the
    search (`generation_config`) and, by task, stop strings and the number of new tokens."""
    fingerprint: str
    """Digest of everything that decides the records: options, data, weights."""


@dataclass(frozen=True)
class Timing:
    """Seconds of this process; a resumed run counts only what it did itself."""

    seconds: Mapping[str, float]
    """By stage: prompts, metrics (importing them), model, decoding, likelihood, scoring."""
    completion_tokens_per_second: float | None
    """New tokens over decoding time; null where nothing was left to decode."""


@dataclass(frozen=True)
class Provenance:
    """Where a number came from."""

    __pydantic_config__ = _WRITTEN_WHOLE

    versions: Mapping[str, str]
    git_commit: str | None
    weights: str
    """Identity of the weights' content."""
    datasets: Mapping[str, str]
    """By task, a digest of the examples of pool and test split."""
    config: Mapping[str, Any]
    """The whole composed configuration, with the names of what was chosen."""
    host: Mapping[str, Any]
    overrides: tuple[str, ...] = ()
    """What was asked for, in the words of the command line; a report of version 1 does not say."""


@dataclass(frozen=True)
class Report:
    """What one run found."""

    schema_version: Annotated[Literal[2], BeforeValidator(lambda version: SCHEMA_VERSION if version == 1 else version)]
    run: RunInfo
    results: Mapping[str, TaskResult]
    timing: Timing
    provenance: Provenance


@dataclass(frozen=True)
class Failure:
    """Why a cell of a sweep has no report."""

    error: str
    """The exception's type."""
    message: str
    exit_code: int


_Kind = TypeVar("_Kind")
_REPORT = TypeAdapter(Report)
_FAILURE = TypeAdapter(Failure)


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema of `report.json` as it is written; a report of before may lack what has a default."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_REPORT.json_schema(mode="serialization")}


def write_report(report: Report, path: Path) -> None:
    """Write a report, at once or not at all."""
    write_json(asdict(report), path)


def read_report(path: Path) -> Report:
    """Read what `write_report` of this or an earlier version wrote.

    Raises:
        DataError: When the file is no report.
    """
    report = _read(_REPORT, path, "report")
    config = upgrade_config(report.provenance.config, report.run.template)
    return replace(report, provenance=replace(report.provenance, config=config))


def read_failure(path: Path) -> Failure:
    """Read why a cell failed.

    Raises:
        DataError: When the file does not say so.
    """
    return _read(_FAILURE, path, "note of a failure")


def _read(kind: TypeAdapter[_Kind], path: Path, name: str) -> _Kind:
    try:
        return kind.validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        raise DataError(f"{path}: not a {name} ({describe_mistake(error)})") from None


def write_json(value: Any, path: Path) -> None:
    """Write a JSON file, at once or not at all.

    Raises:
        DataError: When a number in it is infinite or not a number, which JSON has no word for.
    """
    try:
        content = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError:
        raise DataError(f"{path}: cannot be written ({find_not_finite(value)}, which is not a finite number)") from None
    write_whole(content, path)
