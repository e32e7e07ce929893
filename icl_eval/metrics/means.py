"""Statistics of metrics whose corpus score is the mean of one value per example."""

from collections.abc import Sequence
from dataclasses import replace
from math import fsum

import numpy as np

from icl_eval import __version__
from icl_eval.metrics.intervals import FloatArray
from icl_eval.metrics.scoring import ScoreKind, Statistics


def mean_statistics(
    values: Sequence[float], signature: str, unparsed: int | None = None, kind: ScoreKind = "mean"
) -> Statistics:
    """Return the statistics of a mean; each row is the value of an example and 1.

    Args:
        values: One value per example.
        signature: The signature of the metric.
        unparsed: The number of predictions that contain nothing to compare.
        kind: Which kind of mean the score is.
    """
    return Statistics(
        value=fsum(values) / len(values),  # fsum rounds only once, so the order of the examples does not matter
        rows=np.column_stack([values, np.ones(len(values))]),
        score_sums=_means,
        per_example=tuple(float(value) for value in values),
        signature=signature,
        unparsed=unparsed,
        kind=kind,
    )


def stored_statistics(values: Sequence[float], signature: str) -> Statistics:
    """Return the statistics of a mean whose values another program computed.

    What the values mean is unknown here; if each of them is 0 or 1, they count as wrong and right answers. If each of
    them is from 0 to 1, so is their mean.
    """
    kind: ScoreKind = "mean"
    if all(value in (0.0, 1.0) for value in values):
        kind = "share"
    elif all(0.0 <= value <= 1.0 for value in values):
        kind = "bounded mean"
    return replace(mean_statistics(values, signature, kind=kind), is_stored=True)


def _means(sums: FloatArray) -> FloatArray:
    means: FloatArray = sums[..., 0] / sums[..., 1]
    return means


def format_signature(name: str, **options: object) -> str:
    """Return a signature in sacrebleu's style, such as `token_f1|norm:squad|version:0.1.0`."""
    return "|".join([name, *(f"{key}:{value}" for key, value in options.items()), f"version:{__version__}"])
