"""Postprocessing: extracting the scored prediction from the raw completion."""

import re
from dataclasses import dataclass, field
from typing import Protocol

from icl_eval.errors import ConfigError
from icl_eval.targets import Family

POSTPROCESSORS = Family(__name__, {"extract": "Extract", "first_line": "FirstLine", "strip": "Strip"})


class Postprocessor(Protocol):
    """Extracts the prediction from a completion."""

    @property
    def name(self) -> str:
        """The name of the postprocessor in a configuration."""

    def __call__(self, text: str) -> str:
        """Return the prediction."""


@dataclass(frozen=True)
class Strip:
    """The completion without surrounding white space."""

    name = "strip"

    def __call__(self, text: str) -> str:
        """Return the stripped completion."""
        return text.strip()


@dataclass(frozen=True)
class FirstLine:
    """The first line that is not blank."""

    name = "first_line"

    def __call__(self, text: str) -> str:
        """Return the first line that is not blank, stripped; an empty string if all lines are blank."""
        return text.strip().split("\n", 1)[0].strip()


@dataclass(frozen=True)
class Extract:
    """The first match of a regular expression (its first group if it has one), else the whole completion."""

    pattern: str
    _compiled: re.Pattern[str] = field(init=False, repr=False)
    name = "extract"

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "_compiled", re.compile(self.pattern))
        except (re.error, OverflowError, RecursionError) as error:
            raise ConfigError(f"pattern: {self.pattern!r}: {error}") from None

    def __call__(self, text: str) -> str:
        """Return the match, or the whole completion without one; stripped."""
        match = self._compiled.search(text)
        if match is None:
            return text.strip()
        return (match.group(1 if self._compiled.groups else 0) or "").strip()
