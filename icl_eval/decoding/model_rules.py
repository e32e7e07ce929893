"""List the rules that a model's generation config adds to a search, such as a repetition penalty."""

from collections.abc import Mapping
from typing import Any

from icl_eval.decoding.searches import OWN_OPTIONS, Search
from icl_eval.prompts.conventions import Conventions

_RULES = (
    *("repetition_penalty", "no_repeat_ngram_size", "encoder_repetition_penalty", "encoder_no_repeat_ngram_size"),
    *("min_length", "min_new_tokens", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "sequence_bias"),
    *("forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty", "guidance_scale"),
    *("remove_invalid_values", "stop_strings"),
)
"""Keys of a generation config that change the result of greedy search."""
_FAMILIAR = ("forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values", "stop_strings")
"""Keys of `_RULES` that need no warning: they say how a model's completions begin and end."""
_UNTOLD = (*OWN_OPTIONS, "do_sample", "use_cache", "_from_model_config")
_NEUTRAL: Mapping[str, Any] = {"repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0, "guidance_scale": 1.0}


def list_rules(conventions: Conventions, search: Search) -> dict[str, Any]:
    """Return the keys of a model's generation config that change a search, with their values."""
    own: dict[str, Any] = conventions.card.generation.to_diff_dict()
    names = _RULES if search.name != "generate" else [name for name in own if name not in _UNTOLD]
    given = {**search.settings, **conventions.settings}
    rules = {name: own[name] for name in names if name in own and name not in given}
    return {name: value for name, value in rules.items() if value and value != _NEUTRAL.get(name)}


def describe_rules(conventions: Conventions, search: Search) -> str:
    """Return a sentence about the rules that change completions, or an empty string if there are none."""
    card = conventions.card
    rules = {name: value for name, value in list_rules(conventions, search).items() if name in _RULES}
    rules = {name: value for name, value in rules.items() if name not in _FAMILIAR}
    if rules.get("bad_words_ids") == [[card.generation.pad_token_id]]:
        del rules["bad_words_ids"]
    if not rules:
        return ""
    shown = ", ".join(f"{name}={value}" for name, value in rules.items())
    return f"the generation config of {card.name} has rules that change completions, and so scores: {shown}"
