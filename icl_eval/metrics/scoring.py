"""The way from predictions and references to a `Score`: what a metric has to offer, and what it gets for it.

A metric only extracts statistics. The value is the one its library computes; the standard error is the same
bootstrap for every metric, because statistics of examples add up, and the interval is the bootstrap's too unless the
value is a share of right answers (see `icl_eval.metrics.intervals`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from icl_eval.errors import DataError
from icl_eval.metrics.intervals import FloatArray, Interval, bootstrap, share_interval


@dataclass(frozen=True)
class Statistics:
    """What a metric found in a corpus."""

    value: float
    """The score of the whole corpus, exactly as the library behind the metric gives it."""
    rows: FloatArray
    """One row an example, `[num_examples, num_statistics]`; the rows of several examples add up."""
    score_sums: Callable[[FloatArray], FloatArray] | None
    """Summed rows `[..., num_statistics]` to scores `[...]`; None where the score is no function of a sum."""
    per_example: tuple[float | None, ...]
    """A value to show beside each example; None where the metric has no meaning for a single one."""
    signature: str
    """Every option that changes the value, and the version of the code that computed it."""
    unparsed: int | None = None
    """Predictions in which nothing to compare was found; None where any text can be compared."""
    is_mean: bool = False
    """Whether `value` is the plain mean of `per_example`."""
    is_share: bool = False
    """Whether it is, moreover, a share of right answers: each example is 1 or 0."""


class Metric(Protocol):
    """A way to compare predictions with references."""

    name: str
    higher_is_better: bool

    def check_references(self, references: Sequence[Sequence[str]]) -> None:
        """Raise DataError where references are none that it could ever compare with, before anything is decoded."""
        ...

    def per_example(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
        """Compare each prediction with its references, at least one an example."""
        ...


@dataclass(frozen=True)
class Score:
    """One number about a corpus, with what is needed to trust and to reproduce it."""

    metric: str
    value: float
    stderr: float | None
    """None where there is no interval either."""
    ci95: tuple[float, float] | None
    """Lower and upper end; None for a single example, and for a metric whose statistics do not add up."""
    signature: str
    higher_is_better: bool
    unparsed: int | None
    """Predictions in which nothing to compare was found; None where any text can be compared."""
    per_example: tuple[float | None, ...] = field(repr=False)
    """One value an example, in the order of the predictions."""


def score(
    metric: Metric,
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    seed: int,
    num_resamples: int = 1000,
) -> Score:
    """Score a corpus and estimate the spread of its score over examples.

    Raises:
        DataError: there is nothing to score, or an example lacks its prediction or its references.
    """
    statistics = compute_statistics(metric, predictions, references)
    return score_statistics(metric.name, metric.higher_is_better, statistics, seed, num_resamples)


def compute_statistics(metric: Metric, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
    """Return what a metric finds in a corpus.

    Raises:
        DataError: there is nothing to score, or an example lacks its prediction or its references.
    """
    check_corpus(metric.name, predictions, references)
    return metric.per_example(predictions, references)


def score_statistics(
    name: str, higher_is_better: bool, statistics: Statistics, seed: int, num_resamples: int = 1000
) -> Score:
    """Turn what was found in a corpus into a score, with the spread of it over examples."""
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
    interval = bootstrap(statistics.rows, statistics.score_sums, seed, num_resamples)
    if not statistics.is_share:
        return interval
    low, high = share_interval(statistics.value, num_examples)
    return replace(interval, low=low, high=high)


def check_corpus(name: str, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Check that every prediction has its references, which sacrebleu would not notice.

    Raises:
        DataError: there is nothing to score, or an example lacks its prediction or its references.
    """
    if len(predictions) != len(references):
        raise DataError(
            f"{name}: every prediction needs its references, "
            f"found {len(predictions)} predictions and {len(references)} lists of references"
        )
    if not predictions:
        raise DataError(f"{name}: nothing to score, at least one prediction is needed")
    for number, answers in enumerate(references, start=1):
        if not answers or isinstance(answers, str):  # a string would be taken for a list of its letters
            raise DataError(
                f"{name}: example {number} of {len(references)} needs a list of one or more references, "
                f"found {answers!r}"
            )
