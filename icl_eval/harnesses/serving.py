"""Answer what other harnesses ask of a model: greedy completions of prompts, and the likelihoods of continuations.

Prompts come as token ids, because each harness has its own rules for making them. What prompts share is computed once,
whatever their order, and what is asked twice is answered once.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from icl_eval.decoding.sharing import Ids
from icl_eval.prompts.building import EncodedPrompt, Prompt
from icl_eval.prompts.tokenization import Continuations

if TYPE_CHECKING:
    from icl_eval.decoding import Completion
    from icl_eval.decoding.branches import ScoredContinuation
    from icl_eval.models.loading import LanguageModel

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class ServedModel:
    """A model that answers requests."""

    model: "LanguageModel"
    batch_size: int | None
    """The maximum number of prompts in a batch; None for as many as fit."""
    prefix_cache_mb: int
    """The size of the cache of shared prefixes, in megabytes."""

    def complete(
        self, prompts: Sequence[Ids], max_new_tokens: int, stop: Sequence[str], end_of_turn: int | None = None
    ) -> Iterator[tuple[int, "Completion"]]:
        """Complete prompts greedily and yield the place of each in the list, in the order in which they finish.

        Args:
            prompts: The tokens of each prompt: the encoder's for an encoder-decoder model, else the decoder's.
            max_new_tokens: The maximum number of tokens in a completion.
            stop: Strings that end a completion.
            end_of_turn: A token that ends a completion, besides those of the generation config.

        Raises:
            ConfigError: If the model cannot be decoded token by token.
            IclEvalError: If there is not enough memory for a single prompt, or logits are not finite.
        """
        from icl_eval.decoding import Completion, StreamDecoder  # imports torch
        from icl_eval.decoding.rules import end_ids

        settings = {} if end_of_turn is None else {"eos_token_id": [end_of_turn, *end_ids(self.model.network, {})]}
        decoder = StreamDecoder(
            self.model, max_new_tokens, stop, self.batch_size, self.prefix_cache_mb, settings=settings
        )
        places = _find_places(prompts)
        by_name = {_name(same): same for same in places.values()}
        for event in decoder.stream([self._encode(_name(same), prompt) for prompt, same in places.items()]):
            if isinstance(event, Completion):
                for place in by_name[event.example_id]:
                    yield place, event

    def score(self, pairs: Sequence[tuple[Ids, Ids]]) -> Iterator[tuple[int, "ScoredContinuation"]]:
        """Score continuations of prompts and yield the place of each pair in the list, in the order of computation.

        An encoder-decoder model scores a continuation right after the decoder's start token, even if its generation
        config forces another token there.

        Args:
            pairs: The tokens of prompts and continuations; none is empty.

        Raises:
            ConfigError: If the model cannot be run on a prompt with its continuation.
            IclEvalError: If there is not enough memory for a single prompt, or logits are not finite.
        """
        from icl_eval.decoding import LikelihoodScorer  # imports torch

        scorer = LikelihoodScorer(self.model, self.batch_size, {"forced_bos_token_id": None})
        asked, answered = [], []
        for prompt, same in _find_places(prompt for prompt, _ in pairs).items():
            continuations = _find_places(pairs[place][1] for place in same)
            asked.append(Continuations(self._encode(_name(same), prompt), tuple(continuations)))
            answered.append([[same[number] for number in numbers] for numbers in continuations.values()])
        for number, scores in scorer.score(asked):
            for places, scored in zip(answered[number], scores, strict=True):
                for place in places:
                    yield place, scored

    def _encode(self, name: str, ids: Ids) -> EncodedPrompt:
        if self.model.architecture == "encoder-decoder":
            return EncodedPrompt(Prompt(name, "", None), ids, ())
        return EncodedPrompt(Prompt(name, None, None), (), ids)


def _find_places(items: Iterable[Key]) -> dict[Key, list[int]]:
    """Return the places of each distinct item in a sequence."""
    places: defaultdict[Key, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        places[item].append(place)
    return dict(places)


def _name(places: Sequence[int]) -> str:
    """Return a name for error messages."""
    return f"request {places[0]}"
