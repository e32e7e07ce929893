"""The one subclass of `evaluate.Metric` that the metrics of this package share.

Importing it imports `evaluate`, so only the modules of the metric classes do, which are themselves imported
when a metric is built.
"""

from collections.abc import Sequence
from tempfile import TemporaryDirectory

import datasets
import evaluate

from icl_eval.errors import ConfigError
from icl_eval.metrics.scoring import Metric, check_corpus


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
        raise ConfigError(f"{option}={value} is unknown, choose one of: {', '.join(choices)}")
