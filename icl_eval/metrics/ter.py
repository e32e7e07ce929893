"""Translation edit rate (Snover et al., 2006, https://aclanthology.org/2006.amta-papers.25), by sacrebleu."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sacrebleu.metrics
from sacrebleu.tokenizers.tokenizer_char import TokenizerChar

from icl_eval.errors import ConfigError
from icl_eval.metrics.local import LocalMetric, warn_of_unspaced
from icl_eval.metrics.scoring import Statistics
from icl_eval.metrics.spacing import find_unspaced, is_han, mostly_unspaced
from icl_eval.metrics.strings import compose
from icl_eval.metrics.translation import translation_statistics


@dataclass(frozen=True)
class _Words:
    """What counts as a word."""

    normalized: bool
    asian_support: bool
    characters: bool
    """Whether each character is one."""


class TER(LocalMetric):
    """Corpus TER with sacrebleu's signature: edits in a hundred reference words, so lower is better.

    Args:
        normalized: tokenize punctuation and unescape entities first. None for true where references are Chinese, else
            false; each character of other scripts without spaces between words (Japanese, Thai) is then a word.
        no_punct: remove punctuation.
        asian_support: let both of these treat Chinese, Japanese and Korean characters too, `normalized` each Chinese
            character as a word. None for true where references are written without spaces and it has an effect.
        case_sensitive: tell upper from lower case.

    Raises:
        ConfigError: `asian_support` without an option that it could have an effect on.
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
        """Warn of options that take a whole reference for one word."""
        words, han = self._choose(references), is_han(find_unspaced(references))
        if words.characters or (han and words.normalized and words.asian_support):
            return
        others = "leave normalized at null" if mostly_unspaced(references) else "chrf compares characters"
        warn_of_unspaced(self.name, references, "set normalized and asian_support to true" if han else others)

    def per_example(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
        """Return edits and mean reference length, and sentence TER to show."""
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
        found = translation_statistics(scorer, scorer, list(map(_split, predictions)), split_references)
        return replace(found, signature=f"{found.signature}|split:char")

    def _choose(self, references: Sequence[Sequence[str]]) -> _Words:
        """Return what counts as a word; by the references alone, so that what a model says cannot change it."""
        unspaced = mostly_unspaced(references)
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
