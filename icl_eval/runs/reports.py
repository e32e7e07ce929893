"""Write and read the results of a run, `report.json`, and describe them with a JSON schema.

`run` and `results` are byte-identical for identical inputs. Everything that may differ between two runs of the same
command is in `timing` and `provenance`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from icl_eval.errors import DataError
from icl_eval.formatting import count_noun, find_not_finite, format_value
from icl_eval.runs.behaviour import Behaviour, ControlOutcome
from icl_eval.runs.migration import upgrade_config
from icl_eval.runs.records import describe_mistake
from icl_eval.runs.writing import write_whole

SCHEMA_VERSION: Literal[2] = 2
"""Version 1 had classes instead of names in `provenance.config`. Its reports are converted when they are read."""


_WRITTEN_WHOLE = ConfigDict(json_schema_serialization_defaults_required=True)
"""Defaults let older reports be read without newer fields; reports are always written with all fields."""


@dataclass(frozen=True)
class MetricResult:
    """One score, its uncertainty, and the metric's signature."""

    __pydantic_config__ = _WRITTEN_WHOLE

    score: float
    """The score: 0 to 1 for exact match, F1, numeric match and accuracy; sacrebleu's scale (0 to 100) for BLEU, chrF
    and TER; nats for log-likelihoods; 1 or more for ranks and perplexities."""
    stderr: float | None
    """The standard error over test examples, or over their clusters: of a mean by the usual formula, of BLEU by the
    jackknife, otherwise by the bootstrap. Null if there is no interval, and if all examples are equal (0 of n right),
    where no error can be seen."""
    ci95: tuple[float, float] | None
    """The 95 % interval over test examples, or over their clusters, computed by `method`. Null for a single example or
    cluster, for a metric without per-example statistics, for a score that is smoothing alone, and if all examples are
    equal, unless values are from 0 to 1."""
    signature: str
    """All options that affect the score."""
    higher_is_better: bool
    stored: bool = False
    """Whether the score is the mean of the metric's values in the records, which another program computed, so that they
    cannot be computed again from predictions or likelihoods."""
    method: str | None = None
    """How the interval is computed: `wilson`, Wilson's with the effective number of examples, for values from 0 to 1;
    `jackknife`, Student's t of the logarithm by the jackknife, for BLEU; `bootstrap`, expanded percentiles; `normal`,
    for a group of tasks. Null without an interval, and in reports of earlier versions."""
    smoothed: bool = False
    """Whether the score is smoothing alone: a BLEU of a corpus that matches no 4-gram."""

    @property
    def known_stderr(self) -> float | None:
        """The standard error as other programs write it, which is 0 if all examples are equal."""
        return 0.0 if self.stderr is None and self.ci95 is not None else self.stderr

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
    """Counts of tokens and completions, summed over a task's examples."""

    __pydantic_config__ = _WRITTEN_WHOLE

    prompt_tokens: int | None
    """The tokens of all prompts, encoder and decoder side, without padding; null, like the next two numbers, if another
    program decoded the prompts and does not say."""
    prefix_tokens_reused: int | None
    """The prompt tokens that a run of all prompts reads from the cache of a shared prefix, by its plan, so that a
    resumed run reports the same. Null also for a server, whose sessions in the provenance count them."""
    completion_tokens: int | None
    finish_reasons: Mapping[str, int]
    """The number of completions that ended with `eos`, `stop` or `length`; `undecoded` if nothing was decoded,
    `content_filter` if a server withheld the rest, and `unknown` if another program does not say."""
    unparsed: Mapping[str, int]
    """By metric, the number of predictions in which it found no answer to compare."""
    shots_effective: Mapping[str, int]
    """The number of prompts, by their number of demonstrations."""
    empty: int = 0
    """The number of predictions that are empty or only a tag such as `<think>`, although no reference is."""
    stopped_empty: Mapping[str, int] = field(default_factory=dict)
    """By stop string, the number of completions that it ended before they had any content."""


@dataclass(frozen=True)
class TaskResult:
    """The scores of one task."""

    __pydantic_config__ = _WRITTEN_WHOLE

    n: int
    """The number of examples scored."""
    num_fewshot: int
    """The number of demonstrations that each prompt should show: the requested number without those that a control or
    `leave_out` removes."""
    metrics: Mapping[str, MetricResult]
    counts: Counts
    behaviour: Behaviour | None
    """How often outputs agree with demonstrations; null if no prompt shows a target."""
    control: ControlOutcome | None = None
    """What the control left right, and whether outputs follow what is shown instead; null without a control."""
    num_clusters: int | None = None
    """The number of clusters of the examples, over which errors are estimated; null if the task names none."""


@dataclass(frozen=True)
class GroupResult:
    """The scores of several tasks as one."""

    tasks: tuple[str, ...]
    n: int
    """The number of examples scored in all of them."""
    metrics: Mapping[str, MetricResult]


