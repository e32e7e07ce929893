"""The bodies of requests.

Every sampling parameter is sent: a server takes those that are missing from the model's generation config, or has
defaults of its own (a repetition penalty of 1.1 in llama-cpp-python).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from icl_eval.decoding.searches import Sample, Search

Api = Literal["completions", "chat"]
Prompts = Literal["auto", "token_ids", "text"]
"""How prompts are sent; auto: as token ids if the server takes them."""
SentPrompt = str | Sequence[int] | Sequence[Mapping[str, str]]
"""A text, token ids, or the turns of a conversation."""

MOST_STOPS = 4
"""The number of stop strings that OpenAI's API takes; the others are applied to the answers."""

_ALL_IDS = -1
"""The value of `top_k` that stands for all tokens."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    repetition_penalty: float = 1.0

    @classmethod
    def of(cls, search: Search, repetition_penalty: float = 1.0) -> "Sampling":
        """Return the parameters of a search."""
        if isinstance(search, Sample):
            top_p = 1.0 if search.top_p is None else search.top_p
            return cls(search.temperature, top_p, search.top_k, repetition_penalty)
        return cls(repetition_penalty=repetition_penalty)


Field = Literal["seed", "top_p", "penalties", "top_k", "repetition_penalty", "repeat_penalty", "token_ids"]
FIELDS: tuple[Field, ...] = ("seed", "top_p", "penalties", "top_k", "repetition_penalty", "repeat_penalty", "token_ids")
"""What not every server takes; `probing` finds out which of them a server does. The last four are not OpenAI's."""


@dataclass(frozen=True)
class Dialect:
    """How a server wants to be asked."""

    api: Api
    model: str
    fields: tuple[Field, ...] = FIELDS
    length_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    takes_ids: bool = False
    """Whether prompts are sent as token ids."""

    def without(self, *names: Field) -> "Dialect":
        """Return the dialect without some fields."""
        return replace(self, fields=tuple(name for name in self.fields if name not in names))

    def ask(
        self, prompt: SentPrompt, max_tokens: int, sampling: Sampling, stop: Sequence[str] = (), seed: int = 0
    ) -> dict[str, Any]:
        """Return the body of a request for one completion.

        Args:
            prompt: A text, token ids, or the turns of a conversation.
            max_tokens: The limit on new tokens.
            sampling: How the next token is chosen.
            stop: Strings that end the completion.
            seed: The seed of sampled tokens.
        """
        body: dict[str, Any] = {"model": self.model, "temperature": sampling.temperature, self.length_key: max_tokens}
        body["messages" if self.api == "chat" else "prompt"] = prompt if isinstance(prompt, str) else list(prompt)
        if stop:
            body["stop"] = list(stop[:MOST_STOPS])
        top_k = _ALL_IDS if sampling.top_k is None else sampling.top_k
        optional: dict[Field, dict[str, Any]] = {
            "seed": {"seed": seed},
            "top_p": {"top_p": sampling.top_p},
            "penalties": {"frequency_penalty": 0.0, "presence_penalty": 0.0},
            "top_k": {"top_k": top_k, "min_p": 0.0},
            "repetition_penalty": {"repetition_penalty": sampling.repetition_penalty},
            "repeat_penalty": {"repeat_penalty": sampling.repetition_penalty},
            "token_ids": {"return_token_ids": True},
        }
        for name in self.fields:
            body |= optional[name]
        return body

    def ask_echo(self, ids: Sequence[int]) -> dict[str, Any]:
        """Return the body of a request for the log-probabilities of a prompt's own tokens."""
        return {**self.ask(ids, 1, Sampling()), "echo": True, "logprobs": 1}

    def describe(self) -> dict[str, Any]:
        """Return the parameters of greedy requests, for the report."""
        body = self.ask("", 1, Sampling())
        dropped = ("prompt", "messages", "model", "seed", self.length_key)
        return {name: value for name, value in body.items() if name not in dropped}


def path_of(api: Api) -> str:
    """Return the path of an interface."""
    return "/completions" if api == "completions" else "/chat/completions"


def derive_seed(seed: int, example_id: str, sample: int) -> int:
    """Return the seed of one completion, which depends on nothing but the run's seed and the question."""
    digest = hashlib.sha256(json.dumps([seed, example_id, sample]).encode()).digest()
    return int.from_bytes(digest[:4], "little") & 0x7FFFFFFF
