"""Exact match: the fraction of predictions that equal one of their references."""

import hashlib
import re
import string
import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import filterfalse
from typing import get_args

from icl_eval.errors import ConfigError
from icl_eval.metrics.local import LocalMetric, require_choice
from icl_eval.metrics.means import format_signature, mean_statistics
from icl_eval.metrics.postprocessing import BoundedRegex, Selected
from icl_eval.metrics.scoring import Statistics
from icl_eval.metrics.strings import compose, drop_invisible

_VARIANT = re.compile(r"[A-Za-z0-9_-]+")
_WITHOUT_DIGITS = str.maketrans("", "", string.digits)


class ExactMatch(LocalMetric):
    """Fraction of predictions, 0 to 1, that equal one of their references as a whole.

    The options are those of `exact_match` in the `evaluate` library, applied in the same order: regexes, case,
    punctuation, numbers. In contrast to that library, punctuation includes all scripts (such as ¿ … «»), and
    differences in whitespace and in Unicode composition are always ignored. A step that would leave an empty string is
    skipped, so that `)` and `+` remain different answers. Without punctuation 3.14 equals 314; use `NumericMatch` for
    numbers.

    With `extract`, only a part of each prediction is compared, as by the filters of lm-evaluation-harness. Several such
    metrics score one completion in several ways: strictly the number after `####`, flexibly the last number. A
    prediction without a match is wrong and counts as unparsed.

    Args:
        ignore_case: Whether to compare in lower case.
        ignore_punctuation: Whether to remove punctuation.
        ignore_numbers: Whether to remove the digits 0 to 9.
        regexes_to_ignore: Regular expressions whose matches are removed, in this order.
        extract: A regular expression whose match in a prediction, or the first group with text in it, is compared
            instead of the prediction; None for the whole prediction.
        select: Which match counts, `first` or `last`.
        variant: The end of the metric's name, which distinguishes it from others of its kind: `strict` makes it
            `exact_match_strict`.

    Raises:
        ConfigError: If an option is invalid or has no effect.
    """

    def __init__(
        self,
        ignore_case: bool = False,
        ignore_punctuation: bool = False,
        ignore_numbers: bool = False,
        regexes_to_ignore: Sequence[str] = (),
        extract: str | None = None,
        select: Selected = "first",
        variant: str | None = None,
    ) -> None:
        require_choice("select", select, get_args(Selected))
        if select != "first" and extract is None:
            raise ConfigError(f"select={select}: has no effect without extract")
        if variant is not None and not _VARIANT.fullmatch(variant):
            raise ConfigError(f"variant={variant!r}: must consist of letters, digits, '_' and '-'")
        super().__init__("exact_match" if variant is None else f"exact_match_{variant}")
        self._ignore_case = ignore_case
        self._ignore_punctuation = ignore_punctuation
        self._ignore_numbers = ignore_numbers
        self._patterns = _compile("regexes_to_ignore", regexes_to_ignore)
        self._extract = None if extract is None else _compile("extract", [extract])[0]
        self._select = select

    def per_example(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
        """Return 1 for each prediction that equals one of its references, else 0."""
        compared = [self._find_answer(prediction) for prediction in predictions]
        hits = [
            found is not None and self._normalize(found) in {self._normalize(answer) for answer in answers}
            for found, answers in zip(compared, references, strict=True)
        ]
        unparsed = None if self._extract is None else compared.count(None)
        return mean_statistics([float(hit) for hit in hits], self._signature(), unparsed, kind="share")

    def _find_answer(self, prediction: str) -> str | None:
        if self._extract is None:
            return prediction
        return self._extract.extract(drop_invisible(prediction), self._select)  # patterns are composed, too

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
        extraction = (
            {} if self._extract is None else {"extract": self._select + _fingerprint([self._extract]).removeprefix("1")}
        )
        return format_signature(
            self.name,
            case=ignored[self._ignore_case],
            punct=ignored[self._ignore_punctuation],
            numbers=ignored[self._ignore_numbers],
            regexes=_fingerprint(self._patterns),
            **extraction,
        )


def _unless_empty(text: str, otherwise: str) -> str:
    return text if text.strip() else otherwise


def _compile(option: str, regexes: Sequence[str]) -> tuple[BoundedRegex, ...]:
    if isinstance(regexes, str):  # it would be iterated as a list of characters
        raise ConfigError(f"{option}={regexes!r}: must be a list of regular expressions")
    patterns = []
    for regex in regexes:
        try:
            patterns.append(BoundedRegex(compose(regex)))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{option}: {regex!r} is not a regular expression: {error}") from error
    return tuple(patterns)


def _fingerprint(patterns: Sequence[BoundedRegex]) -> str:
    """Return the number of regexes and their hash; the regexes themselves may contain the signature's separators."""
    if not patterns:
        return "0"
    joined = "\0".join(pattern.pattern for pattern in patterns)
    return f"{len(patterns)}#{hashlib.sha256(joined.encode()).hexdigest()[:8]}"


@cache
def _is_punctuation(character: str) -> bool:
    # string.punctuation contains characters such as $ and +, which Unicode classifies as symbols
    return character in string.punctuation or unicodedata.category(character).startswith("P")
