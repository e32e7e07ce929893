"""What an answer of a server must have. Unknown fields are ignored, missing ones make an answer incomplete."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field


class Usage(BaseModel):
    """The tokens that a server counted."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: Mapping[str, Any] | None = None

    @property
    def cached_tokens(self) -> int:
        """The tokens of the prompt that the server took from its cache, as far as it tells."""
        count = (self.prompt_tokens_details or {}).get("cached_tokens")
        return count if isinstance(count, int) else 0


class LogProbs(BaseModel):
    """Log-probabilities of the tokens of a text completion."""

    tokens: Sequence[str] = ()
    token_logprobs: Sequence[float | None] = ()
    top_logprobs: Sequence[Mapping[str, float] | None] | None = None


class Message(BaseModel):
    """The message of a chat completion."""

    content: str | None = None


class Choice(BaseModel):
    """One completion. Without a finish reason it is not one: the answer was cut."""

    finish_reason: str
    text: str | None = None
    message: Message | None = None
    logprobs: LogProbs | None = None
    token_ids: Sequence[int] | None = None
    prompt_token_ids: Sequence[int] | None = None
    stop_reason: str | int | None = None

    @property
    def content(self) -> str | None:
        """The text of a completion, or of a chat completion; None if the answer has none."""
        return self.message.content if self.message is not None else self.text


class Answer(BaseModel):
    """An answer to a request for one completion."""

    choices: Sequence[Choice] = Field(min_length=1)
    usage: Usage | None = None
    model: str | None = None
    system_fingerprint: str | None = None

    @property
    def choice(self) -> Choice:
        """The only completion."""
        return self.choices[0]


class ServedModel(BaseModel):
    """A model that a server lists."""

    id: str
    root: str | None = None
    max_model_len: int | None = None


class ModelList(BaseModel):
    """The models that a server lists."""

    data: Sequence[ServedModel]
