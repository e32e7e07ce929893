"""Postprocessing: from the raw completion to the prediction that is scored."""

import re
from dataclasses import dataclass, field
from typing import Protocol

from icl_eval.errors import ConfigError
from icl_eval.targets import Family

POSTPROCESSORS = Family(__name__, {"extract": "Extract", "first_line": "FirstLine", "strip": "Strip"})


class Postprocessor(Protocol):
    """Turns a completion's text into a prediction."""

    @property
    def name(self) -> str:
        """What it is called in a configuration."""

    def __call__(self, text: str) -> str:
        """Return the prediction."""


@dataclass(frozen=True)
class Strip:
    """The completion without white space around it."""

    name = "strip"

    def __call__(self, text: str) -> str:
        """Return the stripped text."""
        return text.strip()


@dataclass(frozen=True)
class FirstLine:
    """The first line that is not blank."""

    name = "first_line"

    def __call__(self, text: str) -> str:
        """Return the line, stripped; "" where there is none."""
        return text.strip().split("\n", 1)[0].strip()


@dataclass(frozen=True)
class Extract:
    """What a regular expression finds first (its first group, where it has one), else the whole completion."""

    pattern: str
    _compiled: re.Pattern[str] = field(init=False, repr=False)
    name = "extract"

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "_compiled", re.compile(self.pattern))
        except (re.error, OverflowError, RecursionError) as error:
            raise ConfigError(f"pattern: {self.pattern!r}: {error}") from None

    def __call__(self, text: str) -> str:
        """Return the match, stripped."""
        match = self._compiled.search(text)
        if match is None:
            return text.strip()
        return (match.group(1 if self._compiled.groups else 0) or "").strip()
