"""The best minus the worst of several scores, and how large it would be by noise alone.

Of many cells with the same true score, one is the best and one the worst: with 36 cells and 64 questions they are 0.22
apart on average. What noise alone gives is simulated from the records. The deviations of each question from the score
of its cell are multiplied by random numbers with mean 0 and variance 1, the same for all cells, and summed up. So every
cell gets an error with its own variance, and errors of cells that answer alike stay alike (the multiplier bootstrap of
Chernozhukov, Chetverikov and Kato, 2013, https://doi.org/10.1214/13-AOS1161).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from icl_eval.metrics.intervals import ROUNDING, FloatArray, block_sizes, sum_by_cluster

_NUM_SIMULATED = 2000


@dataclass(frozen=True)
class NoiseGap:
    """Best minus worst of several scores if they differ by the sampling of questions alone."""

    mean: float
    """Its expectation."""
    p95: float
    """Its 95th percentile."""


def noise_gap(values: FloatArray, clusters: Sequence[str] | None = None) -> NoiseGap:
    """Return the best minus the worst score that noise alone gives, always the same for the same values.

    Args:
        values: One value per score and question, `[num_scores, num_questions]`, at least two of both.
        clusters: The cluster of each question, at least two; None if questions are independent.
    """
    deviations = sum_deviations(values, clusters)  # [num_scores, num_units]
    num_units = deviations.shape[1]
    generator = np.random.default_rng(0)
    sums = (
        generator.standard_normal((size, num_units)) @ deviations.T for size in block_sizes(_NUM_SIMULATED, num_units)
    )
    errors = np.concatenate(list(sums)) / (num_units * (num_units - 1)) ** 0.5  # [simulated, num_scores]
    gaps = np.ptp(errors, axis=1)
    return NoiseGap(float(gaps.mean()), float(np.percentile(gaps, 95)))


def sum_deviations(values: FloatArray, clusters: Sequence[str] | None) -> FloatArray:
    """Return how far each question, or each cluster, puts a score from its mean, `[..., num_units]`.

    Without clusters these are the deviations of the values. The deviations of a cluster are added up and divided by the
    mean number of questions in a cluster. The squares of the result, divided by the number of units and that number
    minus 1, sum up to the squared standard error of the mean (`icl_eval.metrics.intervals.mean_stderr`).

    Args:
        values: Values with the questions as the last axis.
        clusters: The cluster of each question; None if each question stands for itself.
    """
    deviations: FloatArray = values - values.mean(axis=-1, keepdims=True)
    deviations[np.abs(deviations) < ROUNDING * np.abs(values).max()] = 0.0
    summed: FloatArray = np.moveaxis(sum_by_cluster(np.moveaxis(deviations, -1, 0), clusters), 0, -1)
    summed *= summed.shape[-1] / values.shape[-1]
    return summed
