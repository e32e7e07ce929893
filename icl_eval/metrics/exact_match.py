"""Exact match: the fraction of predictions that equal one of their references."""

import hashlib
import string
import unicodedata
from collections.abc import Sequence
from itertools import filterfalse

from icl_eval.errors import ConfigError
from icl_eval.metrics.local import LocalMetric
from icl_eval.metrics.means import format_signature, mean_statistics
from icl_eval.metrics.postprocessing import BoundedRegex
from icl_eval.metrics.scoring import Statistics
from icl_eval.metrics.strings import compose, drop_invisible

_WITHOUT_DIGITS = str.maketrans("", "", string.digits)


class ExactMatch(LocalMetric):
    """Fraction of predictions, 0 to 1, that equal one of their references as a whole.

    The options are those of `exact_match` in the `evaluate` library, applied in the same order: regexes, case,
    punctuation, numbers. In contrast to that library, punctuation includes all scripts (such as ¿ … «»), and
    differences in whitespace and in Unicode composition are always ignored. A step that would leave an empty string is
    skipped, so that `)` and `+` remain different answers. Without punctuation 3.14 equals 314; use `NumericMatch` for
    numbers.

    Args:
        ignore_case: Whether to compare in lower case.
        ignore_punctuation: Whether to remove punctuation.
        ignore_numbers: Whether to remove the digits 0 to 9.
        regexes_to_ignore: Regular expressions whose matches are removed, in this order.

    Raises:
        ConfigError: If a regular expression is invalid.
    """

    def __init__(
        self,
        ignore_case: bool = False,
        ignore_punctuation: bool = False,
        ignore_numbers: bool = False,
        regexes_to_ignore: Sequence[str] = (),
    ) -> None:
        super().__init__("exact_match")
        self._ignore_case = ignore_case
        self._ignore_punctuation = ignore_punctuation
        self._ignore_numbers = ignore_numbers
        self._patterns = _compile(regexes_to_ignore)

    def per_example(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
        """Return 1 for each prediction that equals one of its references, else 0."""
        hits = [
            self._normalize(prediction) in {self._normalize(answer) for answer in answers}
            for prediction, answers in zip(predictions, references, strict=True)
        ]
        return mean_statistics([float(hit) for hit in hits], self._signature(), is_share=True)

    def _normalize(self, text: str) -> str:
        text = drop_invisible(text)
        for pattern in self._patterns:
            text = _unless_empty(pattern.remove_from(text), text)
        if self._ignore_case:
            text = compose(text.lower())
        if self._ignore_punctuation:
            text = _unless_empty("".join(filterfalse(_is_punctuation, text)), text)
        if self._ignore_numbers:
            text = _unless_empty(text.translate(_WITHOUT_DIGITS), text)
        return " ".join(text.split())

    def _signature(self) -> str:
        ignored = {True: "ignored", False: "kept"}
        return format_signature(
            self.name,
            case=ignored[self._ignore_case],
            punct=ignored[self._ignore_punctuation],
            numbers=ignored[self._ignore_numbers],
            regexes=_fingerprint(self._patterns),
        )


def _unless_empty(text: str, otherwise: str) -> str:
    return text if text.strip() else otherwise


def _compile(regexes: Sequence[str]) -> tuple[BoundedRegex, ...]:
    if isinstance(regexes, str):  # it would be iterated as a list of characters
        raise ConfigError(f"regexes_to_ignore={regexes!r}: must be a list of regular expressions")
    patterns = []
    for regex in regexes:
        try:
            patterns.append(BoundedRegex(compose(regex)))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"regexes_to_ignore: {regex!r} is not a regular expression: {error}") from error
    return tuple(patterns)


def _fingerprint(patterns: Sequence[BoundedRegex]) -> str:
    """Return the number of regexes and their hash; the regexes themselves may contain the signature's separators."""
    if not patterns:
        return "0"
    joined = "\0".join(pattern.pattern for pattern in patterns)
    return f"{len(patterns)}#{hashlib.sha256(joined.encode()).hexdigest()[:8]}"


def _is_punctuation(character: str) -> bool:
    # string.punctuation contains characters such as $ and +, which Unicode classifies as symbols
    return character in string.punctuation or unicodedata.category(character).startswith("P")
