"""The output of a decoder: tokens while it runs, and a completion when a row is finished."""

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["eos", "stop", "length", "undecoded", "unknown", "content_filter"]
"""eos: the model ended the sequence; stop: a stop string appeared; length: `max_new_tokens` were generated;
undecoded: nothing was to be generated; unknown: a server ended the completion with an end-of-sequence token or a stop
string, and does not say which; content_filter: a server withheld the rest."""


@dataclass(frozen=True)
class Token:
    """One decoded token of a completion."""

    example_id: str
    id: int
    text: str
    """The text that this token completes. Text is held back while it may be part of a character or of a stop
    string, so this can be empty, and it can contain text that earlier tokens held back."""
    sample: int = 0
    """The number of the completion, from 0, if a prompt has several."""


@dataclass(frozen=True)
class Completion:
    """A finished completion, before any postprocessing."""

    example_id: str
    text: str
    """Everything before the stop string or the end-of-sequence token."""
    token_ids: tuple[int, ...]
    """All generated tokens, including the end-of-sequence token or the stop string's tokens."""
    finish_reason: FinishReason
    stop_string: str | None = None
    """The stop string that ended the completion, if `finish_reason` is `stop`."""
    sample: int = 0
    """The number of the completion, from 0, if a prompt has several."""
    has_ids: bool = True
    """Whether the tokens are known; a server may return only their text."""
    told_tokens: int | None = None
    """The number of tokens according to a server that returns only their text; None if it does not say."""

    @property
    def num_tokens(self) -> int | None:
        """The number of generated tokens; None if it is unknown."""
        return len(self.token_ids) if self.has_ids else self.told_tokens
