"""Check and encode prompts that the user types, without a task."""

from collections.abc import Sequence
from dataclasses import dataclass

from icl_eval.config.options import build_requested_conventions, choose_source
from icl_eval.config.schema import ModelOptions
from icl_eval.decoding.searches import Search, require_one_sample
from icl_eval.models.devices import choose_device
from icl_eval.models.loading import LanguageModel, find_card, load_model
from icl_eval.prompts.building import EncodedPrompt
from icl_eval.prompts.conventions import Conventions, find_conventions

DEFAULT_MAX_NEW_TOKENS = 50


@dataclass(frozen=True)
class FreePrompts:
    """Encoded prompts and the loaded model that they fit."""

    model: LanguageModel
    conventions: Conventions
    search: Search
    max_new_tokens: int
    encoded: tuple[EncodedPrompt, ...]
    """The encoded prompts, in the order given."""


def open_prompts(
    config: ModelOptions,
    search: Search,
    prompts: Sequence[str],
    decoder_prompt: str | None = None,
    model: LanguageModel | None = None,
    default_max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
) -> FreePrompts:
    """Encode prompts, check that they fit the model, and then load it.

    Args:
        config: The options of the command.
        search: The search that `decoding` selects.
        prompts: The encoder input, or the text that a decoder-only model continues.
        decoder_prompt: The text with which the outputs of an encoder-decoder model begin.
        model: A model in memory, used instead of the one in the configuration.
        default_max_new_tokens: The limit on new tokens if `max_new_tokens` is not set.

    Raises:
        UserError: If an option is invalid or a prompt does not fit.
    """
    require_one_sample(search)
    max_new_tokens = config.max_new_tokens or default_max_new_tokens
    source = choose_source(config.model, model)
    if model is None:
        choose_device(config.device)
    conventions = find_conventions(find_card(source), build_requested_conventions(config))
    names = [f"prompt {number}" for number in range(1, len(prompts) + 1)] if len(prompts) > 1 else ["prompt"]
    encoded = tuple(conventions.encode_text(*named, decoder_prompt) for named in zip(names, prompts, strict=True))
    context = conventions.context(max_new_tokens)
    for prompt in encoded:
        context.require_fit(prompt, f"{prompt.prompt.example_id}: " if len(prompts) > 1 else "")
    loaded = load_model(source, config.dtype, config.device)
    return FreePrompts(loaded, conventions, search, max_new_tokens, encoded)
