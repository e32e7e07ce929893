"""The harness's requests for texts: what its generation options ask for, and how its texts end.

The options and the last step from tokens to a text are read with the harness's own functions, as its `hf` model does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from icl_eval.decoding import Completion, build_decoder
from icl_eval.decoding.searches import Generate, Greedy, Search
from icl_eval.errors import ConfigError
from icl_eval.models.loading import LanguageModel
from icl_eval.prompts.building import EncodedPrompt, Prompt

MAX_GEN_TOKS = 256
"""The harness's limit on a text's tokens if a task sets none."""
_SAMPLING = ("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p")
"""Options without an effect on greedy decoding."""


@dataclass(frozen=True)
class TextOptions:
    """What one set of generation options asks for."""

    until: tuple[str, ...]
    """The strings that end a text, with the tokenizer's end-of-sequence token."""
    max_gen_toks: int
    search: Search


@dataclass(frozen=True)
class TextRequest:
    """One prompt to complete."""

    number: int
    ids: tuple[int, ...]
    """The tokens of the whole prompt, which go to the encoder if there is one."""


def read_text_options(gen_kwargs: Mapping[str, Any], model: LanguageModel) -> TextOptions:
    """Read the generation options of a request.

    Raises:
        ConfigError: If they ask for a sample, or an option is unknown.
    """
    from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

    options = dict(normalize_gen_kwargs(dict(gen_kwargs), MAX_GEN_TOKS))
    if options.get("do_sample"):
        raise ConfigError(
            "generation_kwargs: do_sample=True or a temperature above 0 asks for samples, and the model icl_eval is "
            "greedy in lm-evaluation-harness; use --model hf, or --gen_kwargs do_sample=False,temperature=0"
        )
    eos = model.tokenizer.decode(model.tokenizer.eos_token_id)
    until = handle_stop_sequences(options.pop("until", None), eos=eos)
    if "" in until:
        raise ConfigError("generation_kwargs: until: an empty string would end every text after its first token")
    limit = int(options.pop("max_gen_toks"))
    if limit < 1:
        raise ConfigError(f"generation_kwargs: max_gen_toks={limit}: must be 1 or more")
    others = {name: value for name, value in options.items() if name not in _SAMPLING and value is not None}
    return TextOptions(tuple(until), limit, _choose_search(others, model))


def _choose_search(options: dict[str, Any], model: LanguageModel) -> Search:
    """Return greedy search, or the library's own if options or the model's generation config ask for another."""
    beams = model.network.generation_config.num_beams or 1
    if not options and beams == 1:
        return Greedy()
    try:
        return Generate({"num_beams": beams, **options, "do_sample": False})
    except ConfigError as error:
        raise ConfigError(f"generation_kwargs: {error}") from None


def complete(
    model: LanguageModel,
    options: TextOptions,
    requests: Sequence[TextRequest],
    batch_size: int | None,
    cache_mb: int | None,
) -> Iterator[tuple[int, str]]:
    """Yield the number of each request with its text, in the order in which the texts are finished.

    The `hf` model lets an encoder-decoder model generate as many tokens more as its encoder reads; so does this.
    """
    from lm_eval.models.utils import postprocess_generated_text

    has_encoder = model.architecture == "encoder-decoder"
    limits = {
        str(request.number): options.max_gen_toks + (len(request.ids) - 1 if has_encoder else 0) for request in requests
    }
    prompts = [_as_prompt(request, has_encoder) for request in requests]
    decoder = build_decoder(
        model, options.search, max(limits.values()), options.until, batch_size, cache_mb, options.search.settings
    )
    for event in decoder.stream(prompts):
        if isinstance(event, Completion):
            ids = event.token_ids[: limits[event.example_id]]
            text = model.tokenizer.decode(ids, skip_special_tokens=True)
            yield int(event.example_id), postprocess_generated_text(str(text), list(options.until), None)


def _as_prompt(request: TextRequest, has_encoder: bool) -> EncodedPrompt:
    if has_encoder:
        return EncodedPrompt(Prompt(str(request.number), "", None), request.ids, ())
    return EncodedPrompt(Prompt(str(request.number), None, ""), (), request.ids)
