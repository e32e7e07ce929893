"""Corpus BLEU (Papineni et al., 2002, https://aclanthology.org/P02-1040), computed by sacrebleu."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import sacrebleu.metrics

from icl_eval.errors import ConfigError, warn_once
from icl_eval.formatting import describe_error
from icl_eval.metrics.local import LocalMetric, require_choice, require_whole, warn_of_unspaced
from icl_eval.metrics.scoring import Statistics
from icl_eval.metrics.spacing import find_unspaced, is_han, is_mostly_unspaced
from icl_eval.metrics.translation import translation_statistics


class BLEU(LocalMetric):
    """Corpus BLEU, 0 to 100, with sacrebleu's signature.

    If all answers are shorter than four tokens, the corpus has no 4-grams and scores 0, even if every answer is
    correct. Use `effective_order` or chrF for such tasks. If the corpus matches no n-gram of the longest order, the
    score is smoothing, which depends on the number of examples: it then has no interval. The value per example is
    sentence BLEU with effective order, as sacrebleu recommends; the mean of these values is not corpus BLEU.

    Args:
        tokenize: sacrebleu tokenizer: 13a, intl, zh, char, none, or one that needs an extra package. auto selects
            zh for Chinese references, char for other scripts without spaces between words (Japanese), else 13a.
        lowercase: Whether to ignore case.
        smooth_method: Smoothing of n-gram orders without a match: exp, floor, add-k or none.
        smooth_value: The value that floor (0.1 if None) and add-k (1 if None) use, at most 100.
        max_ngram_order: The longest n-gram, 1 to 20.
        effective_order: Whether to skip n-gram orders for which all predictions are too short.

    Raises:
        ConfigError: If an option is unknown, out of range, or without effect.
    """

    def __init__(
        self,
        tokenize: str = "auto",
        lowercase: bool = False,
        smooth_method: str = "exp",
        smooth_value: float | None = None,
        max_ngram_order: int = 4,
        effective_order: bool = False,
    ) -> None:
        require_choice("tokenize", tokenize, ["auto", *sorted(sacrebleu.metrics.BLEU.TOKENIZERS)])
        _check_smoothing(smooth_method, smooth_value)
        require_whole("max_ngram_order", max_ngram_order, 1, 20)
        super().__init__("bleu")
        self._tokenize = tokenize
        self._max_ngram_order = max_ngram_order
        self._effective_order = effective_order
        self._options = {
            "lowercase": lowercase,
            "smooth_method": smooth_method,
            "smooth_value": smooth_value,
            "max_ngram_order": max_ngram_order,
        }
        if tokenize != "auto":
            _build_scorer(tokenize=tokenize)  # report missing packages before anything is decoded

    def check_references(self, references: Sequence[Sequence[str]]) -> None:
        """Warn about a tokenizer that treats a whole reference as one word, and about references without 4-grams."""
        fitting = "zh" if is_han(find_unspaced(references)) else "char"
        tokenize = self._choose(references)
        if tokenize in {"13a", "intl", "none", "zh"} - {fitting} and find_unspaced(references):
            warn_of_unspaced(self.name, references, f"set tokenize to {fitting}")
        elif not self._effective_order:
            self._warn_of_short(references, _build_scorer(tokenize=tokenize))

    def _warn_of_short(self, references: Sequence[Sequence[str]], scorer: sacrebleu.metrics.BLEU) -> None:
        longest = max(len(scorer.tokenizer(answer).split()) for answers in references for answer in answers)
        if longest < self._max_ngram_order:
            warn_once(
                f"{self.name}: no reference has {self._max_ngram_order} tokens (the longest has {longest}), so even "
                "correct answers score 0: set effective_order to true, or use chrf"
            )

    def per_example(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
        """Return n-gram counts and lengths, with sentence BLEU per example."""
        options = {"tokenize": self._choose(references), **self._options}
        scorer = _build_scorer(**options, effective_order=self._effective_order)
        sentence_scorer = _build_scorer(**options, effective_order=True)
        statistics = translation_statistics(scorer, sentence_scorer, predictions, references)
        statistics = replace(statistics, log_scale_end=100.0, is_smoothed=self._is_smoothed(statistics))
        if self._max_ngram_order == 4:
            return statistics
        # sacrebleu's signature omits this option
        return replace(statistics, signature=f"{statistics.signature}|ngram:{self._max_ngram_order}")

    def _is_smoothed(self, statistics: Statistics) -> bool:
        """Return whether the corpus matches no n-gram of the longest order that counts."""
        counts = statistics.rows.sum(axis=0)[2:]  # after the two lengths: the matches of each order, and their totals
        correct, total = np.split(counts, 2)
        order = int((total > 0).sum()) if self._effective_order else self._max_ngram_order
        return not correct[:order].all() or not order

    def _choose(self, references: Sequence[Sequence[str]]) -> str:
        """Return the tokenizer, chosen by the references alone, so that predictions cannot change it."""
        if self._tokenize != "auto":
            return self._tokenize
        if not is_mostly_unspaced(references):
            return "13a"
        return "zh" if is_han(find_unspaced(references)) else "char"


def _check_smoothing(method: str, value: float | None) -> None:
    defaults = sacrebleu.metrics.BLEU.SMOOTH_DEFAULTS
    require_choice("smooth_method", method, sorted(defaults))
    if value is None:
        return
    if defaults[method] is None:
        raise ConfigError(f"smooth_value={value}: has no effect with smooth_method={method}; set it to null")
    if isinstance(value, bool) or not 0 < value <= 100:
        raise ConfigError(f"smooth_value={value}: must be greater than 0 and at most 100")


def _build_scorer(**options: object) -> sacrebleu.metrics.BLEU:
    try:
        return sacrebleu.metrics.BLEU(**options)
    except (ImportError, OSError, RuntimeError) as error:  # the tokenizer needs a package or a download
        raise ConfigError(f"tokenize={options['tokenize']}: cannot be used here: {describe_error(error)}") from error
