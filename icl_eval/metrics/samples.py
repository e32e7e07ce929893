"""Samples: how good a question's samples are by themselves, beside the vote that the metrics of a task score.

`<metric>_mean_of_samples` is the expected score of one sample. `<metric>_any_of_<k>` is the probability that at least
one of k samples is right, pass@k for k of n samples (Chen et al., 2021, https://arxiv.org/abs/2107.03374): with c right
ones, 1 - C(n - c, k) / C(n, k), which has no bias, unlike the share of questions with a right one among the first k.

The samples of a question are not independent of each other. Every statistic therefore has one value per question, and
standard errors and intervals are over questions.
"""

from collections.abc import Iterator, Sequence
from math import comb, fsum

from icl_eval.metrics.means import mean_statistics
from icl_eval.metrics.scoring import Metric, NamedStatistics, ScoreKind, compute_statistics
from icl_eval.runs.records import Record


def sample_statistics(metric: Metric, records: Sequence[Record]) -> Iterator[NamedStatistics]:
    """Yield the statistics of a task's samples; nothing if there are none, or if the metric is not a mean."""
    num_samples = len(records[0].samples)
    if not num_samples:
        return
    predictions = [sample.prediction for record in records for sample in record.samples]
    references = [record.targets for record in records for _ in record.samples]
    statistics = compute_statistics(metric, predictions, references)
    if not statistics.is_mean:
        return
    values = [value for value in statistics.per_example if value is not None]
    by_question = [values[start : start + num_samples] for start in range(0, len(values), num_samples)]
    means = [fsum(own) / num_samples for own in by_question]
    kind: ScoreKind = "bounded mean" if statistics.is_bounded else "mean"
    yield _average(metric, "mean_of_samples", means, statistics.signature, kind)
    if statistics.is_share:
        for k in _list_sizes(num_samples):
            chances = [any_of(k, num_samples, int(sum(own))) for own in by_question]
            kind = "share" if k == num_samples else "bounded mean"
            yield _average(metric, f"any_of_{k}", chances, statistics.signature, kind)


def any_of(k: int, num_samples: int, num_right: int) -> float:
    """Return the probability that k of a question's samples, drawn without replacement, contain a right one."""
    subsets = comb(num_samples, k)
    return (subsets - comb(num_samples - num_right, k)) / subsets


def _list_sizes(num_samples: int) -> list[int]:
    """Return 2, 4, 8 … below the number of samples, and that number; one sample is `mean_of_samples`."""
    powers = (2**exponent for exponent in range(1, num_samples.bit_length()))
    return [*(size for size in powers if size < num_samples), num_samples]


def _average(metric: Metric, name: str, values: Sequence[float], signature: str, kind: ScoreKind) -> NamedStatistics:
    averaged = mean_statistics(values, f"{signature}|samples:{name}", kind=kind)
    return f"{metric.name}_{name}", metric.higher_is_better, averaged
