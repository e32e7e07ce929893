"""Owns what a model's generation config may hold: a value of a wrong kind is named, before anything is decoded.

transformers checks few of them, and takes a file that is no JSON for none, so that nothing would end a completion.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError

from icl_eval.errors import ModelUnavailableError
from icl_eval.models.weights.folders import read_json_object

_ID = (int, "a token id")
_IDS = (NonNegativeInt | list[NonNegativeInt], "a token id or a list of them")
_SUPPRESSED = (list[int], "a list of token ids")
_COUNT = (NonNegativeInt, "a whole number from 0 on")
_SOME = (PositiveInt, "a whole number from 1 on")
_NUMBER = (float, "a number")
_FACTOR = (Annotated[float, Field(gt=0, allow_inf_nan=False)], "a number above 0")
_FLAG = (bool, "true or false")

_KINDS: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(("eos_token_id", "forced_eos_token_id", "decoder_start_token_id"), _IDS),
    **dict.fromkeys(("bos_token_id", "pad_token_id", "forced_bos_token_id"), _ID),
    **dict.fromkeys(("suppress_tokens", "begin_suppress_tokens"), _SUPPRESSED),
    **dict.fromkeys(("min_length", "min_new_tokens", "top_k", "no_repeat_ngram_size"), _COUNT),
    "encoder_no_repeat_ngram_size": _COUNT,
    **dict.fromkeys(("max_new_tokens", "max_length", "num_beams", "num_return_sequences"), _SOME),
    **dict.fromkeys(("temperature", "top_p", "min_p", "typical_p", "length_penalty", "guidance_scale"), _NUMBER),
    **dict.fromkeys(("max_time", "diversity_penalty", "epsilon_cutoff", "eta_cutoff"), _NUMBER),
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty"), _FACTOR),
    **dict.fromkeys(("do_sample", "use_cache", "renormalize_logits", "remove_invalid_values"), _FLAG),
    "bad_words_ids": (list[list[NonNegativeInt]], "a list of lists of token ids"),
    "stop_strings": (str | list[str], "a string or a list of them"),
    "exponential_decay_length_penalty": (list[float], "a list of a position and a number"),
}
_NEEDED_IDS = ("eos_token_id", "forced_eos_token_id", "forced_bos_token_id", "decoder_start_token_id")
"""A network has no place for another id than its own: no text would end, or the first step would fail."""


def check_generation_config(folder: Path, num_tokens: int | None) -> None:
    """Refuse values of a wrong kind in a folder's generation config, where the network knows `num_tokens` tokens.

    Older models have it in config.json. Raises ModelUnavailableError.
    """
    file = folder / "generation_config.json"
    if not file.exists():
        file = folder / "config.json"
    content = read_json_object(file)
    for key, (_, allowed) in _KINDS.items():
        if not _is_kind(key, content.get(key)):
            raise ModelUnavailableError(f"{file} is damaged: {key}={content[key]!r} is not {allowed}")
    for key in _NEEDED_IDS:
        strange = _unknown_ids(content, key, num_tokens)
        if strange is not None:
            raise ModelUnavailableError(
                f"{file} is damaged: {key}={strange} is not one of the network's {num_tokens} tokens (from 0 on)"
            )


def _is_kind(key: str, value: Any) -> bool:
    try:
        _checker(key).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


@lru_cache
def _checker(key: str) -> TypeAdapter[Any]:
    return TypeAdapter(_KINDS[key][0] | None)


def _unknown_ids(content: Mapping[str, Any], key: str, num_tokens: int | None) -> Any:
    """Return a key's value where none of its ids is a token of the network."""
    value: Any = content.get(key)
    ids: list[int] = value if isinstance(value, list) else [] if value is None else [value]
    if num_tokens is None or not ids or any(each < num_tokens for each in ids):
        return None
    return value
