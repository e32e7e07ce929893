"""Scoring: the interface of metrics, and the path from predictions and references to a `Score`.

A metric only extracts statistics, and its library computes the value. The statistics of examples are additive, and so
are those of clusters of examples. What the values of a metric can be decides how its interval is computed:

    wilson      a mean of values from 0 to 1, such as exact match or F1: Wilson's interval with the effective number
    jackknife   BLEU: Student's t of the logarithm, by the jackknife
    bootstrap   everything else: resampling

See `icl_eval.metrics.intervals` for each of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Literal, Protocol

import numpy as np

from icl_eval.errors import DataError
from icl_eval.metrics.intervals import (
    NUM_RESAMPLES,
    FloatArray,
    Interval,
    bootstrap,
    effective_number,
    log_jackknife,
    mean_stderr,
    share_interval,
    sum_by_cluster,
)

Method = Literal["wilson", "jackknife", "bootstrap"]
"""How an interval is computed."""
ScoreKind = Literal["corpus", "mean", "bounded mean", "share"]
"""How a score follows from the values of examples: `share` is the mean of right (1) and wrong (0), `bounded mean` the
mean of values that are from 0 to 1 by definition, and `mean` of any others; `corpus` follows in any other way."""


@dataclass(frozen=True)
class Statistics:
    """The statistics that a metric extracts from a corpus."""

    value: float
    """The score of the whole corpus, exactly as computed by the library behind the metric."""
    rows: FloatArray
    """One row of additive statistics per example, `[num_examples, num_statistics]`."""
    score_sums: Callable[[FloatArray], FloatArray] | None
    """Maps summed rows `[..., num_statistics]` to scores `[...]`; None if the score is not a function of a sum."""
    per_example: tuple[float | None, ...]
    """One value per example, for display; None if the metric is not defined for a single example."""
    signature: str
    """Every option that changes the value, and the version of the code that computed it."""
    unparsed: int | None = None
    """Number of predictions that contain nothing to compare; None if every string can be compared."""
    kind: ScoreKind = "corpus"
    """How `value` follows from `per_example`."""
    is_stored: bool = False
    """Whether another program computed the values of the examples, so that they must be kept in the records."""
    log_scale_end: float | None = None
    """The highest possible score, if the interval is computed on a logarithmic scale; otherwise None."""
    is_smoothed: bool = False
    """Whether the score only consists of smoothing, because the corpus matches nothing that it counts."""

    @property
    def is_mean(self) -> bool:
        """Whether `value` is the mean of `per_example`."""
        return self.kind != "corpus"

    @property
    def is_bounded(self) -> bool:
        """Whether `value` is a mean of values that are from 0 to 1 by definition."""
        return self.kind in ("bounded mean", "share")

    @property
    def is_share(self) -> bool:
        """Whether `value` is a proportion of correct answers."""
        return self.kind == "share"


NamedStatistics = tuple[str, bool, Statistics]
"""The name of a score, whether higher is better, and its statistics."""


def value_alone(value: float, num_examples: int, signature: str) -> Statistics:
    """Return the statistics of a corpus of which only the score is known, so that it has no interval."""
    return Statistics(value, np.empty((num_examples, 0)), None, (None,) * num_examples, signature)


class Metric(Protocol):
    """Compares predictions with references."""

    name: str
    higher_is_better: bool

    def check_references(self, references: Sequence[Sequence[str]]) -> None:
        """Raise DataError if the metric cannot use these references; called before anything is decoded."""
        ...

    def per_example(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
        """Compare each prediction with its references, of which there must be at least one per example."""
        ...


@dataclass(frozen=True)
class Score:
    """The score of a corpus, with its uncertainty and a signature for reproduction."""

    metric: str
    value: float
    stderr: float | None
    """Standard error; None if there is no interval, or if all examples are equal, so that no error can be seen."""
    ci95: tuple[float, float] | None
    """Lower and upper end of the 95 % interval; None for a single example or cluster, if the statistics are not
    additive, if the score is smoothing alone, and if all examples are equal, unless their values are from 0 to 1."""
    signature: str
    higher_is_better: bool
    unparsed: int | None
    """Number of predictions that contain nothing to compare; None if every string can be compared."""
    per_example: tuple[float | None, ...] = field(repr=False)
    """One value per example, in the order of the predictions."""
    method: Method | None = None
    """How the interval was computed; None if there is none."""
    is_smoothed: bool = False
    """Whether the score only consists of smoothing, because the corpus matches nothing that it counts."""


def score(
    metric: Metric,
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    clusters: Sequence[str] | None = None,
) -> Score:
    """Score a corpus and estimate the sampling error of the score.

    Args:
        metric: The metric.
        predictions: One prediction per example.
        references: The references of each example.
        seed: The seed of the bootstrap.
        num_resamples: The number of resampled corpora.
        clusters: The cluster of each example; None if examples are independent.

    Raises:
        DataError: If there is nothing to score, or an example has no prediction, no references or no cluster.
    """
    statistics = compute_statistics(metric, predictions, references)
    if clusters is not None:
        _check_clusters(metric.name, clusters, len(predictions))
        clusters = list(map(str, clusters))
    return score_statistics(metric.name, metric.higher_is_better, statistics, seed, num_resamples, clusters)


def compute_statistics(metric: Metric, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
    """Return the statistics of a metric for a corpus.

    Raises:
        DataError: If there is nothing to score, or an example has no prediction or no references.
    """
    check_corpus(metric.name, predictions, references)
    return metric.per_example(predictions, references)


def score_statistics(
    name: str,
    higher_is_better: bool,
    statistics: Statistics,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    clusters: Sequence[str] | None = None,
) -> Score:
    """Turn the statistics of a corpus into a score with standard error and interval."""
    method = choose_method(statistics)
    interval = _interval(method, statistics, seed, num_resamples, clusters)
    return Score(
        metric=name,
        value=statistics.value,
        stderr=interval.stderr or None if interval else None,
        ci95=(interval.low, interval.high) if interval else None,
        signature=statistics.signature,
        higher_is_better=higher_is_better,
        unparsed=statistics.unparsed,
        per_example=statistics.per_example,
        method=method if interval else None,
        is_smoothed=statistics.is_smoothed,
    )


def choose_method(statistics: Statistics) -> Method:
    """Return how the interval of a score is computed, if it has one."""
    if statistics.is_bounded:
        return "wilson"
    return "bootstrap" if statistics.log_scale_end is None else "jackknife"


def _interval(
    method: Method, statistics: Statistics, seed: int, num_resamples: int, clusters: Sequence[str] | None
) -> Interval | None:
    if statistics.score_sums is None or statistics.is_smoothed:
        return None
    rows = sum_by_cluster(statistics.rows, clusters)
    if len(rows) < 2:
        return None
    values = np.array(statistics.per_example, np.float64)  # NaN where an example has none
    if method == "wilson":
        low, high = share_interval(statistics.value, effective_number(values, clusters))
        return Interval(mean_stderr(values, clusters), low, high)
    if statistics.log_scale_end is not None:
        interval = log_jackknife(rows, statistics.score_sums, statistics.log_scale_end)
    else:
        with np.errstate(over="ignore", invalid="ignore"):  # a perplexity may exceed the range of numbers
            interval = bootstrap(rows, statistics.score_sums, seed, num_resamples)
    if statistics.is_mean and interval is not None:
        interval = replace(interval, stderr=mean_stderr(values, clusters))
    if interval is None or not interval.stderr:
        return None
    return interval if np.isfinite((interval.stderr, interval.low, interval.high)).all() else None


def _is_list_of_strings(answers: object) -> bool:
    if not isinstance(answers, Sequence) or isinstance(answers, str):  # a string is a sequence of characters
        return False
    return len(answers) > 0 and all(isinstance(answer, str) for answer in answers)


def _check_clusters(name: str, clusters: Sequence[object], num_examples: int) -> None:
    if len(clusters) != num_examples:
        raise DataError(f"{name}: {len(clusters)} clusters for {num_examples} examples")
    for number, cluster in enumerate(clusters, start=1):
        if not isinstance(cluster, str | Integral):
            raise DataError(f"{name}: example {number} of {num_examples} has the cluster {cluster!r}; must be a string")


def check_corpus(name: str, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Check that every prediction has references, which sacrebleu does not check.

    Raises:
        DataError: If there is nothing to score, or an example has no prediction or no references.
    """
    if len(predictions) != len(references):
        raise DataError(
            f"{name}: {len(predictions)} predictions but {len(references)} lists of references; every prediction needs "
            "one list"
        )
    if not predictions:
        raise DataError(f"{name}: nothing to score; at least one prediction is needed")
    for number, prediction in enumerate(predictions, start=1):
        if not isinstance(prediction, str):
            raise DataError(
                f"{name}: example {number} of {len(predictions)} has the prediction {prediction!r}; must be a string"
            )
    for number, answers in enumerate(references, start=1):
        if not _is_list_of_strings(answers):
            raise DataError(
                f"{name}: example {number} of {len(references)} has the references {answers!r}; must be a list of one "
                "or more strings"
            )
