"""The page of a comparison, `compare.html`: differences with their intervals, and the questions behind them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from icl_eval.analysis.comparison import Comparison, Difference
from icl_eval.reporting.pages.answers import gather_answers
from icl_eval.reporting.pages.rendering import render_page, write_page
from icl_eval.reporting.pages.scales import Scale, nice_scale
from icl_eval.runs.folders import Run


@dataclass(frozen=True)
class DifferenceRow:
    """A line of the table of differences."""

    run: str
    found: Difference
    scale: Scale
    """Holds zero and all differences in the same metric."""


def write_comparison_page(comparison: Comparison, runs: Sequence[Run], path: Path) -> None:
    """Write the page of a comparison.

    Args:
        comparison: Of the runs.
        runs: The baseline and the others, in the comparison's order.
        path: The file to write.

    Raises:
        DataError: When a run's records are missing or are not its report's.
    """
    names = name_runs([run.folder for run in runs])
    labels = {str(run.folder): name for run, name in zip(runs, names, strict=True)}
    rows = [
        DifferenceRow(labels[found.run], found, _scale(comparison.differences, found.metric))
        for found in comparison.differences
    ]
    html = render_page(
        "comparison.html.j2",
        comparison=comparison,
        baseline=names[0],
        rows=rows,
        answers=gather_answers(dict(zip(names, runs, strict=True))),
    )
    write_page(html, path)


def name_runs(folders: Sequence[Path]) -> list[str]:
    """Return what a reader calls each run: its folder's name, or the whole path where two have the same name."""
    names = [folder.name for folder in folders]
    return [name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders, strict=True)]


def _scale(differences: Sequence[Difference], metric: str) -> Scale:
    same = [found for found in differences if found.metric == metric]
    return nice_scale([0.0, *(end for found in same for end in (found.difference, *(found.ci95 or ())))])
