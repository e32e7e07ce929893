"""Run a model's network in this process: `engine=transformers`, the default and the exact one."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from icl_eval.decoding.engines.interface import Abilities, Engine, Generation
from icl_eval.decoding.memory import bias_bytes, prompt_bytes
from icl_eval.decoding.searches import SEARCHES, Search
from icl_eval.errors import ConfigError
from icl_eval.models.cards import ModelCard
from icl_eval.models.devices import choose_device
from icl_eval.models.loading import LanguageModel, ModelSource, load_model
from icl_eval.models.networks import ITEM_BYTES
from icl_eval.prompts.building import EncodedPrompt
from icl_eval.prompts.conventions import Conventions
from icl_eval.prompts.tokenization import Continuations

if TYPE_CHECKING:
    from icl_eval.decoding.branches import ScoredPrompt
    from icl_eval.decoding.completions import Completion


@dataclass(frozen=True)
class TransformersEngine:
    """Runs a network of transformers in this process."""

    dtype: str
    device: str
    batch_size: int | None
    """The number of prompts in a batch; None for as many as fit in memory."""
    prefix_cache_mb: int | None
    """The size of the cache of shared prefixes; None for as much as there is room for."""
    name = "transformers"
    prices = None
    new_tokens_per_score = 0
    abilities = Abilities(searches=tuple(SEARCHES.classes), encoders=True, memory=True, likelihoods=True)

    @property
    def identity(self) -> Mapping[str, Any]:
        """The dtype, which decides how numbers are rounded."""
        return {"dtype": self.dtype}

    def require_device(self, model: ModelSource) -> None:
        """Refuse a device that this machine lacks; raises ConfigError."""
        if self.device not in ("auto", "cpu") and not isinstance(model, LanguageModel):
            choose_device(self.device)

    def adapt(self, card: ModelCard) -> ModelCard:
        """Return the card as it is."""
        return card

    def check(self, conventions: Conventions, search: Search, is_chat: bool) -> None:
        """Refuse nothing."""

    def describe_precision(self, search: Search) -> Mapping[str, Any]:
        """Return the dtype, and whether completions do not depend on what else is in their batch."""
        exact = self.dtype in ("float32", "float64") or not search.shares_prefixes
        return {"dtype": self.dtype, "batch_invariant": exact}

    def count_reused(self, conventions: Conventions, prompts: Sequence[EncodedPrompt], search: Search) -> int:
        """Return how many tokens are taken from the cache of a shared prefix if all prompts are decoded in one run."""
        if not search.shares_prefixes:
            return 0
        from icl_eval.decoding.networks import new_cache  # imports torch
        from icl_eval.decoding.prefixes import longest_whole
        from icl_eval.decoding.sharing import count_reused, plan_groups

        longest = longest_whole(new_cache(conventions.card.config))
        return sum(count_reused(plan_groups(prompts), longest, keeps=self.prefix_cache_mb != 0).values())

    def describe_room(self, card: ModelCard, num_tokens: int, num_encoded: int) -> str:
        """Return a phrase about the memory that the keys and values of a prompt, and biases of its encoder, need."""
        item_bytes = ITEM_BYTES[self.dtype]
        needed = f"{prompt_bytes(card.config, item_bytes, num_tokens) / 1e6:,.1f} MB for keys and values"
        if biases := bias_bytes(card.config, item_bytes, num_encoded):
            needed += f" and {biases / 1e6:,.1f} MB for the encoder's position biases"
        return f"{needed} of the longest in {self.dtype}, beside the weights"

    def load(self, model: ModelSource) -> LanguageModel:
        """Load the model; see `load_model`."""
        return load_model(model, self.dtype, self.device)

    def open(self, model: ModelSource, conventions: Conventions, asks_likelihoods: bool) -> "TransformersRunner":
        """Load the model."""
        return TransformersRunner(self, self.load(model), conventions.settings)


def require_in_process(engine: Engine, command: str) -> TransformersEngine:
    """Return the engine of a command that looks into a network; raises ConfigError if it is another one."""
    if not isinstance(engine, TransformersEngine):
        raise ConfigError(f"engine={engine.name}: icl-eval {command} looks into the network; use engine=transformers")
    return engine


class TransformersRunner:
    """A loaded network."""

    def __init__(self, engine: TransformersEngine, model: LanguageModel, settings: Mapping[str, Any]):
        """Hold a model.

        Args:
            engine: The engine's options.
            model: The loaded model.
            settings: Options of `generate` that override the model's generation config.
        """
        self._engine = engine
        self._model = model
        self._settings = settings

    def complete(
        self, prompts: Sequence[EncodedPrompt], generation: Generation, among: Sequence[EncodedPrompt]
    ) -> "Iterator[Completion]":
        """Yield the completions of prompts in the order in which they are finished."""
        from icl_eval.decoding.completions import Completion
        from icl_eval.decoding.decoders import build_decoder  # imports torch

        decoder = build_decoder(
            self._model,
            generation.search,
            generation.max_new_tokens,
            generation.stop,
            self._engine.batch_size,
            self._engine.prefix_cache_mb,
            self._settings,
        )
        return (event for event in decoder.stream(prompts, among=among) if isinstance(event, Completion))

    def score(self, asked: Sequence[Continuations], wanted: Collection[int]) -> "Iterator[tuple[int, ScoredPrompt]]":
        """Yield the index of each wanted prompt with the log-probabilities of its continuations."""
        from icl_eval.decoding.log_probs import LikelihoodScorer  # imports torch

        return LikelihoodScorer(self._model, self._engine.batch_size, self._settings).score(asked, wanted)

    def describe(self) -> Mapping[str, Any]:
        """Return nothing: the report has the weights, the dtype and this machine already."""
        return {}

    def close(self) -> None:
        """Keep the model, which later runs of this process may use."""
