"""Describe the search for a completion, as a configuration sets it; the rest of `icl_eval.decoding` does the work.

| search     | each token is                                                | effect of batch and order |
|------------|--------------------------------------------------------------|---------------------------|
| `greedy`   | the most likely one                                          | none                      |
| `sample`   | sampled, keyed by seed, question id, sample and position     | none                      |
| `generate` | chosen by transformers' `generate` with the given options    | none: one prompt per call |
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from icl_eval.errors import ConfigError
from icl_eval.targets import Family, Seed, build

SEARCHES = Family(__name__, {"greedy": "Greedy", "sample": "Sample", "generate": "Generate"})

OWN_OPTIONS = (
    *("max_length", "max_new_tokens", "max_time", "stop_strings", "num_return_sequences", "return_dict_in_generate"),
    *("output_attentions", "output_hidden_states", "output_logits", "output_scores", "transformers_version"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "watermarking_config"),
)
"""Options of a generation config that a run sets with its own keys, or that have no effect here."""


_TYPED_ESCAPES = re.compile(r"\s*(\\[nrt])(?:\\[nrt]|\s)*")
"""White space that contains an escape typed as a backslash and a letter."""
_LEAST_TEMPERATURE, _MOST_TEMPERATURE = 1e-30, 1e30
"""Logits divided by less come close to the largest float32, 3.4e38; divided by more, they are all alike."""
_MOST_BEAMS = 1024
_MOST_SAMPLES = 1000
_MOST_OF_OPTION = 10_000_000
"""Upper bound of numeric options: no vocabulary and no text is larger."""
_OTHER_CUTS = ("min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_h")
"""Options of `generate` that cut a distribution and that `Sample` has not; a model's generation config may set them."""
_SWITCHES = (
    *("do_sample", "early_stopping", "use_cache", "renormalize_logits", "remove_invalid_values", "token_healing"),
    *("disable_compile", "use_mtp"),
)
"""The options whose value is true or false."""
_WITHOUT_EFFECT = {
    **dict.fromkeys(
        ("constraints", "force_words_ids", "dola_layers", "penalty_alpha", "num_beam_groups", "diversity_penalty"),
        "transformers has moved this search to its hub and would download code from there",
    ),
    **dict.fromkeys(
        (
            *("assistant_confidence_threshold", "assistant_early_exit", "assistant_ensemble_weight", "is_assistant"),
            *("assistant_lookbehind", "num_assistant_tokens", "num_assistant_tokens_schedule", "target_lookbehind"),
            "speculation_type",
        ),
        "has no effect without an assistant model, and a run has none",
    ),
    "low_memory": "transformers accepts it, but ignores it",
}


class Search(Protocol):
    """The rule by which the tokens of a completion are chosen."""

    name: str
    shares_prefixes: bool
    """Whether prefixes that prompts have in common are computed once."""

    @property
    def num_samples(self) -> int:
        """The number of completions of each prompt."""

    @property
    def stop(self) -> Sequence[str] | None:
        """Strings that end a completion; None for those of the task."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Options of `generate` that override the model's generation config."""

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The options that determine the completions, for the report."""


@dataclass(frozen=True)
class Greedy:
    """The most likely token at every step."""

    stop: list[str] | None = None
    name = "greedy"
    shares_prefixes = True
    num_samples = 1

    def __post_init__(self) -> None:
        check_stop(self.stop)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Options of `generate` that turn sampling and beams off."""
        return {"do_sample": False, "num_beams": 1}

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Empty, since greedy search has no options."""
        return {}


@dataclass(frozen=True)
class Sample:
    """A sample at every step, from the model's distribution or from one changed by temperature, top-k and top-p."""

    stop: list[str] | None = None
    temperature: float = 1.0
    """Divisor of the logits: below 1, likely tokens become more likely; above 1, less likely."""
    top_k: int | None = None
    """Sample from this many of the most likely tokens (Fan et al., 2018); None for all tokens."""
    top_p: float | None = None
    """Sample from the smallest set of tokens with this total probability (Holtzman et al., 2020); None for all."""
    seed: Seed = 0
    """A sampled token depends on the seed, the question's id, the number of the sample and the token's position, and on
    nothing else."""
    num_samples: int = 1
    """The number of completions of each prompt; the first ones are those of a smaller number."""
    name = "sample"
    shares_prefixes = True

    def __post_init__(self) -> None:
        check_stop(self.stop)
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"temperature={self.temperature}: must be more than 0 (greedy: decoding=greedy)")
        if self.temperature > _MOST_TEMPERATURE:
            raise ConfigError(f"temperature={self.temperature}: must be {_MOST_TEMPERATURE} or less")
        if self.temperature < _LEAST_TEMPERATURE:
            least = f"must be {_LEAST_TEMPERATURE} or more, so that the divided logits fit into float32"
            raise ConfigError(f"temperature={self.temperature}: {least} (greedy: decoding=greedy)")
        if self.top_k is not None and not 1 <= self.top_k <= _MOST_OF_OPTION:
            raise ConfigError(f"top_k={self.top_k}: must be from 1 to {_MOST_OF_OPTION}, or null for all tokens")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p}: must be more than 0 and at most 1, or null for all tokens")
        if not 1 <= self.num_samples <= _MOST_SAMPLES:
            raise ConfigError(f"num_samples={self.num_samples}: must be from 1 to {_MOST_SAMPLES}")

    @property
    def settings(self) -> Mapping[str, Any]:
        """The same search as options of `generate`."""
        cuts = {"temperature": self.temperature, "top_k": self.top_k or 0, "top_p": self.top_p or 1.0}
        return {"do_sample": True, "num_beams": 1, **cuts, **dict.fromkeys(_OTHER_CUTS)}

    @property
    def recipe(self) -> Mapping[str, Any]:
        """All options except the stop strings; a single sample goes without saying, as in older reports."""
        options = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p, "seed": self.seed}
        return options if self.num_samples == 1 else {**options, "num_samples": self.num_samples}


