"""Choose the decoder for a search."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from icl_eval.decoding.completions import Completion, Token
from icl_eval.decoding.generate import GenerateDecoder
from icl_eval.decoding.searches import Generate, Greedy, Sample, Search
from icl_eval.decoding.stream import StreamDecoder
from icl_eval.models.loading import LanguageModel
from icl_eval.prompts.building import EncodedPrompt


class Decoder(Protocol):
    """Completes prompts."""

    def stream(
        self, prompts: Sequence[EncodedPrompt], among: Sequence[EncodedPrompt] | None = None
    ) -> Iterator[Token | Completion]:
        """Yield the tokens of each prompt and then its completion; `among` is the set used to plan prefix sharing."""


def build_decoder(
    model: LanguageModel,
    search: Search,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    batch_size: int | None = None,
    prefix_cache_mb: int | None = None,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Decoder:
    """Return the decoder for a search; see `StreamDecoder` for the arguments."""
    if isinstance(search, Generate):
        return GenerateDecoder(model, {**search.settings, **settings}, max_new_tokens, stop, search.seed)
    assert isinstance(search, Greedy | Sample)
    return StreamDecoder(model, max_new_tokens, stop, batch_size, prefix_cache_mb, search, settings)
