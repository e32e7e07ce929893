"""The engine for servers: `engine=openai engine.base_url=http://localhost:8000/v1 engine.model=NAME`."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from icl_eval.decoding.engines.interface import Abilities, Prices, Runner
from icl_eval.decoding.engines.server.access import read_key, require_address
from icl_eval.decoding.engines.server.requests import Api, Prompts
from icl_eval.decoding.model_rules import list_rules
from icl_eval.decoding.searches import Search
from icl_eval.errors import ConfigError, ModelUnavailableError
from icl_eval.models.cards import ModelCard
from icl_eval.models.loading import ModelSource
from icl_eval.prompts.building import EncodedPrompt
from icl_eval.prompts.conventions import Conventions

logger = logging.getLogger(__name__)

DEFAULT_KEY = "OPENAI_API_KEY"
"""The environment variable of the API key, unless another is named."""


@dataclass(frozen=True)
class OpenAIEngine:
    """Sends prompts to a server that speaks OpenAI's API."""

    base_url: str | None
    """The address, up to and including `/v1`."""
    model: str | None
    """The name of the served model."""
    api: Api = "completions"
    prompts: Prompts = "auto"
    """How prompts are sent: as token ids if the server takes them, or as text."""
    max_length: int | None = None
    """The number of tokens of prompt and completion together; None for the model's own limit."""
    num_concurrent: int = 16
    """The maximum number of requests in flight."""
    timeout: float = 600.0
    """Seconds that an attempt may be silent."""
    max_retries: int = 6
    api_key_env: str | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    prices: Prices | None = None
    name = "openai"
    new_tokens_per_score = 1

    def __post_init__(self) -> None:
        if not self.base_url:
            raise ConfigError("base_url: an address is required (engine.base_url=http://localhost:8000/v1)")
        if not self.model:
            raise ConfigError("model: the name of the served model is required (engine.model=NAME)")
        for name in ("num_concurrent", "requests_per_minute", "tokens_per_minute", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value}: must be 1 or more")
        if self.max_retries < 0:
            raise ConfigError(f"max_retries={self.max_retries}: must be 0 or more")
        if not 0 < self.timeout < float("inf"):
            raise ConfigError(f"timeout={self.timeout}: must be more than 0 seconds")
        if self.api == "chat" and self.prompts == "token_ids":
            raise ConfigError("prompts=token_ids: a conversation is sent as its turns; use engine.api=completions")
        require_address(self.base_url)

    @property
    def abilities(self) -> Abilities:
        """What a server can do at best; the probe finds out what this one does."""
        return Abilities(
            searches=("greedy", "sample"), encoders=False, memory=False, likelihoods=self.api == "completions"
        )

    @property
    def identity(self) -> Mapping[str, Any]:
        """The options that determine a run's records: not the address, nor how fast it is asked."""
        return {
            "engine": self.name,
            "engine.model": self.model,
            "engine.api": self.api,
            "engine.prompts": self.prompts,
            "engine.max_length": self.max_length,
        }

    def describe_precision(self, search: Search) -> Mapping[str, Any]:
        """Return that the dtype of the server, and what its batches do, are unknown."""
        return {"dtype": "unknown", "batch_invariant": None}

    def count_reused(self, conventions: Conventions, prompts: Sequence[EncodedPrompt], search: Search) -> None:
        """Return None: what a server reuses is in what it tells of each request."""
        return None

    def describe_room(self, card: ModelCard, num_tokens: int, num_encoded: int) -> None:
        """Return None: the memory is the server's."""
        return None

    def require_device(self, model: ModelSource) -> None:
        """Refuse nothing: the device is the server's."""

    def adapt(self, card: ModelCard) -> ModelCard:
        """Return a model's card with the limit of the server."""
        if self.max_length is None or (card.max_length is not None and card.max_length < self.max_length):
            return card
        return replace(card, max_length=self.max_length)

    def check(self, conventions: Conventions, search: Search, is_chat: bool) -> None:
        """Refuse what the API cannot express; raises ConfigError."""
        if self.api == "chat" and not is_chat:
            raise ConfigError("engine.api=chat: sends the turns of a conversation; add template=chat")
        rules = set(list_rules(conventions, search)) - {"stop_strings"}
        for rule in sorted(rules - {"repetition_penalty"}):
            raise ConfigError(
                f"engine=openai: the generation config of {conventions.card.name} sets {rule}, which OpenAI's API "
                "cannot express; use engine=transformers"
            )

    def open(self, model: ModelSource, conventions: Conventions, asks_likelihoods: bool) -> Runner:
        """Connect to the server and find out what it does.

        Raises:
            ModelUnavailableError: If the libraries for it are missing.
            UserError: If the server does not do what the run needs.
            IclEvalError: If it does not answer.
        """
        assert self.base_url is not None
        assert self.model is not None
        key = read_key(self.api_key_env or DEFAULT_KEY, required=self.api_key_env is not None)
        try:
            from icl_eval.decoding.engines.server.client import Client
            from icl_eval.decoding.engines.server.probing import Prober, require_served
            from icl_eval.decoding.engines.server.runner import ServerRunner

            limits = self.requests_per_minute, self.tokens_per_minute
            client = Client(require_address(self.base_url), key, self.timeout, self.max_retries, *limits)
        except ImportError as error:
            raise ModelUnavailableError(
                f"engine=openai: a package is missing ({error}); install it with pip install 'icl-eval[openai]'"
            ) from None
        facts = require_served(client, self.model)
        if facts is None:
            logger.warning("%s does not list its models: whether prompts fit is not known beforehand", self.base_url)
        prober = Prober(client, self.model, self.api, conventions.card.tokenizer)
        findings = prober.probe(self.prompts, asks_likelihoods)
        for note in findings.notes:
            logger.warning("%s: %s", self.base_url, note)
        return ServerRunner(self, client, conventions, findings, facts or {})
