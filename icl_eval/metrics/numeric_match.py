"""Numeric match: the share of predictions whose number equals that of a reference.

Numbers are compared as exact fractions, so 1,000 = 1000.0 and 3/4 = 0.75. All patterns run in linear time:
digits and spaces are matched possessively (`++`, `*+`), so that a failed match is not tried again in pieces.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from icl_eval.errors import DataError
from icl_eval.metrics.local import LocalMetric, require_choice
from icl_eval.metrics.means import format_signature, mean_statistics
from icl_eval.metrics.scoring import Statistics

# Longer ones answer no question: they come from a model that repeats itself, and int() needs quadratic time.
_MAX_LENGTH = 1000

_CURRENCY = "[$€£¥₩₹]"
_NUMERAL = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3}(?![0-9]))++|[0-9]++)(?:\.[0-9]++)?|\.[0-9]++)"
_NUMBER = (
    rf"(?P<sign>(?<!\w)[-+−])?{_CURRENCY}?"  # in 5-3 and covid-19 the dash is no sign
    rf"(?P<number>{_NUMERAL})(?:/(?P<divisor>{_NUMERAL}))?"
)
_STATED = rf"\s*+{_CURRENCY}?{_NUMBER}(?!\w|[.,/][0-9])"

_ANYWHERE = re.compile(_NUMBER)
_WHOLE = re.compile(rf"(?:{_CURRENCY} ?)?{_NUMBER} ?%?\.?")
_GSM8K = re.compile(rf"####{_STATED}")
_ANSWER_IS = re.compile(rf"answer is:?{_STATED}", re.IGNORECASE)


class NumericMatch(LocalMetric):
    """Share of predictions, 0 to 1, whose number equals the number of one of their references.

    Which number a prediction gives depends on `extraction`:

    - `strict`: the prediction is a number (-1,000.50, $3, 25%, 3/4) or states one after a marker, the first
      `#### 42` as in GSM8K (Cobbe et al., 2021, https://arxiv.org/abs/2110.14168), or else the first
      `answer is 42`.
    - `flexible`: the last number in the text.

    Currency and percent signs are dropped, without conversion. Numbers are written with the digits 0 to 9,
    without exponents, in at most 1,000 characters. A prediction without one scores 0 and counts as unparsed.

    Raises:
        ConfigError: the extraction is unknown.
    """

    def __init__(self, extraction: str = "strict") -> None:
        require_choice("extraction", extraction, sorted(_EXTRACTIONS))
        super().__init__(f"numeric_{extraction}")
        self._extraction = extraction

    def per_example(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
        """Return 1 for each prediction whose number equals one of its references, 0 for the others.

        Raises:
            DataError: a reference is not a number.
        """
        expected = [self._reference_numbers(number, answers) for number, answers in enumerate(references, 1)]
        extracted = [_EXTRACTIONS[self._extraction](prediction) for prediction in predictions]
        return mean_statistics(
            [float(number in numbers) for number, numbers in zip(extracted, expected, strict=True)],
            format_signature(self.name, extraction=self._extraction),
            unparsed=extracted.count(None),
            is_share=True,
        )

    def _reference_numbers(self, example_number: int, answers: Sequence[str]) -> set[Fraction]:
        numbers = set()
        for answer in answers:
            number = _to_fraction(_WHOLE.fullmatch(answer.strip()))
            if number is None:
                raise DataError(
                    f"{self.name}: reference {answer[:80]!r} of example {example_number} is not a number "
                    "such as 42, -1,000.50, $3, 25% or 3/4"
                )
            numbers.add(number)
        return numbers


def _stated_number(text: str) -> Fraction | None:
    return _to_fraction(_WHOLE.fullmatch(text.strip()) or _GSM8K.search(text) or _ANSWER_IS.search(text))


def _last_number(text: str) -> Fraction | None:
    last = None
    for match in _ANYWHERE.finditer(text):
        last = match
    return _to_fraction(last)


_EXTRACTIONS = {"flexible": _last_number, "strict": _stated_number}


def _to_fraction(match: re.Match[str] | None) -> Fraction | None:
    if match is None or len(match[0]) > _MAX_LENGTH:
        return None
    number = Fraction(match["number"].replace(",", ""))
    divisor = Fraction((match["divisor"] or "1").replace(",", ""))
    if divisor == 0:
        return None
    return (-number if match["sign"] in ("-", "−") else number) / divisor
