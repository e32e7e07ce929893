"""Token F1 for question answering (Rajpurkar et al., 2016, https://aclanthology.org/D16-1264).

Normalization and formula follow SQuAD's official script `evaluate-v2.0.py`
(https://rajpurkar.github.io/SQuAD-explorer), so that scores are comparable with published ones. There is one exception:
a normalization step that would leave an empty string is skipped, so that `A` and `?` remain different answers. As in
the script, an empty reference counts only if all references are empty.
"""

import re
import string
from collections.abc import Sequence

from icl_eval.metrics.local import LocalMetric, warn_of_unspaced
from icl_eval.metrics.means import format_signature, mean_statistics
from icl_eval.metrics.scoring import Statistics
from icl_eval.metrics.strings import Parts, compose, drop_invisible

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


class TokenF1(LocalMetric):
    """Mean F1 score, 0 to 1, of the words in a prediction and in its best-matching reference."""

    def __init__(self) -> None:
        super().__init__("token_f1")

    def check_references(self, references: Sequence[Sequence[str]]) -> None:
        """Warn about references without spaces between words."""
        warn_of_unspaced(self.name, references, "chrf compares characters")

    def per_example(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
        """Return the F1 score of each prediction with its best-matching reference."""
        values = [
            _best_f1(_words(prediction), _expected(answers))
            for prediction, answers in zip(predictions, references, strict=True)
        ]
        return mean_statistics(values, format_signature(self.name, norm="squad"), kind="bounded mean")


def _words(text: str) -> list[str]:
    words = compose(drop_invisible(text).lower())
    words = words.translate(_WITHOUT_PUNCTUATION).strip() or words
    return _ARTICLES.sub(" ", words).split() or words.split()


def _expected(answers: Sequence[str]) -> list[list[str]]:
    """Return the words of each reference that is not empty; one empty list if all references are empty."""
    return [words for answer in answers if (words := _words(answer))] or [[]]


def _best_f1(predicted: list[str], references: Sequence[list[str]]) -> float:
    words = Parts(predicted)
    return max(_f1(words, expected) for expected in references)


def _f1(predicted: Parts, expected: list[str]) -> float:
    if not predicted.all or not expected:  # F1 would divide by 0: correct only if both are empty
        return float(predicted.all == expected)
    return 2 * predicted.count_shared(expected) / (len(predicted.all) + len(expected))
