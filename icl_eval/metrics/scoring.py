"""Scoring: the interface of metrics, and the path from predictions and references to a `Score`.

A metric only extracts statistics, and its library computes the value. Because the statistics of examples are additive,
one bootstrap computes the standard error of every metric. It also computes the interval, unless the value is a
proportion of correct answers (see `icl_eval.metrics.intervals`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from icl_eval.errors import DataError
from icl_eval.metrics.intervals import NUM_RESAMPLES, FloatArray, Interval, bootstrap, share_interval


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
    is_mean: bool = False
    """Whether `value` is the mean of `per_example`."""
    is_share: bool = False
    """Whether `value` is a proportion of correct answers, so that each example has the value 0 or 1."""
    is_stored: bool = False
    """Whether another program computed the values of the examples, so that they must be kept in the records."""


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
    """Standard error; None if there is no interval."""
    ci95: tuple[float, float] | None
    """Lower and upper end of the 95 % interval; None for a single example, or if the statistics are not additive."""
    signature: str
    higher_is_better: bool
    unparsed: int | None
    """Number of predictions that contain nothing to compare; None if every string can be compared."""
    per_example: tuple[float | None, ...] = field(repr=False)
    """One value per example, in the order of the predictions."""


def score(
    metric: Metric,
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> Score:
    """Score a corpus and estimate the sampling error of the score.

    Raises:
        DataError: If there is nothing to score, or an example has no prediction or no references.
    """
    statistics = compute_statistics(metric, predictions, references)
    return score_statistics(metric.name, metric.higher_is_better, statistics, seed, num_resamples)


def compute_statistics(metric: Metric, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
    """Return the statistics of a metric for a corpus.

    Raises:
        DataError: If there is nothing to score, or an example has no prediction or no references.
    """
    check_corpus(metric.name, predictions, references)
    return metric.per_example(predictions, references)


def score_statistics(
    name: str, higher_is_better: bool, statistics: Statistics, seed: int, num_resamples: int = NUM_RESAMPLES
) -> Score:
    """Turn the statistics of a corpus into a score with standard error and interval."""
    interval = _interval(statistics, len(statistics.per_example), seed, num_resamples)
    return Score(
        metric=name,
        value=statistics.value,
        stderr=interval.stderr if interval else None,
        ci95=(interval.low, interval.high) if interval else None,
        signature=statistics.signature,
        higher_is_better=higher_is_better,
        unparsed=statistics.unparsed,
        per_example=statistics.per_example,
    )


def _interval(statistics: Statistics, num_examples: int, seed: int, num_resamples: int) -> Interval | None:
    if statistics.score_sums is None or num_examples < 2:
        return None
    with np.errstate(over="ignore"):  # a perplexity may exceed the range of numbers
        interval = bootstrap(statistics.rows, statistics.score_sums, seed, num_resamples)
    if not np.isfinite((interval.stderr, interval.low, interval.high)).all():
        return None
    if not statistics.is_share:
        return interval
    low, high = share_interval(statistics.value, num_examples)
    return replace(interval, low=low, high=high)


def _is_list_of_strings(answers: object) -> bool:
    if not isinstance(answers, Sequence) or isinstance(answers, str):  # a string is a sequence of characters
        return False
    return len(answers) > 0 and all(isinstance(answer, str) for answer in answers)


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
