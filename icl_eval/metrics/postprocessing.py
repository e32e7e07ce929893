"""Postprocessing: extracting the scored prediction from the raw completion."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, Protocol

import regex

from icl_eval.errors import ConfigError
from icl_eval.targets import Family

POSTPROCESSORS = Family(__name__, {"extract": "Extract", "first_line": "FirstLine", "strip": "Strip"})

Selected = Literal["first", "last"]
"""Which of several matches counts."""

_MAX_SECONDS = 1.0
"""The time limit of one match."""


class Postprocessor(Protocol):
    """Extracts the prediction from a completion."""

    @property
    def name(self) -> str:
        """The name of the postprocessor in a configuration."""

    def __call__(self, text: str) -> str:
        """Return the prediction."""


@dataclass(frozen=True)
class Strip:
    """The completion without surrounding whitespace."""

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


class BoundedRegex:
    """A regular expression of a user's, with a time limit for each match: some take exponential time (`(a|aa)+$`)."""

    def __init__(self, pattern: str) -> None:
        """Compile a pattern in the syntax of Python's `re`.

        Raises:
            ValueError: If it is not a regular expression.
        """
        try:
            re.compile(pattern)  # `regex` accepts more
            self._compiled = regex.compile(pattern)
        except (re.error, regex.error, OverflowError, RecursionError) as error:
            raise ValueError(str(error)) from None
        self.pattern = pattern

    def extract(self, text: str, select: Selected = "first") -> str | None:
        """Return a match, or its first group with text if the pattern has groups; None if there is no match.

        Args:
            text: The text to search.
            select: Which match to return.

        Raises:
            ConfigError: If matching takes too long.
        """
        with self._limiting(text):
            matches = self._compiled.finditer(text, timeout=_MAX_SECONDS)
            found = list(islice(matches, 1 if select == "first" else None))
        if not found:
            return None
        match = found[-1]
        return next(filter(None, match.groups()), "") if self._compiled.groups else str(match[0])

    def remove_from(self, text: str) -> str:
        """Return a text without the matches; raises ConfigError if matching takes too long."""
        with self._limiting(text):
            return str(self._compiled.sub("", text, timeout=_MAX_SECONDS))

    @contextmanager
    def _limiting(self, text: str) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise ConfigError(
                f"the regular expression {self.pattern!r} takes more than {_MAX_SECONDS:g} s on a text of "
                f"{len(text)} characters; simplify it"
            ) from None


@dataclass(frozen=True)
class Extract:
    """A match of a regular expression, or its first group with text if it has groups."""

    pattern: str
    select: Selected = "first"
    """Which match is the prediction."""
    no_match: Literal["completion", "empty"] = "completion"
    """The prediction without a match: the whole completion or an empty string."""
    _regex: BoundedRegex = field(init=False, repr=False)
    name = "extract"

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "_regex", BoundedRegex(self.pattern))
        except ValueError as error:
            raise ConfigError(f"pattern: {self.pattern!r}: {error}") from None

    def __call__(self, text: str) -> str:
        """Return the match, or what stands for it if there is none; stripped."""
        match = self._regex.extract(text, self.select)
        if match is None:
            match = text if self.no_match == "completion" else ""
        return match.strip()