@dataclass(frozen=True)
class Generate:
    """Any search of transformers' `generate`: beam search, penalties, prompt lookup."""

    options: dict[str, Any] = field(default_factory=dict)
    """Options of `generate`, by name; None keeps the model's value."""
    stop: list[str] | None = None
    seed: Seed = 0
    """Random seed, used if the options turn `do_sample` on."""
    name = "generate"
    shares_prefixes = False
    num_samples = 1

    def __post_init__(self) -> None:
        check_stop(self.stop)
        known = known_options()
        for option, value in self.options.items():
            if option not in known:
                own = " that can be set here (a run sets it itself)" if option in OWN_OPTIONS else ""
                raise ConfigError(f"options.{option}: not an option of generate{own}; known: {', '.join(known)}")
            if value is not None:
                _check_option(option, value)
        beams = self.settings.get("num_beams", 1)
        if not isinstance(beams, int) or not 1 <= beams <= _MOST_BEAMS:
            raise ConfigError(f"options.num_beams={beams}: must be a whole number from 1 to {_MOST_BEAMS}")
        if beams > 1 and "prompt_lookup_num_tokens" in self.settings:
            raise ConfigError("options.prompt_lookup_num_tokens: has no effect with beam search; set num_beams to null")
        if "max_matching_ngram_size" in self.settings and "prompt_lookup_num_tokens" not in self.settings:
            raise ConfigError("options.max_matching_ngram_size: has no effect without prompt_lookup_num_tokens")
        _check_together(self.settings)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The options that are set."""
        return {name: value for name, value in self.options.items() if value is not None}

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The options that are set, and the seed."""
        return {**self.settings, "seed": self.seed}


def known_options() -> list[str]:
    """Return the names of the options of `generate` that a configuration can set."""
    from transformers import GenerationConfig  # takes half a second to import, but does not import torch

    return sorted(name for name in GenerationConfig().to_dict() if name[0] != "_" and name not in OWN_OPTIONS)


def _check_option(option: str, value: Any) -> None:
    """Refuse an option that has no effect, and a value that is not a number or is too large."""
    if option in _WITHOUT_EFFECT:
        raise ConfigError(f"options.{option}: {_WITHOUT_EFFECT[option]}")
    if isinstance(value, bool) and option not in _SWITCHES:
        raise ConfigError(f"options.{option}={str(value).lower()}: must be a number")
    if isinstance(value, int | float) and not abs(value) <= _MOST_OF_OPTION:  # also true for NaN
        raise ConfigError(f"options.{option}={value}: must be a number of {_MOST_OF_OPTION} or less")


def _check_together(options: Mapping[str, Any]) -> None:
    """Refuse options that are out of range or that another option would disable, according to transformers."""
    from transformers import GenerationConfig

    from icl_eval.models.quiet import quiet_transformers

    try:
        with quiet_transformers(reports=False):
            GenerationConfig(**options).validate(strict=True)
    except (TypeError, ValueError) as error:
        reason = str(error).split("\n- ")[-1].splitlines()[0]
        raise ConfigError(f"options: {reason}") from None


def check_stop(stop: Sequence[str] | None) -> None:
    """Raise ConfigError if a stop string is empty, or contains an escape sequence that was not interpreted."""
    if "" in (stop or ()):
        raise ConfigError("stop: an empty stop string would end every completion before it begins")
    for typed in filter(None, map(_TYPED_ESCAPES.fullmatch, stop or ())):
        raise ConfigError(
            f"stop: {typed[1]} is a backslash and a letter here, so that it never matches; between double quotes, "
            r'\n is a line break and \t a tab: ["\n"]'
        )


def build_search(config: Mapping[str, Any]) -> Search:
    """Build the search from the options of `decoding`; raises ConfigError."""
    search: Search = build(config, "decoding", SEARCHES)
    return search


def require_one_sample(search: Search) -> None:
    """Raise ConfigError if a search has several completions of a prompt, where only one is shown."""
    if search.num_samples > 1:
        raise ConfigError(
            f"decoding.num_samples={search.num_samples}: must be 1, except in an evaluation, which counts the votes of "
            "several completions"
        )
