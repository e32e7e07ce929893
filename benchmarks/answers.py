"""Answers: what a system wrote after a prompt, cut where the workload says that an answer ends."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.workloads import Workload


@dataclass(frozen=True)
class Answer:
    """What a system wrote after one prompt."""

    text: str
    """Everything before the stop string or the end of the sequence."""
    num_tokens: int | None
    """How many tokens were generated, the stop string's or the end-of-sequence token included; None if not told."""


def cut_text(workload: Workload, ids: Sequence[int]) -> str:
    """Return the text of generated ids up to the first stop string."""
    tokenizer = workload.model.tokenizer
    text = str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    for stop in workload.stop:
        text = text.split(stop)[0]
    return text
