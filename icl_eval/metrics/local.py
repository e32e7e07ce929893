"""The one subclass of `evaluate.Metric` that the metrics of this package share.

Importing it imports `evaluate`, so only the modules of the metric classes do, which are themselves imported
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
    """An `evaluate.Metric` that needs no download and leaves nothing on disk."""

    def __init__(self, name: str, higher_is_better: bool = True) -> None:
        # evaluate 0.4.6 makes a folder in its cache even for a metric that is kept in memory.
        with TemporaryDirectory() as folder:
            super().__init__(keep_in_memory=True, cache_dir=folder)
        self.info.module_name = name  # what `self.name` reads; evaluate would derive it from the class
        self.higher_is_better = higher_is_better

    def check_references(self, references: Sequence[Sequence[str]]) -> None:
        """Accept any texts."""

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
    """Check an option against the values that exist.

    Raises:
        ConfigError: the value is none of them.
    """
    if value not in choices:
        shown = value if value.isprintable() else repr(value)
        raise ConfigError(f"{option}={shown} is unknown, choose one of: {', '.join(choices)}")


def require_whole(option: str, value: int, least: int, most: int) -> None:
    """Check an option that is a whole number, which true is none.

    Raises:
        ConfigError: the value is none, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{option}={value}: must be a whole number from {least} to {most}")


def warn_of_unspaced(name: str, references: Sequence[Sequence[str]], advice: str) -> None:
    """Warn of references without spaces between words, in a metric that takes each for one word."""
    num_unspaced, num_references = len(find_unspaced(references)), sum(map(len, references))
    if num_unspaced:
        _warn_once(
            f"{name}: {num_unspaced} of {num_references} references are written without spaces between words, and each "
            f"counts as one word: {advice}"
        )


@cache
def _warn_once(sentence: str) -> None:
    """Warn, but not again for each cell of a sweep."""
    logger.warning(sentence)
