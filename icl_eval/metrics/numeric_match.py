r"""Numeric match: the share of predictions whose number equals that of a reference.

Numbers are compared as exact fractions, so 1,000 = 1000.0 and 3/4 = 0.75. A number is read whole or not at all: what
stands together like one, and is none of the left column, is no number, and its pieces are none either.

    read                                        not read
    42  007  3.14  .5  72.                      1.000.000  3,14  1,00  1,2345  (comma and full stop the other way)
    -5  +5  −5 (minus)  –5 (en dash)            10^3  2**3  5²  ½  \frac{1}{2}
    1,000  1 000 000  (or other spaces)         1'000  1_000  1{,}000
    1e5  1.5E-3  (three digits of exponent)     1e1000
    3/4  1,000/3  3 1/2  (at most 99 parts)     3/0  3 5/2  1/2/2021
    $1,000  -$5  $-5  25%                       3:00  ٤٢  more than 1,000 characters

In 5-3, covid-19 and (5)-3 the dash is no sign. Spaces group digits by exactly three, so that 12 34 are two numbers.
Currency and percent signs are dropped without conversion, and words are not understood: 5 million is 5.

All patterns run in linear time: repetitions are possessive (`++`, `*+`), so that a failed match is not tried again in
pieces.
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
_SPACE = "[ \u00a0\u2009\u202f]"
_SIGN = "[-+−–]"

# What stands together like a number: digits of any kind, and what joins them.
_DIGIT = r"[\d¼-¾⅐-⅞]"
_FURTHER = r"[\d¼-¾⅐-⅞¹²³⁰⁴-⁹⁻]"  # the exponent of 5² is part of a number, that of cm² is not
_SEPARATOR = r"(?:[.,:/'’_]|\{,\}|,?\\[,!])"
_JOINED = rf"(?:{_SEPARATOR}?{_FURTHER}|(?:[eE]|(?:\^|\*\*)[{{(]?){_SIGN}?{_FURTHER}|\}}\{{{_DIGIT})"
_GROUPS = rf"[1-9][0-9]{{0,2}}(?:{_SPACE}[0-9]{{3}}(?!{_FURTHER}))++"
_MIXED = rf"(?:{_GROUPS}|[0-9][0-9,]*+){_SPACE}[0-9]++/[0-9]++(?!{_JOINED})"
_RUN = rf"(?P<run>{_MIXED}|(?:{_GROUPS}|\.?{_DIGIT}){_JOINED}*+)"
_NUMBER = rf"(?P<sign>(?<![\w)\]}}%]){_SIGN})?{_CURRENCY}?{_RUN}"

# What can be read of it.
_WHOLE_NUMERAL = rf"(?:[0-9]{{1,3}}(?:,[0-9]{{3}})++|[0-9]{{1,3}}(?:{_SPACE}[0-9]{{3}})++|[0-9]++)"
_NUMERAL = rf"(?:{_WHOLE_NUMERAL}(?:\.[0-9]++)?|\.[0-9]++)"
_READABLE = re.compile(
    rf"(?:(?P<whole>{_WHOLE_NUMERAL}){_SPACE}(?P<part>[1-9][0-9]?)/(?P<parts>[0-9]++))"
    rf"|(?P<number>{_NUMERAL})(?:/(?P<divisor>{_NUMERAL})|[eE](?P<exponent>{_SIGN}?[0-9]{{1,3}}))?"
)

# In `5 - 3`, `2 x 10^3` and `12 34` no single number is stated.
_OPERATOR = r"(?:[-+−–*×·÷/^x]{1,2}+|\\times|\\cdot|\\[dt]?frac\{)"
_MORE = rf"%?{_SPACE}*+(?:{_OPERATOR}{_SPACE}*+\(?)?{_CURRENCY}?\.?{_DIGIT}"
_STATED = rf"\s*+{_CURRENCY}?{_NUMBER}(?!\w|{_MORE})"

_ANYWHERE = re.compile(_NUMBER)
_ALONE = re.compile(rf"(?:{_CURRENCY} ?)?{_NUMBER} ?%?\.?")
_GSM8K = re.compile(rf"####{_STATED}")
_ANSWER_IS = re.compile(rf"answer is:?{_STATED}", re.IGNORECASE)


class NumericMatch(LocalMetric):
    """Share of predictions, 0 to 1, whose number equals the number of one of their references.

    Which number a prediction gives depends on `extraction`:

    - `strict`: the prediction is a number (-1,000.50, $3, 25%, 3/4) or states one after a marker, the first
      `#### 42` as in GSM8K (Cobbe et al., 2021, https://arxiv.org/abs/2110.14168), or else the first
      `answer is 42`; not where a unit touches it (`42km`), or more follows of a sum (`5 - 3`).
    - `flexible`: the last number in the text.

    What is read as a number stands at the top of this module. Where the place is taken by something that is not, such
    as `3,14`, no other number is looked for: the prediction scores 0 and counts as unparsed, as without any number.

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
            number = _read(_ALONE.fullmatch(answer.strip()))
            if number is None:
                raise DataError(
                    f"{self.name}: reference {answer[:80]!r} of example {example_number} is not a number "
                    "such as 42, -1,000.50, $3, 25% or 3/4"
                )
            numbers.add(number)
        return numbers


def _stated_number(text: str) -> Fraction | None:
    return _read(_ALONE.fullmatch(text.strip()) or _GSM8K.search(text) or _ANSWER_IS.search(text))


def _last_number(text: str) -> Fraction | None:
    last = None
    for match in _ANYWHERE.finditer(text):
        last = match
    return _read(last)


_EXTRACTIONS = {"flexible": _last_number, "strict": _stated_number}


def _read(match: re.Match[str] | None) -> Fraction | None:
    """Return the number that stands somewhere; None where nothing that can be read as one does."""
    if match is None or len(match["run"]) > _MAX_LENGTH:
        return None
    found = _READABLE.fullmatch(match["run"])
    size = None if found is None else _size(found)
    return -size if size is not None and match["sign"] in ("-", "−", "–") else size


def _size(found: re.Match[str]) -> Fraction | None:
    if found["whole"]:
        part, parts = int(found["part"]), int(found["parts"])
        return _plain(found["whole"]) + Fraction(part, parts) if part < parts else None
    divisor = _plain(found["divisor"] or "1")
    exponent = int((found["exponent"] or "0").translate(_MINUS))
    return _plain(found["number"]) * Fraction(10) ** exponent / divisor if divisor else None


def _plain(numeral: str) -> Fraction:
    return Fraction(re.sub(rf",|{_SPACE}", "", numeral))


_MINUS = str.maketrans("−–", "--")
