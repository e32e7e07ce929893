"""Count what a report says of a task's records beside its scores: tokens, ends, and completions that say nothing."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from icl_eval.runs.records import Record
from icl_eval.runs.reports import Counts


def count_records(records: Sequence[Record], prefix_tokens_reused: int | None, unparsed: Mapping[str, int]) -> Counts:
    """Count the tokens and the completions of a task's records.

    Args:
        records: The records.
        prefix_tokens_reused: The number of prompt tokens that a run of all records reads from a cache; None if unknown.
        unparsed: By metric, the number of predictions in which it found nothing to compare.
    """
    shots = Counter(record.shots_effective for record in records)
    expected = [record for record in records if not any(map(_says_nothing, record.targets))]
    stops = [
        each.stop_string
        for record in expected
        for each in record.completions
        if each.stop_string is not None and _says_nothing(each.completion)
    ]
    reasons = Counter(each.finish_reason for record in records for each in record.completions)
    return Counts(
        prompt_tokens=sum_known(record.prompt_tokens for record in records),
        prefix_tokens_reused=prefix_tokens_reused,
        completion_tokens=sum_known(record.completion_tokens for record in records),
        finish_reasons=dict(sorted(reasons.items())),
        unparsed=unparsed,
        shots_effective={str(number): shots[number] for number in sorted(shots)},
        empty=sum(record.finish_reason != "undecoded" and _says_nothing(record.prediction) for record in expected),
        stopped_empty=dict(sorted(Counter(stops).items())),
    )


_TAG = re.compile(r"</?\|?\w+\|?>")


def _says_nothing(text: str) -> bool:
    """Return whether a string contains only white space and tags such as `<think>`."""
    return not _TAG.sub("", text).strip()


def sum_known(numbers: Iterable[int | None]) -> int | None:
    """Return the sum of some numbers; None if one of them is not known."""
    known = list(numbers)
    return None if None in known else sum(number for number in known if number is not None)
