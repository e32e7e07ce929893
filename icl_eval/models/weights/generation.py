"""Validate a model's generation config and report a wrong value before anything is decoded.

transformers checks few of the keys, and it ignores a file that is not valid JSON, so that no token would end a
completion.
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
_COUNT = (NonNegativeInt, "a whole number, 0 or more")
_SOME = (PositiveInt, "a whole number, 1 or more")
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
"""Ids that must belong to the network's vocabulary, since otherwise no text would end or the first step would fail."""


def check_generation_config(folder: Path, num_tokens: int | None) -> None:
    """Refuse wrong values in a folder's generation config, given the size of the network's vocabulary.

    Older models have these keys in config.json. Raises ModelUnavailableError.
    """
    file = folder / "generation_config.json"
    if not file.exists():
        file = folder / "config.json"
    content = read_json_object(file)
    for key, (_, allowed) in _KINDS.items():
        if not _is_kind(key, content.get(key)):
            raise ModelUnavailableError(f"{file} is damaged: {key}={content[key]!r} must be {allowed}")
    for key in _NEEDED_IDS:
        strange = _unknown_ids(content, key, num_tokens)
        if strange is not None:
            raise ModelUnavailableError(
                f"{file} is damaged: {key}={strange} must be one of the network's {num_tokens} token ids (0 or more)"
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
    """Return a key's value if none of its ids is in the network's vocabulary, else None."""
    value: Any = content.get(key)
    ids: list[int] = value if isinstance(value, list) else [] if value is None else [value]
    if num_tokens is None or not ids or any(each < num_tokens for each in ids):
        return None
    return value
