"""The metrics of this package as subclasses of `evaluate.Metric`.

`import evaluate` also imports torch, which takes seconds. A metric scores without either, so its class is complete
without them, and only the public names in `icl_eval.metrics` add what `evaluate` wants.
"""

from collections.abc import Sequence
from functools import cache, wraps
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import evaluate

from icl_eval.metrics.local import LocalMetric
from icl_eval.metrics.scoring import Metric, check_corpus


class _EvaluateMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate has no type hints
    """An `evaluate.Metric` that needs no download and leaves no files behind."""

    name = ""  # otherwise a property that cannot be set

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


@cache
def as_evaluate_metric(metric_class: type[LocalMetric]) -> type[LocalMetric]:
    """Return a class with the name and the options of a metric that is also an `evaluate.Metric`."""

    @wraps(metric_class.__init__)
    def begin(self: Any, *arguments: Any, **options: Any) -> None:
        metric_class.__init__(self, *arguments, **options)
        # evaluate 0.4.6 creates a folder in its cache even for a metric that is kept in memory
        with TemporaryDirectory() as folder:
            evaluate.Metric.__init__(self, keep_in_memory=True, cache_dir=folder)
        self.info.module_name = self.name  # evaluate would derive it from the class

    content = {"__init__": begin, "__doc__": metric_class.__doc__, "__module__": "icl_eval.metrics"}
    return type(metric_class.__name__, (metric_class, _EvaluateMetric), content)
