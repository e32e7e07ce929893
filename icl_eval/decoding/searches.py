"""Searches: how a completion is found, as a configuration says it; the work is done in `icl_eval.decoding`.

| search     | each token is                                              | batch and order change |
|------------|------------------------------------------------------------|------------------------|
| `greedy`   | the most likely one                                        | nothing                |
| `sample`   | drawn, by a seed, the question's id and the token's place  | nothing                |
| `generate` | whatever the library's own `generate` makes of its options | nothing: one at a time |
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from icl_eval.errors import ConfigError
from icl_eval.targets import Family

SEARCHES = Family(__name__, {"greedy": "Greedy", "sample": "Sample", "generate": "Generate"})

OWN_OPTIONS = (
    *("max_length", "max_new_tokens", "max_time", "stop_strings", "num_return_sequences", "return_dict_in_generate"),
    *("output_attentions", "output_hidden_states", "output_logits", "output_scores", "transformers_version"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "watermarking_config"),
)
"""What a generation config can hold and a run decides by keys of its own, or not at all."""


_TYPED_ESCAPES = re.compile(r"\s*(\\[nrt])(?:\\[nrt]|\s)*")
"""White space of which a part is typed as a backslash and a letter."""
_LEAST_TEMPERATURE = 1e-30
"""Logits divided by less come near the largest float32, 3.4e38."""


class Search(Protocol):
    """How a completion is found."""

    name: str
    shares_prefixes: bool
    """Whether tokens that prompts have in common are computed once."""

    @property
    def stop(self) -> Sequence[str] | None:
        """Texts that end a completion; None for the task's own."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What differs from the model's own generation config, in the words of the library's `generate`."""

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The options that decide what is found, for the report."""


@dataclass(frozen=True)
class Greedy:
    """The most likely token at every step."""

    stop: list[str] | None = None
    name = "greedy"
    shares_prefixes = True

    def __post_init__(self) -> None:
        check_stop(self.stop)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Nothing is drawn."""
        return {"do_sample": False, "num_beams": 1}

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Nothing that can be set."""
        return {}


@dataclass(frozen=True)
class Sample:
    """A draw at every step, from the model's distribution as it is or sharpened and cut."""

    stop: list[str] | None = None
    temperature: float = 1.0
    """Logits are divided by it: below 1 likely tokens become more likely, above 1 less."""
    top_k: int | None = None
    """Draw among so many of the most likely tokens (Fan et al., 2018); None for all."""
    top_p: float | None = None
    """Draw among the fewest tokens that have this probability together (Holtzman et al., 2020); None for all."""
    seed: int = 0
    """What is drawn depends on it, the question's id and the token's place, and on nothing else."""
    name = "sample"
    shares_prefixes = True

    def __post_init__(self) -> None:
        check_stop(self.stop)
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"temperature={self.temperature}: must be more than 0 (greedy: decoding=greedy)")
        if self.temperature < _LEAST_TEMPERATURE:
            least = f"must be {_LEAST_TEMPERATURE} or more, so that float32 holds the logits divided by it"
            raise ConfigError(f"temperature={self.temperature}: {least} (greedy: decoding=greedy)")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k={self.top_k}: must be 1 or more, or null for all tokens")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p}: must be more than 0 and at most 1, or null for all tokens")

    @property
    def settings(self) -> Mapping[str, Any]:
        """What `generate` would be given."""
        cuts = {"temperature": self.temperature, "top_k": self.top_k or 0, "top_p": self.top_p or 1.0}
        return {"do_sample": True, "num_beams": 1, **cuts}

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Everything but the stop strings."""
        return {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p, "seed": self.seed}


@dataclass(frozen=True)
class Generate:
    """Whatever the library's `generate` can do: beams, penalties, contrastive search."""

    options: dict[str, Any] = field(default_factory=dict)
    """Of `generate`, by name; None leaves one as the model has it."""
    stop: list[str] | None = None
    seed: int = 0
    """Of what is drawn where the options ask for `do_sample`."""
    name = "generate"
    shares_prefixes = False

    def __post_init__(self) -> None:
        check_stop(self.stop)
        known = known_options()
        for option in self.options:
            if option not in known:
                own = " (a run has its own key for that, or decides it)" if option in OWN_OPTIONS else ""
                raise ConfigError(f"options.{option}: no option of generate{own}; known: {', '.join(known)}")
        beams = self.settings.get("num_beams", 1)
        if not isinstance(beams, int) or beams < 1:
            raise ConfigError(f"options.num_beams={beams}: must be a whole number, 1 or more")
        _check_together(self.settings)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The options that are set."""
        return {name: value for name, value in self.options.items() if value is not None}

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The options that are set, and the seed where something is drawn."""
        return {**self.settings, "seed": self.seed}


def known_options() -> list[str]:
    """Return the names of the options that `generate` can be given here."""
    from transformers import GenerationConfig  # takes half a second, and no torch

    return sorted(name for name in GenerationConfig().to_dict() if name[0] != "_" and name not in OWN_OPTIONS)


def _check_together(options: Mapping[str, Any]) -> None:
    """Let the library say which options are out of range or would be passed over beside the others."""
    from transformers import GenerationConfig

    from icl_eval.models.quiet import quiet_transformers

    try:
        with quiet_transformers(reports=False):
            GenerationConfig(**options).validate(strict=True)
    except (TypeError, ValueError) as error:
        reason = str(error).split("\n- ")[-1].splitlines()[0]
        raise ConfigError(f"options: {reason}") from None


def check_stop(stop: Sequence[str] | None) -> None:
    """Raise ConfigError where a stop string would end everything, or is not what was surely meant."""
    if "" in (stop or ()):
        raise ConfigError("stop: an empty stop string would end every completion before it begins")
    for typed in filter(None, map(_TYPED_ESCAPES.fullmatch, stop or ())):
        raise ConfigError(
            f"stop: {typed[1]} is a backslash and a letter here, so that it never matches; between double quotes, "
            r'\n is a line break and \t a tab: ["\n"]'
        )
