"""Metrics, and the scoring of predictions against references.

The classes that have names here are subclasses of `evaluate.Metric`, and `import evaluate` takes seconds. They are
therefore made on first use. Configurations build the classes in the modules below, which score without `evaluate`.

Every metric:

    scoring         the interface of metrics, and the path to a `Score`
    intervals       standard errors and 95 % intervals
    ranges          the lowest and highest score, and the unit
    measurements    metrics applied to the records of a task
    building        metrics from their configuration
    postprocessing  from a completion to the prediction that is scored
    samples         scores of a question's samples
    local           the base of the metrics of this package
    hub             metrics of the hub and of scripts

Means of one value per question:

    means           what they share
    exact_match     a prediction that equals a reference
    token_f1        words shared with a reference
    rouge           words, pairs of words and subsequences shared with a reference
    numeric_match   a number that equals that of a reference
    quantities      what counts as a number
    likelihood      scores of log-likelihoods
    strings         normalization before comparison, and parts that texts share

Scores of a whole corpus, by sacrebleu:

    translation     what they share
    bleu            BLEU
    chrf            chrF and chrF++
    ter             TER
    spacing         scripts without spaces between words

For users of `evaluate`:

    evaluate_metrics  the metrics of this package as subclasses of `evaluate.Metric`
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from icl_eval.metrics.scoring import Metric, Score, Statistics, score
from icl_eval.targets import Family

if TYPE_CHECKING:
    from icl_eval.metrics.bleu import BLEU
    from icl_eval.metrics.chrf import CHRF
    from icl_eval.metrics.exact_match import ExactMatch
    from icl_eval.metrics.hub import HubMetric
    from icl_eval.metrics.numeric_match import NumericMatch
    from icl_eval.metrics.rouge import Rouge
    from icl_eval.metrics.ter import TER
    from icl_eval.metrics.token_f1 import TokenF1

__all__ = [
    "BLEU",
    "CHRF",
    "METRICS",
    "TER",
    "ExactMatch",
    "HubMetric",
    "Metric",
    "NumericMatch",
    "Rouge",
    "Score",
    "Statistics",
    "TokenF1",
    "score",
]

_MODULES = {
    "BLEU": "bleu",
    "CHRF": "chrf",
    "TER": "ter",
    "ExactMatch": "exact_match",
    "HubMetric": "hub",
    "NumericMatch": "numeric_match",
    "Rouge": "rouge",
    "TokenF1": "token_f1",
}


METRICS = Family(
    __name__,
    {
        "bleu": "BLEU",
        "chrf": "CHRF",
        "exact_match": "ExactMatch",
        "hub": "HubMetric",
        "numeric_strict": "NumericMatch",
        "numeric_flexible": "NumericMatch",
        "rouge_l": "Rouge",
        "rouge_1": "Rouge",
        "rouge_2": "Rouge",
        "ter": "TER",
        "token_f1": "TokenF1",
    },
    places=_MODULES,
)


def __getattr__(name: str) -> Any:
    """Return a metric class as a subclass of `evaluate.Metric`; one of the hub's metrics has such an object inside."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from icl_eval.metrics.evaluate_metrics import as_evaluate_metric

    found = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return found if name == "HubMetric" else as_evaluate_metric(found)
