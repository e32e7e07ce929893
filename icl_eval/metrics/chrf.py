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
        predicted = [_NGrams(*units) for units in self._split(prediction)]
        best: list[int] = []
        highest = -1.0
        seen: set[tuple[tuple[int, ...], ...]] = set()
        for answer in answers:
            pairs = zip(predicted, self._split(answer), strict=True)
            matches = tuple([ngrams.match(units) for ngrams, (units, _) in pairs])
            if matches in seen:  # many references of a question are alike, and have the same score
                continue
            seen.add(matches)
            counts = [count for pair in zip(predicted, matches, strict=True) for count in _NGrams.list_counts(*pair)]
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

    def __init__(self, units: Sequence[str], order: int):
        """Begin with the n-grams of length 1: the characters of the text, or its words with a space before each."""
        self._units = units
        self._order = order
        self._made = [Parts(units)]

    def match(self, units: Sequence[str]) -> tuple[int, ...]:
        """Compare with the characters or words of a reference.

        Returns:
            The number of these, and for each length of n-grams how many are in both texts. It ends after the first
            length of which none is: no longer one is, either.
        """
        found = [len(units)]
        ngrams = units
        for shorter in range(self._order):
            if shorter:
                ngrams = list(map(add, ngrams, units[shorter:]))
            num_shared = self._make(shorter).count_shared(ngrams)
            found.append(num_shared)
            if not num_shared:
                break
        return tuple(found)

    def list_counts(self, match: tuple[int, ...]) -> list[int]:
        """Return what `CHRF._get_match_statistics` of sacrebleu does.

        Args:
            match: What `match` returned for a reference.

        Returns:
            For each length of n-grams, how many are in the prediction (0 if none is in the reference), in the
            reference, and in both.
        """
        num_units, *shared = match
        counts: list[int] = []
        for shorter in range(self._order):
            num_expected = max(0, num_units - shorter)
            num_predicted = max(0, len(self._units) - shorter) if num_expected else 0
            counts += (num_predicted, num_expected, shared[shorter] if shorter < len(shared) else 0)
        return counts

    def _make(self, shorter: int) -> Parts:
        """Return the n-grams that are longer than a number of units by one."""
        if len(self._made) == shorter:
            self._made.append(Parts(list(map(add, self._made[-1].all, self._units[shorter:]))))
        return self._made[shorter]
