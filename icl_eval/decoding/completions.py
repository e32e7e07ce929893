"""What comes out of a decoder: tokens while it works, a completion when a row is finished."""

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["eos", "stop", "length", "undecoded"]
"""The model ended its text; a stop string appeared; `max_new_tokens` were generated, or none were to be."""


@dataclass(frozen=True)
class Token:
    """One decoded token of one completion."""

    example_id: str
    id: int
    text: str
    """What the token lets be shown. Text is held back while it may be a part of a character or of a stop
    string, so this may be empty, and may contain what earlier tokens held back."""


@dataclass(frozen=True)
class Completion:
    """A finished answer, before any postprocessing."""

    example_id: str
    text: str
    """Everything before the stop string or the end-of-sequence token."""
    token_ids: tuple[int, ...]
    """Everything that was generated, the end-of-sequence token or the stop string's tokens included."""
    finish_reason: FinishReason
    stop_string: str | None = None
    """What ended it where `finish_reason` is `stop`."""
