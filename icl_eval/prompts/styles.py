r"""Styles: one wording in many forms, drawn from a small grammar, to see how much of a score is due to the form.

    separator   ::=  "\n\n" | "\n" | "\n\n\n" | "\n---\n" | "\n###\n"        between demonstrations
    line        ::=  "\n" | " " | "\n\n" | " | " | " ; "                     between a question and its answer
    colon       ::=  ": " | ":\n" | " - " | " :: " | " = " | ") "            between a label and its text
    case        ::=  as it is | lower case | UPPER CASE                      of the labels
    names       ::=  the task's own | Q, A | Input, Output | Query, Reply    the labels
    instruction ::=  as it is | "Task: " before it | none

Every combination is a form that a person might have chosen, and none says anything about the task. The idea is that of
Sclar et al. (2024, https://arxiv.org/abs/2310.11324). A separator begins with a line break since that is what ends a
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
    """One form. A template's texts see it as `style`."""

    separator: str
    line: str
    colon: str
    case: str
    names: str
    opening: str

    def label(self, side: str, own: str) -> str:
        """Return a label with its colon; nothing for a side that has no label.

        Args:
            side: `question` or `answer`.
            own: The task's label for it.
        """
        if not own:
            return ""
        return _CASES[self.case](_NAMES[self.names].get(side, own)) + self.colon

    def instruction(self, own: str) -> str:
        """Return the task's instruction as this form has it."""
        return _INSTRUCTIONS[self.opening].format(own)


def draw_style(variant: int) -> Style:
    """Return one of all forms: 0 is the one of the template `labelled`, no two numbers have the same.

    Raises:
        ConfigError: When there is no form of that number.
    """
    styles = _all_styles()
    if not 0 <= variant < len(styles):
        raise ConfigError(f"template.variant={variant}: must be between 0 and {len(styles) - 1}")
    return styles[variant]


@cache
def _all_styles() -> tuple[Style, ...]:
    """Return all forms in an order that is as good as random and the same everywhere."""
    combined = (Style(*parts) for parts in product(_SEPARATORS, _LINES, _COLONS, _CASES, _NAMES, _INSTRUCTIONS))
    # Single letters are in upper case as they are.
    first, *others = (style for style in combined if (style.names, style.case) != ("letters", "upper"))
    return first, *sorted(others, key=lambda style: hashlib.sha256(repr(astuple(style)).encode()).digest())
