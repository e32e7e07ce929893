"""Corpus chrF and chrF++ (Popović, 2015, 2017, https://aclanthology.org/W17-4770), computed by sacrebleu.

Only the counts of n-grams are not sacrebleu's own. They are the same numbers, but a text is not counted further than it
has anything in common with the other, and no n-grams are kept: short answers take a quarter of the time.
"""

from collections.abc import Sequence
from dataclasses import replace
from operator import add

import sacrebleu.metrics

from icl_eval.metrics.local import LocalMetric, require_whole, warn_of_unspaced
from icl_eval.metrics.scoring import Statistics
from icl_eval.metrics.strings import Parts, compose
from icl_eval.metrics.translation import count_references, summable_statistics


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
        self._scorer.num_refs = count_references(references)
        counted = [self._count_best(*pair) for pair in zip(predictions, references, strict=True)]
        rows, values = zip(*counted, strict=True)
        statistics = summable_statistics(self._scorer, rows, values)
        if self._beta == 2:
            return statistics
        # sacrebleu's signature omits this option
        return replace(statistics, signature=f"{statistics.signature}|beta:{self._beta}")

    def _count_best(self, prediction: str, answers: Sequence[str]) -> tuple[list[int], float]:
        """Return the counts against the first of the references with the highest sentence chrF, and that score."""
        predicted = [(_NGrams(units), order) for units, order in self._split(prediction)]
        best: list[int] = []
        highest = -1.0
        for answer in answers:
            counts: list[int] = []
            for (ngrams, order), (units, _) in zip(predicted, self._split(answer), strict=True):
                counts += ngrams.count_matches(units, order)
            value = float(self._scorer._compute_f_score(counts))
            if value > highest:
                best, highest = counts, value
        return best, highest

    def _split(self, text: str) -> list[tuple[Sequence[str], int]]:
        """Return what n-grams consist of, and the longest n-gram: characters, and words if they are compared."""
        text = compose(text)
        characters: list[tuple[Sequence[str], int]] = [("".join(text.split()), self._scorer.char_order)]
        if not self._word_order:
            return characters
        return [*characters, ([f" {word}" for word in self._scorer._remove_punctuation(text)], self._word_order)]


class _NGrams:
    """The n-grams of a prediction, each length made once, and only if a reference is compared that far."""

    def __init__(self, units: Sequence[str]):
        """Begin with the n-grams of length 1: the characters of the text, or its words with a space before each."""
        self._units = units
        self._made = [Parts(units)]

    def count_matches(self, units: Sequence[str], order: int) -> list[int]:
        """Compare with the characters or words of a reference, like `CHRF._get_match_statistics` of sacrebleu.

        Returns:
            For each length of n-grams, how many are in the prediction (0 if none is in the reference), in the
            reference, and in both. If none of a length is in both, no longer one is.
        """
        counts: list[int] = []
        ngrams, num_shared = units, 1
        num_predicted, num_expected = len(self._units), len(units)
        for shorter in range(order):
            if num_shared:
                ngrams = list(map(add, ngrams, units[shorter:])) if shorter else units
                num_shared = self._make(shorter).count_shared(ngrams)
            counts += (num_predicted if num_expected else 0, num_expected, num_shared)
            num_predicted, num_expected = max(0, num_predicted - 1), max(0, num_expected - 1)
        return counts

    def _make(self, shorter: int) -> Parts:
        """Return the n-grams that are longer than a number of units by one."""
        if len(self._made) == shorter:
            self._made.append(Parts(list(map(add, self._made[-1].all, self._units[shorter:]))))
        return self._made[shorter]
