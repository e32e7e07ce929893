"""Free prompts: strings of a user's own, without a task, checked and encoded for a model."""

from collections.abc import Sequence
from dataclasses import dataclass

from icl_eval.config.options import asked_conventions, build_model_spec, check_model_options
from icl_eval.config.schema import ModelOptions
from icl_eval.decoding.searches import Search
from icl_eval.models.loading import LanguageModel, load_model, read_card
from icl_eval.prompts.building import EncodedPrompt
from icl_eval.prompts.conventions import Conventions, find_conventions

DEFAULT_MAX_NEW_TOKENS = 50


@dataclass(frozen=True)
class FreePrompts:
    """Prompts that fit a model, and the model."""

    model: LanguageModel
    conventions: Conventions
    search: Search
    max_new_tokens: int
    encoded: tuple[EncodedPrompt, ...]
    """In the order of the strings."""


def open_prompts(
    config: ModelOptions,
    search: Search,
    prompts: Sequence[str],
    decoder_prompt: str | None = None,
    model: LanguageModel | None = None,
    default_max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
) -> FreePrompts:
    """Encode prompts, check that they fit, and then load the model.

    Args:
        config: The options of the command.
        search: What its `decoding` asks for.
        prompts: What an encoder reads, or what a decoder-only model continues.
        decoder_prompt: How the answers of an encoder-decoder model begin.
        model: A model in memory, in place of the configuration's.
        default_max_new_tokens: How many tokens a completion may have if the options do not say.

    Raises:
        UserError: When an option is impossible or a prompt does not fit.
    """
    check_model_options(config)
    max_new_tokens = config.max_new_tokens or default_max_new_tokens
    source = model or build_model_spec(config.model)
    conventions = find_conventions(read_card(source), asked_conventions(config))
    names = [f"prompt {number}" for number in range(1, len(prompts) + 1)] if len(prompts) > 1 else ["prompt"]
    encoded = tuple(conventions.encode_text(*named, decoder_prompt) for named in zip(names, prompts, strict=True))
    context = conventions.context(max_new_tokens)
    for prompt in encoded:
        context.require_fit(prompt, f"{prompt.prompt.example_id}: " if len(prompts) > 1 else "")
    loaded = load_model(source, config.dtype, config.device)
    return FreePrompts(loaded, conventions, search, max_new_tokens, encoded)
