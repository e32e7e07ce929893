"""The subclass of `evaluate.Metric` on which the metrics of this package are based.

This module imports `evaluate`, which is slow. Only the modules of the metric classes import it, and those are imported
when a metric is built.
"""

import logging
from collections.abc import Sequence
from functools import cache
from tempfile import TemporaryDirectory

import datasets
import evaluate

from icl_eval.errors import ConfigError
from icl_eval.metrics.scoring import Metric, check_corpus
from icl_eval.metrics.spacing import find_unspaced

logger = logging.getLogger(__name__)


class LocalMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate has no type hints
    """An `evaluate.Metric` that needs no download and leaves no files behind."""

    def __init__(self, name: str, higher_is_better: bool = True) -> None:
        # evaluate 0.4.6 creates a folder in its cache even for a metric that is kept in memory
        with TemporaryDirectory() as folder:
            super().__init__(keep_in_memory=True, cache_dir=folder)
        self.info.module_name = name  # read by `self.name`; evaluate would derive it from the class
        self.higher_is_better = higher_is_better

    def check_references(self, references: Sequence[Sequence[str]]) -> None:
        """Accept any references."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation="",
            features=datasets.Features({"predictions": text, "references": datasets.List(text)}),
        )

    def _compute(self: Metric, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        check_corpus(self.name, predictions, references)
        return {self.name: self.per_example(predictions, references).value}


def require_choice(option: str, value: str, choices: Sequence[str]) -> None:
    """Check that an option has one of the allowed values.

    Raises:
        ConfigError: If it does not.
    """
    if value not in choices:
        shown = value if value.isprintable() else repr(value)
        raise ConfigError(f"{option}={shown}: must be one of {', '.join(choices)}")


def require_whole(option: str, value: int, least: int, most: int) -> None:
    """Check that an option is a whole number (not true or false) within a range.

    Raises:
        ConfigError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{option}={value}: must be a whole number from {least} to {most}")


def warn_of_unspaced(name: str, references: Sequence[Sequence[str]], advice: str) -> None:
    """Warn about references without spaces between words, for a metric that treats each as one word."""
    num_unspaced, num_references = len(find_unspaced(references)), sum(map(len, references))
    if num_unspaced:
        warn_once(
            f"{name}: {num_unspaced} of {num_references} references are written without spaces between words, and each "
            f"counts as one word: {advice}"
        )


@cache
def warn_once(sentence: str) -> None:
    """Log a warning once, not again in every cell of a sweep."""
    logger.warning(sentence)
