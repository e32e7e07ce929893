"""Numeric match: the fraction of predictions whose number equals that of a reference, compared as exact fractions."""

from collections.abc import Sequence
from fractions import Fraction

from icl_eval.errors import DataError
from icl_eval.metrics.local import LocalMetric, require_choice
from icl_eval.metrics.means import format_signature, mean_statistics
from icl_eval.metrics.quantities import read_alone, read_last, read_stated
from icl_eval.metrics.scoring import Statistics

_EXTRACTIONS = {"flexible": read_last, "strict": read_stated}


class NumericMatch(LocalMetric):
    r"""Fraction of predictions, 0 to 1, whose number equals the number of one of their references.

    `extraction` determines the number of a prediction:

    - `strict`: the prediction is a number (-1,000.50, $3, 25%, 3/4), or states one after the first `####`, as in GSM8K
      (Cobbe et al., 2021, https://arxiv.org/abs/2110.14168), else after the first `answer is`, else in the last
      `\boxed{}`. A number that touches a letter (`42km`) or precedes another number (`12 34`) does not count.
    - `flexible`: the last quantity in the string.

    `icl_eval.metrics.quantities` defines the accepted numbers. If that place holds something else, such as `5 - 3` or a
    date, no other number is used: the prediction scores 0 and counts as unparsed, like a prediction without a number.

    Raises:
        ConfigError: If the extraction is unknown.
    """

    def __init__(self, extraction: str = "strict") -> None:
        require_choice("extraction", extraction, sorted(_EXTRACTIONS))
        super().__init__(f"numeric_{extraction}")
        self._extraction = extraction

    def per_example(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
        """Return 1 for each prediction whose number equals one of its references, else 0.

        Raises:
            DataError: If a reference is not a number.
        """
        expected = [self._reference_numbers(number, answers) for number, answers in enumerate(references, 1)]
        extracted = [_EXTRACTIONS[self._extraction](prediction) for prediction in predictions]
        return mean_statistics(
            [float(number in numbers) for number, numbers in zip(extracted, expected, strict=True)],
            format_signature(self.name, extraction=self._extraction),
            unparsed=extracted.count(None),
            kind="share",
        )

    def _reference_numbers(self, example_number: int, answers: Sequence[str]) -> set[Fraction]:
        numbers = set()
        for answer in answers:
            number = read_alone(answer)
            if number is None:
                raise DataError(
                    f"{self.name}: reference {answer[:80]!r} of example {example_number} is not a number "
                    "such as 42, -1,000.50, $3, 25% or 3/4"
                )
            numbers.add(number)
        return numbers
