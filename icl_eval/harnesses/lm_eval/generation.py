"""What a task of the harness asks of a completion: `generation_kwargs`, read as its own models read them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from icl_eval.errors import ConfigError
from icl_eval.formatting import format_value

_ONLY_FOR_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p")
"""Options that have no effect on greedy search."""
_DEFAULT_MAX_GEN_TOKS = 256


@dataclass(frozen=True)
class Generation:
    """When a completion ends."""

    until: tuple[str, ...]
    """The strings that end it, in the order of the task, then the tokenizer's end-of-sequence token."""
    max_gen_toks: int

    def cut(self, text: str) -> str:
        """Return a text up to each of the strings, one after the other."""
        for stop in self.until:
            text = text.partition(stop)[0]
        return text


def read_generation(given: Mapping[str, Any], end_of_sequence: str | None) -> Generation:
    """Return what a request's options say about its completion.

    Args:
        given: The options of the request.
        end_of_sequence: The text of the tokenizer's end-of-sequence token; None if it has none.

    Raises:
        ConfigError: If they ask for something other than greedy search.
    """
    from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

    options = dict(normalize_gen_kwargs(dict(given), _DEFAULT_MAX_GEN_TOKS))
    until = handle_stop_sequences(options.pop("until"), end_of_sequence)
    max_gen_toks = options.pop("max_gen_toks")
    if options.pop("do_sample"):
        raise _refuse(given, ("do_sample", "temperature"), "samples, and icl_eval decodes greedily")
    if options.get("num_beams") == 1:
        del options["num_beams"]
    for name in _ONLY_FOR_SAMPLING:
        options.pop(name, None)
    if options:
        raise _refuse(given, tuple(options), "is none of until, max_gen_toks, do_sample=false")
    if max_gen_toks < 1:
        raise ConfigError(f"generation_kwargs: max_gen_toks={max_gen_toks} must be 1 or more")
    return Generation(tuple(filter(None, until)), max_gen_toks)


def _refuse(given: Mapping[str, Any], names: tuple[str, ...], reason: str) -> ConfigError:
    shown = " ".join(f"{name}={format_value(given[name])}" for name in names if name in given)
    return ConfigError(f"generation_kwargs: {shown} {reason}; run this task with --model hf")
