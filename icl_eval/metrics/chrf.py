"""Corpus chrF and chrF++ (Popović, 2015, 2017, https://aclanthology.org/W17-4770), computed by sacrebleu."""

from collections.abc import Sequence
from dataclasses import replace

import sacrebleu.metrics

from icl_eval.metrics.local import LocalMetric, require_whole, warn_of_unspaced
from icl_eval.metrics.scoring import Statistics
from icl_eval.metrics.translation import translation_statistics


class CHRF(LocalMetric):
    """Corpus chrF, 0 to 100, with sacrebleu's signature; works well for short answers and rich morphology.

    Args:
        word_order: The longest word n-gram, 0 to 20; 0 is chrF, 2 is chrF++.
        char_order: The longest character n-gram, 1 to 20.
        beta: The weight of recall relative to precision, 0 to 100.

    Raises:
        ConfigError: If an option is out of range.
    """

    def __init__(self, word_order: int = 0, char_order: int = 6, beta: int = 2) -> None:
        require_whole("word_order", word_order, 0, 20)
        require_whole("char_order", char_order, 1, 20)
        require_whole("beta", beta, 0, 100)
        super().__init__("chrf")
        self._beta = beta
        self._word_order = word_order
        self._scorer = sacrebleu.metrics.CHRF(word_order=word_order, char_order=char_order, beta=beta)

    def check_references(self, references: Sequence[Sequence[str]]) -> None:
        """Warn if words are compared in references without spaces between words."""
        if self._word_order:
            warn_of_unspaced(self.name, references, "set word_order to 0")

    def per_example(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
        """Return n-gram counts against the best reference, with sentence chrF per example."""
        statistics = translation_statistics(self._scorer, self._scorer, predictions, references)
        if self._beta == 2:
            return statistics
        # sacrebleu's signature omits this option
        return replace(statistics, signature=f"{statistics.signature}|beta:{self._beta}")
