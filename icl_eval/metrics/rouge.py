"""ROUGE for summaries (Lin, 2004, https://aclanthology.org/W04-1013), as the package `rouge-score` computes it."""

import re
from collections.abc import Sequence
from importlib.metadata import version

from icl_eval.errors import warn_once
from icl_eval.metrics.local import LocalMetric, require_choice
from icl_eval.metrics.means import mean_statistics
from icl_eval.metrics.scoring import Statistics

_TYPES = {"1": "rouge1", "2": "rouge2", "l": "rougeL"}
"""The library's names, by the name's end here."""
_WORD = re.compile("[a-z0-9]")


class Rouge(LocalMetric):
    """Mean ROUGE F1, 0 to 1, of a prediction and its best-matching reference.

    Words are runs of the letters a to z and digits, in lower case; the library ignores everything else.

    Args:
        unit: What is counted: `1` (words), `2` (pairs of words) or `l` (longest common subsequence).
        stemmer: Whether English words are reduced to their stems first.

    Raises:
        ConfigError: If the unit is unknown.
    """

    def __init__(self, unit: str = "l", stemmer: bool = False) -> None:
        from rouge_score.rouge_scorer import RougeScorer
        from rouge_score.tokenizers import DefaultTokenizer

        require_choice("unit", unit, sorted(_TYPES))
        super().__init__(f"rouge_{unit}")
        self._type = _TYPES[unit]
        self._stemmer = stemmer
        self._scorer = RougeScorer([self._type], tokenizer=DefaultTokenizer(stemmer))  # without one, it logs a line

    def check_references(self, references: Sequence[Sequence[str]]) -> None:
        """Warn about references without a word that ROUGE counts, such as those in Chinese."""
        unread = [answer for answers in references for answer in answers if not _WORD.search(answer.lower())]
        if unread:
            warn_once(
                f"{self.name}: {len(unread)} of {sum(map(len, references))} references have neither a letter from a to "
                "z nor a digit, and ROUGE counts nothing else: chrf compares all characters"
            )

    def per_example(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
        """Return the F1 score of each prediction with its best-matching reference."""
        values = [
            self._scorer.score_multi(answers, prediction)[self._type].fmeasure
            for prediction, answers in zip(predictions, references, strict=True)
        ]
        stems = "yes" if self._stemmer else "no"
        signature = f"{self.name}|stems:{stems}|refs:best|version:{version('rouge-score')}"
        return mean_statistics(values, signature, kind="bounded mean")
