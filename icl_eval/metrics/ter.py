"""Translation edit rate (Snover et al., 2006, https://aclanthology.org/2006.amta-papers.25), by sacrebleu."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sacrebleu.metrics
from sacrebleu.tokenizers.tokenizer_char import TokenizerChar

from icl_eval.errors import ConfigError
from icl_eval.metrics.local import LocalMetric, warn_of_unspaced
from icl_eval.metrics.scoring import Statistics
from icl_eval.metrics.spacing import find_unspaced, is_han, is_mostly_unspaced
from icl_eval.metrics.strings import compose
from icl_eval.metrics.translation import translation_statistics


@dataclass(frozen=True)
class _Words:
    """Options that define what counts as a word."""

    normalized: bool
    asian_support: bool
    characters: bool
    """Whether each character is a word."""


class TER(LocalMetric):
    """Corpus TER with sacrebleu's signature: the number of edits per 100 reference words, so lower is better.

    Args:
        normalized: Whether to tokenize punctuation and unescape entities first. None means true for Chinese references,
            else false; each character of other scripts without spaces between words (Japanese, Thai) is then a word.
        no_punct: Whether to remove punctuation.
        asian_support: Whether both options also apply to Chinese, Japanese and Korean characters; `normalized` then
            makes each Chinese character a word. None means true if the references are written without spaces and
            the option has an effect.
        case_sensitive: Whether to distinguish upper and lower case.

    Raises:
        ConfigError: If `asian_support` is set without an option that it affects.
    """

    def __init__(
        self,
        normalized: bool | None = None,
        no_punct: bool = False,
        asian_support: bool | None = None,
        case_sensitive: bool = False,
    ) -> None:
        if asian_support and not (normalized or no_punct):
            raise ConfigError("asian_support=true: has no effect without normalized=true or no_punct=true")
        super().__init__("ter", higher_is_better=False)
        self._normalized = normalized
        self._no_punct = no_punct
        self._asian_support = asian_support
        self._case_sensitive = case_sensitive

    def check_references(self, references: Sequence[Sequence[str]]) -> None:
        """Warn about options that treat a whole reference as one word."""
        words, han = self._choose(references), is_han(find_unspaced(references))
        if words.characters or (han and words.normalized and words.asian_support):
            return
        others = "leave normalized at null" if is_mostly_unspaced(references) else "chrf compares characters"
        warn_of_unspaced(self.name, references, "set normalized and asian_support to true" if han else others)

    def per_example(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
        """Return the number of edits and the mean reference length, with sentence TER per example."""
        words = self._choose(references)
        scorer: Any = sacrebleu.metrics.TER(
            normalized=words.normalized,
            no_punct=self._no_punct,
            asian_support=words.asian_support,
            case_sensitive=self._case_sensitive,
        )
        if not words.characters:
            return translation_statistics(scorer, scorer, predictions, references)
        split_references = [list(map(_split, answers)) for answers in references]
        statistics = translation_statistics(scorer, scorer, list(map(_split, predictions)), split_references)
        return replace(statistics, signature=f"{statistics.signature}|split:char")

    def _choose(self, references: Sequence[Sequence[str]]) -> _Words:
        """Return what counts as a word, chosen by the references alone, so that predictions cannot change it."""
        unspaced = is_mostly_unspaced(references)
        characters = unspaced and self._normalized is None and not is_han(find_unspaced(references))
        normalized = unspaced and not characters if self._normalized is None else self._normalized
        asian_support = unspaced and (normalized or self._no_punct)
        return _Words(
            normalized=normalized,
            asian_support=asian_support if self._asian_support is None else self._asian_support,
            characters=characters,
        )


def _split(text: str) -> str:
    characters: str = TokenizerChar()(compose(text))
    return characters
