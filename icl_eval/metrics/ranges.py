"""What the scores of metrics can be: the lowest, the highest, and their unit."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ScoreRange:
    """The range of a metric's scores."""

    low: float
    high: float
    unit: str
    says_right: bool = False
    """Whether the best score of a question means that its answer is right."""


_SHARE = ScoreRange(0.0, 1.0, "proportion", says_right=True)

_OVERLAP = ScoreRange(0.0, 1.0, "proportion")

RANGES = {
    "exact_match": _SHARE,
    "numeric_strict": _SHARE,
    "numeric_flexible": _SHARE,
    "token_f1": _SHARE,
    "choice_accuracy": _SHARE,
    "choice_accuracy_per_token": _SHARE,
    "choice_accuracy_per_byte": _SHARE,
    "choice_accuracy_calibrated": _SHARE,
    "choice_accuracy_domain": _SHARE,
    "choice_accuracy_pmi": _SHARE,
    "choice_accuracy_batch": _SHARE,
    "rouge_1": _OVERLAP,
    "rouge_2": _OVERLAP,
    "rouge_l": _OVERLAP,
    "bleu": ScoreRange(0.0, 100.0, "points"),
    "chrf": ScoreRange(0.0, 100.0, "points"),
    "ter": ScoreRange(0.0, math.inf, "edits per 100 words"),
    "reference_logprob": ScoreRange(-math.inf, 0.0, "nats"),
    "reference_perplexity": ScoreRange(1.0, math.inf, "perplexity"),
    "reference_rank": ScoreRange(1.0, math.inf, "rank"),
}
"""The ranges of the metrics of this package."""
