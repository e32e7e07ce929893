"""The answers of a system, cut at the workload's stop strings."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.workloads import Workload


@dataclass(frozen=True)
class Answer:
    """The text that a system generated for one prompt."""

    text: str
    """Everything before the stop string or the end of the sequence."""
    num_tokens: int | None
    """Number of generated tokens, including the stop string or the end-of-sequence token; None if it is unknown."""


def cut_text(workload: Workload, ids: Sequence[int]) -> str:
    """Return the text of generated ids up to the first stop string."""
    tokenizer = workload.model.tokenizer
    text = str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    for stop in workload.stop:
        text = text.split(stop)[0]
    return text