@dataclass(frozen=True)
class RunInfo:
    """The options of a run, with defaults resolved."""

    __pydantic_config__ = _WRITTEN_WHOLE

    model: str
    architecture: str
    template: str
    """The template; the names of all if tasks bring their own."""
    placement: str
    conventions: Mapping[str, str]
    """The model conventions in use: task prefix, languages, and the text that starts each prompt."""
    num_fewshot: int | None
    """The number of demonstrations that were selected for each question; null if it differs between tasks."""
    demonstrations: str
    """The strategy that selects demonstrations."""
    order: str
    """The order of demonstrations in prompts."""
    control: str
    """The control experiment; `none` for unchanged demonstrations."""
    leave_out: int | None
    """The rank, from 1, of the selected demonstration that is not shown; null if all are shown."""
    seed: int
    decoding: Mapping[str, Any]
    """The search, the dtype (`unknown` if a server does not say), the tokens that end a completion (`ends`), the
    settings that the search takes from the model's generation config (`generation_config`), and by task the stop
    strings and the limit on new tokens."""
    fingerprint: str
    """A digest of everything that determines the records: options, data and weights."""
    loading: Mapping[str, Any] = field(default_factory=dict)
    """In which form the model was loaded, if not as its files are: the names of its `adapter` and of another
    `tokenizer`, its `quantization` config, and the `attn_implementation` asked for."""
    one_draw: bool = False
    """Whether all questions share one random draw of demonstrations, so that intervals, which are over questions, do
    not say what another draw would score."""

    @property
    def form(self) -> str:
        """In which form the model was loaded, in words; an empty string if as its files are."""
        words = [f"{name} {value}" for name, value in self.loading.items() if isinstance(value, str)]
        if quantization := self.loading.get("quantization"):
            words.append(
                f"quantization {', '.join(f'{key} {format_value(each)}' for key, each in quantization.items())}"
            )
        return "; ".join(words)

    @property
    def shots(self) -> str:
        """The number of demonstrations, in words."""
        if self.num_fewshot is None:
            return "each task's own number of demonstrations"
        return count_noun(self.num_fewshot, "demonstration")


@dataclass(frozen=True)
class Timing:
    """The durations of a run in this process. A resumed run only counts its own work."""

    __pydantic_config__ = _WRITTEN_WHOLE

    seconds: Mapping[str, float]
    """Seconds by stage: prompts, metrics (importing them), model, decoding, likelihood, scoring."""
    completion_tokens_per_second: float | None
    """New tokens per second of decoding; null if nothing was left to decode."""
    finished: str | None = None
    """When the run ended, in UTC (ISO 8601); null in reports of earlier versions."""


@dataclass(frozen=True)
class Provenance:
    """Where the results come from."""

    __pydantic_config__ = _WRITTEN_WHOLE

    versions: Mapping[str, str]
    git_commit: str | None
    weights: str
    """An identifier of the weights' content."""
    datasets: Mapping[str, str]
    """By task, a digest of the examples in the pool and the test split; missing if another program read them."""
    config: Mapping[str, Any]
    """The whole configuration, with names instead of classes."""
    host: Mapping[str, Any]
    overrides: tuple[str, ...] = ()
    """The overrides as typed on the command line; empty in reports of version 1."""
    engine: Mapping[str, Any] = field(default_factory=lambda: {"name": "transformers"})
    """What ran the model; for a server, what each session found out about it, what was sent, and what it cost."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """Identifiers of the contents of the `adapter` and of another `tokenizer`, if there are any."""
    network: Mapping[str, Any] = field(default_factory=dict)
    """How the network ran in this process: its attention implementation, its devices, and whether its weights are
    quantized; empty if nothing was left to compute."""


@dataclass(frozen=True)
class Report:
    """The results of one run."""

    __pydantic_config__ = _WRITTEN_WHOLE

    schema_version: Annotated[Literal[2], BeforeValidator(lambda version: SCHEMA_VERSION if version == 1 else version)]
    run: RunInfo
    results: Mapping[str, TaskResult]
    timing: Timing
    provenance: Provenance
    groups: Mapping[str, GroupResult] = field(default_factory=dict)
    """The scores of groups of tasks."""

    @property
    def rows(self) -> list[tuple[str, int, Mapping[str, MetricResult]]]:
        """The name, the number of examples and the scores of each task, then of each group."""
        tasks = [(name, result.n, result.metrics) for name, result in self.results.items()]
        return tasks + [(f"{name} (group)", group.n, group.metrics) for name, group in self.groups.items()]


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
    """Return the JSON Schema of `report.json` as it is written. Older reports may lack fields with a default."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_REPORT.json_schema(mode="serialization")}


def write_report(report: Report, path: Path) -> None:
    """Write a report atomically."""
    write_json(asdict(report), path)


def read_report(path: Path) -> Report:
    """Read a report written by this or an earlier version.

    Raises:
        DataError: If the file is not a report.
    """
    report = _read(_REPORT, path, "report")
    config = upgrade_config(report.provenance.config, report.run.template)
    return replace(report, provenance=replace(report.provenance, config=config))


def read_failure(path: Path) -> Failure:
    """Read the reason why a cell failed.

    Raises:
        DataError: If the file is not a failure report.
    """
    return _read(_FAILURE, path, "failure report")


def _read(kind: TypeAdapter[_Kind], path: Path, name: str) -> _Kind:
    try:
        return kind.validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        raise DataError(f"{path}: not a {name} ({describe_mistake(error)})") from None


def write_json(value: Any, path: Path) -> None:
    """Write a JSON file atomically.

    Raises:
        DataError: If a number is not finite, which JSON cannot represent.
    """
    try:
        content = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError:
        raise DataError(f"{path}: cannot be written ({find_not_finite(value)}, which is not a finite number)") from None
    write_whole(content, path)
