"""Settle a question that has several samples: each sample is postprocessed, and their predictions vote.

This is self-consistency (Wang et al., 2023, https://arxiv.org/abs/2203.11171): reasoning that differs from sample to
sample is discarded, and the most frequent answer counts.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from icl_eval.metrics.postprocessing import Postprocessor
from icl_eval.runs.records import Record
from icl_eval.tasks.examples import normalize


def settle(record: Record, postprocess: Postprocessor) -> Record:
    """Return a record with the prediction of its completion or, if it has samples, with that of their majority.

    Completion, finish reason and stop string are then those of the first sample with the winning prediction.
    """
    if not record.samples:
        prediction = postprocess(record.completion)
        return record if prediction == record.prediction else replace(record, prediction=prediction)
    samples = tuple(replace(sample, prediction=postprocess(sample.completion)) for sample in record.samples)
    elected = samples[elect([sample.prediction for sample in samples])]
    return replace(
        record,
        completion=elected.completion,
        prediction=elected.prediction,
        finish_reason=elected.finish_reason,
        stop_string=elected.stop_string,
        samples=samples,
    )


def elect(predictions: Sequence[str]) -> int:
    """Return the index of the first of the most frequent predictions.

    Predictions that differ in case or white space are the same. Among equally frequent ones, the one that was sampled
    first is elected. An empty prediction has no vote; if all are empty, the first is elected.
    """
    ballots = [normalize(prediction) for prediction in predictions]
    counts = Counter(filter(None, ballots))
    return ballots.index(max(counts, key=counts.__getitem__)) if counts else 0
