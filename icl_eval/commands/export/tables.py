r"""Convert a table to Markdown, LaTeX and CSV, escaping the special characters of each format.

| task | metric       | score |        \begin{tabular}{llr}            task,metric,score
|:-----|:-------------|------:|        \toprule                        qa,exact_match,0.453125
| qa   | exact\_match | 0.453 |        task & metric & score \\ …
"""

import csv
import io
import re
from collections.abc import Callable

from icl_eval.analysis.tables import PlainTable, TableValue
from icl_eval.formatting import format_score, join_lines

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}", "[": "{[}", "]": "{]}", "*": "{*}",
    "±": r"$\pm$", "×": r"$\times$", "↓": r"$\downarrow$", "−": "$-$",
} | {character: f"\\{character}" for character in "&%$#_"}  # fmt: skip
_MARKDOWN = {character: f"\\{character}" for character in "\\`*_[]<>|~&$"}


def to_markdown(table: PlainTable) -> str:
    """Return a table in pipe syntax, padded so that the source is readable too."""
    lines = [[_escape(column, _MARKDOWN) for column in table.columns], *_format_rows(table, _MARKDOWN, "–")]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    layout = list(zip(widths, table.numeric, strict=True))
    rules = ["-" * (width - 1) + ":" if right else ":" + "-" * (width - 1) for width, right in layout]
    padded = [
        [cell.rjust(width) if right else cell.ljust(width) for cell, (width, right) in zip(line, layout, strict=True)]
        for line in lines
    ]
    padded.insert(1, rules)
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)


def to_latex(table: PlainTable) -> str:
    """Return a `tabular` environment that uses the booktabs package, which the document has to load."""
    head = [_escape(column, _LATEX) for column in table.columns]
    alignment = "".join("r" if right else "l" for right in table.numeric)
    lines = [r"% \usepackage{booktabs,textcomp}", rf"\begin{{tabular}}{{{alignment}}}", r"\toprule"]
    lines += [" & ".join(head) + r" \\", r"\midrule"]
    lines += [" & ".join(row) + r" \\" for row in _format_rows(table, _LATEX, "--")]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def to_csv(table: PlainTable) -> str:
    """Return a table as CSV (RFC 4180, but with Unix line endings), with numbers at full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([[_disarm(cell) for cell in row] for row in (table.columns, *table.rows)])
    return text.getvalue()


def printable(text: str) -> str:
    """Return a string on one line, without control characters."""
    return join_lines("".join(character if character.isprintable() else " " for character in text))


FORMATS: dict[str, Callable[[PlainTable], str]] = {"md": to_markdown, "tex": to_latex, "csv": to_csv}
"""Converters by file name extension."""


def _format_rows(table: PlainTable, escapes: dict[str, str], missing: str) -> list[list[str]]:
    return [[_format_cell(cell, escapes, missing) for cell in row] for row in table.rows]


def _format_cell(cell: TableValue, escapes: dict[str, str], missing: str) -> str:
    if cell is None:
        return missing
    if isinstance(cell, str):
        return _escape(cell, escapes)
    return str(cell) if isinstance(cell, int) else format_score(cell)


def _escape(text: str, escapes: dict[str, str]) -> str:
    return "".join(escapes.get(character, character) for character in printable(text))


def _disarm(cell: TableValue) -> str:
    """Return a cell as a string, with an apostrophe before anything a spreadsheet would evaluate as a formula."""
    if isinstance(cell, str):
        is_formula = cell[:1] in ("=", "+", "-", "@", "\t", "\r") and not re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", cell)
        return f"'{cell}" if is_formula else cell
    return "" if cell is None else repr(cell)
