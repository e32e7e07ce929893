r"""Styles: many formats of one wording, drawn from a small grammar, to measure how much a score depends on format.

    separator   ::=  "\n\n" | "\n" | "\n\n\n" | "\n---\n" | "\n###\n"        between demonstrations
    line        ::=  "\n" | " " | "\n\n" | " | " | " ; "                     between a question and its answer
    colon       ::=  ": " | ":\n" | " - " | " :: " | " = " | ") "            between a label and its text
    case        ::=  as it is | lower case | UPPER CASE                      of the labels
    names       ::=  the task's own | Q, A | Input, Output | Query, Reply    the labels
    instruction ::=  as it is | "Task: " before it | none

Every combination is a plausible format, and none carries information about the task. The idea is from Sclar et al.
(2024, https://arxiv.org/abs/2310.11324). Each separator begins with a line break, because a line break ends a
completion.
"""

import hashlib
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import cache
from itertools import product

from icl_eval.errors import ConfigError

_SEPARATORS = ("\n\n", "\n", "\n\n\n", "\n---\n", "\n###\n")
_LINES = ("\n", " ", "\n\n", " | ", " ; ")
_COLONS = (": ", ":\n", " - ", " :: ", " = ", ") ")
_CASES: dict[str, Callable[[str], str]] = {"own": str, "lower": str.lower, "upper": str.upper}
_NAMES = {
    "own": {},
    "letters": {"question": "Q", "answer": "A"},
    "ports": {"question": "Input", "answer": "Output"},
    "talk": {"question": "Query", "answer": "Reply"},
}
_INSTRUCTIONS = {"own": "{}", "task": "Task: {}", "none": ""}


@dataclass(frozen=True)
class Style:
    """One format, which template strings see as `style`."""

    separator: str
    line: str
    colon: str
    case: str
    names: str
    opening: str

    def label(self, side: str, own: str) -> str:
        """Return a label with its colon; an empty string if the side has no label.

        Args:
            side: `question` or `answer`.
            own: The task's label for that side.
        """
        if not own:
            return ""
        return _CASES[self.case](_NAMES[self.names].get(side, own)) + self.colon

    def instruction(self, own: str) -> str:
        """Return the task's instruction in this format; an empty string if the task has none."""
        return _INSTRUCTIONS[self.opening].format(own) if own else ""


def draw_style(variant: int) -> Style:
    """Return the format with the given number; number 0 is the format of the template `labelled`.

    Raises:
        ConfigError: If there is no format with that number.
    """
    styles = _all_styles()
    if not 0 <= variant < len(styles):
        raise ConfigError(f"template.variant={variant}: must be between 0 and {len(styles) - 1}")
    return styles[variant]


@cache
def _all_styles() -> tuple[Style, ...]:
    """Return all distinct formats in a pseudorandom order that is the same on every machine."""
    combined = (Style(*parts) for parts in product(_SEPARATORS, _LINES, _COLONS, _CASES, _NAMES, _INSTRUCTIONS))
    # Q and A are already in upper case, so that combination would repeat a format.
    first, *others = (style for style in combined if (style.names, style.case) != ("letters", "upper"))
    return first, *sorted(others, key=lambda style: hashlib.sha256(repr(astuple(style)).encode()).digest())
