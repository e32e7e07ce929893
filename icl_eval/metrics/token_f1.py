"""Token F1 of question answering (Rajpurkar et al., 2016, https://aclanthology.org/D16-1264).

Normalization and formula are those of the official script `evaluate-v2.0.py` of SQuAD
(https://rajpurkar.github.io/SQuAD-explorer), so that numbers can be compared with published ones, except for answers of
which it would leave nothing: a step that would is not applied to them, so that `A` and `?` are answers, and differ. As
there, an empty reference counts only where there is no other.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

from icl_eval.metrics.local import LocalMetric, warn_of_unspaced
from icl_eval.metrics.means import format_signature, mean_statistics
from icl_eval.metrics.scoring import Statistics
from icl_eval.metrics.strings import compose, visible

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


class TokenF1(LocalMetric):
    """Mean overlap, 0 to 1, of the words of a prediction with those of its best reference."""

    def __init__(self) -> None:
        super().__init__("token_f1")

    def check_references(self, references: Sequence[Sequence[str]]) -> None:
        """Warn where no spaces separate words."""
        warn_of_unspaced(self.name, references, "chrf compares characters")

    def per_example(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
        """Return the F1 of each prediction with the reference that suits it best."""
        values = [
            max(_f1(_words(prediction), expected) for expected in _expected(answers))
            for prediction, answers in zip(predictions, references, strict=True)
        ]
        return mean_statistics(values, format_signature(self.name, norm="squad"))


def _words(text: str) -> list[str]:
    words = compose(visible(text).lower())
    words = words.translate(_WITHOUT_PUNCTUATION).strip() or words
    return _ARTICLES.sub(" ", words).split() or words.split()


def _expected(answers: Sequence[str]) -> list[list[str]]:
    """Return the words of the references that have any; where none has, the one answer is to say nothing."""
    return [words for answer in answers if (words := _words(answer))] or [[]]


def _f1(predicted: list[str], expected: list[str]) -> float:
    if not predicted or not expected:  # nothing to divide by: right only if there was nothing to say
        return float(predicted == expected)
    num_shared = (Counter(predicted) & Counter(expected)).total()
    return 2 * num_shared / (len(predicted) + len(expected))
