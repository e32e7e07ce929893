"""The interface of engines: what a run asks of them, and what they can do.

    Engine ── open(model, conventions) ──▶ Runner: complete prompts, score continuations, describe itself

An engine is what the configuration chooses; it costs nothing. Opening it loads weights or connects to a server, which
happens only if a prompt has no record yet.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from icl_eval.decoding.searches import Search
from icl_eval.errors import ConfigError
from icl_eval.models.cards import ModelCard
from icl_eval.models.loading import LanguageModel, ModelSource
from icl_eval.prompts.building import EncodedPrompt
from icl_eval.prompts.conventions import Conventions
from icl_eval.prompts.tokenization import Continuations

if TYPE_CHECKING:
    from icl_eval.decoding.branches import ScoredPrompt
    from icl_eval.decoding.completions import Completion


@dataclass(frozen=True)
class Generation:
    """How a task's prompts are completed."""

    search: Search
    max_new_tokens: int
    stop: tuple[str, ...]


@dataclass(frozen=True)
class Abilities:
    """What an engine can do, whatever the model."""

    searches: tuple[str, ...]
    """The searches of `decoding`."""
    encoders: bool
    """Whether it runs encoder-decoder models."""
    memory: bool
    """Whether it runs a network that a caller has in memory."""
    likelihoods: bool
    """Whether it gives log-probabilities of given text."""


@dataclass(frozen=True)
class Prices:
    """What a provider charges, in any currency."""

    prompt: float = 0.0
    """For a million prompt tokens."""
    completion: float = 0.0
    """For a million completion tokens."""

    def __post_init__(self) -> None:
        for name, price in (("prompt", self.prompt), ("completion", self.completion)):
            if not 0 <= price < float("inf"):
                raise ConfigError(f"{name}={price}: must be 0 or more")

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the price of some tokens."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1_000_000


class Runner(Protocol):
    """An engine with its model ready to run."""

    def complete(
        self, prompts: Sequence[EncodedPrompt], generation: Generation, among: Sequence[EncodedPrompt]
    ) -> "Iterator[Completion]":
        """Yield the completions of prompts in the order in which they are finished.

        Args:
            prompts: The prompts to complete.
            generation: How to complete them.
            among: All prompts of the task, which decide what is shared.
        """

    def score(self, asked: Sequence[Continuations], wanted: Collection[int]) -> "Iterator[tuple[int, ScoredPrompt]]":
        """Yield the index of each wanted prompt with the log-probabilities of its continuations."""

    def describe(self) -> Mapping[str, Any]:
        """Return what answered, for the report: for a server its version, and what was found out about it."""

    def close(self) -> None:
        """End connections."""


class Engine(Protocol):
    """What runs a model, as the configuration chooses it."""

    @property
    def name(self) -> str:
        """The name in a configuration."""

    @property
    def abilities(self) -> Abilities:
        """What the engine can do."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """The options that determine a run's records, by name."""

    @property
    def prices(self) -> Prices | None:
        """What tokens cost; None if nothing is charged, or it is not configured."""

    @property
    def new_tokens_per_score(self) -> int:
        """The number of tokens that are generated to score a continuation, and charged."""

    def require_device(self, model: ModelSource) -> None:
        """Refuse a device that this machine lacks, before prompts are built for it; raises ConfigError."""

    def adapt(self, card: ModelCard) -> ModelCard:
        """Return a model's card with the limits of the engine."""

    def check(self, conventions: Conventions, search: Search, is_chat: bool) -> None:
        """Refuse what the engine cannot express of a model or a run; raises ConfigError."""

    def describe_precision(self, search: Search) -> Mapping[str, Any]:
        """Return the dtype, and whether completions do not depend on what else is in their batch; null if unknown."""

    def count_reused(self, conventions: Conventions, prompts: Sequence[EncodedPrompt], search: Search) -> int | None:
        """Return how many tokens are taken from the cache of a shared prefix if all prompts are decoded in one run.

        None if that is unknown.
        """

    def describe_room(self, card: ModelCard, num_tokens: int, num_encoded: int) -> str | None:
        """Return a phrase about the memory that a prompt needs here; None if it needs none here.

        Args:
            card: The model's card.
            num_tokens: The number of tokens of the prompt and its completion.
            num_encoded: The number of tokens that the encoder reads.
        """

    def open(self, model: ModelSource, conventions: Conventions, asks_likelihoods: bool) -> Runner:
        """Load the model, or connect to what serves it.

        Args:
            model: Where its files come from.
            conventions: What the model requires of a prompt, and how its completions end.
            asks_likelihoods: Whether continuations will be scored.

        Raises:
            UserError: If the model is not available, or an option does not suit it.
        """


def require_able(
    engine: Engine,
    model: ModelSource,
    conventions: Conventions,
    search: Search,
    *,
    is_chat: bool,
    asks_likelihoods: bool,
) -> None:
    """Refuse what an engine cannot do, before anything is computed; raises ConfigError."""
    able, card = engine.abilities, conventions.card
    problem = ""
    if isinstance(model, LanguageModel) and not able.memory:
        problem = f"{card.name} is a model in memory"
    elif card.architecture == "encoder-decoder" and not able.encoders:
        problem = f"{card.name} is encoder-decoder, which this engine does not run"
    elif search.name not in able.searches:
        problem = f"cannot run decoding={search.name} (it has: {', '.join(able.searches)})"
    elif asks_likelihoods and not able.likelihoods:
        problem = "gives no log-probabilities of given text, which likelihood=… needs"
    if problem:
        raise ConfigError(f"engine={engine.name}: {problem}; use engine=transformers")
    engine.check(conventions, search, is_chat)
