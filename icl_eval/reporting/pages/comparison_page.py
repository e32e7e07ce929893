"""Write the page of a comparison, `compare.html`: differences with intervals, and the questions behind them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from icl_eval.analysis.comparison import Comparison, Difference
from icl_eval.reporting.pages.answers import AnswerBlocks
from icl_eval.reporting.pages.rendering import render_page, write_page
from icl_eval.reporting.pages.scales import Scale, nice_scale
from icl_eval.reporting.remarks import has_clusters, name_units
from icl_eval.runs.folders import Run


@dataclass(frozen=True)
class DifferenceRow:
    """A row of the table of differences."""

    run: str
    difference: Difference
    scale: Scale
    """Scale that covers zero and all differences in the same metric."""

    @property
    def sample(self) -> str:
        """What the interval is over, such as `draws and questions`."""
        units = name_units(self.difference.num_clusters if has_clusters(self.difference) else None)
        return units if self.difference.draws == 1 else f"draws and {units}"


def write_comparison_page(comparison: Comparison, runs: Sequence[Run], path: Path) -> None:
    """Write the page of a comparison.

    Args:
        comparison: The comparison of the runs.
        runs: All runs that were compared.
        path: The file to write.

    Raises:
        DataError: When a run's records are missing or do not match its report.
    """
    names = name_runs([run.folder for run in runs])
    labels = {str(run.folder): name for run, name in zip(runs, names, strict=True)}
    labels = {name: labels.get(name, Path(name).name) for name in (comparison.baseline, *comparison.runs)}
    rows = [
        DifferenceRow(labels[difference.run], difference, _scale(comparison.differences, difference.metric))
        for difference in comparison.differences
    ]
    page = render_page(
        "comparison.html.j2",
        comparison=comparison,
        baseline=labels[comparison.baseline],
        rows=rows,
        answers=AnswerBlocks(dict(zip(names, runs, strict=True))),
    )
    write_page(page, path)


def name_runs(folders: Sequence[Path]) -> list[str]:
    """Return the display name of each run: the name of its folder, or the whole path if several share the name."""
    names = [folder.name for folder in folders]
    return [name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders, strict=True)]


def _scale(differences: Sequence[Difference], metric: str) -> Scale:
    same = [difference for difference in differences if difference.metric == metric]
    return nice_scale([0.0, *(end for each in same for end in (each.difference, *(each.ci95 or ())))])
