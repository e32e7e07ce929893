"""The tables that are exported for a run and for a sweep."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from icl_eval.analysis.sweeps import Sweep
from icl_eval.analysis.tables import PlainTable, TableValue
from icl_eval.formatting import format_score, mark_direction
from icl_eval.runs.cells import group_scores, label_cells
from icl_eval.runs.reports import MetricResult, Report

_SCORE = ("task", "n", "metric", "score", "stderr", "ci95 low", "ci95 high")


def run_tables(report: Report) -> list[PlainTable]:
    """Return a table of the scores of a run's tasks and groups, and a table of their metric signatures."""
    signatures = tuple(
        (name, metric, score.signature) for name, _, metrics in report.rows for metric, score in metrics.items()
    )
    return [
        PlainTable("scores", _SCORE, tuple(_score_rows(report.rows))),
        PlainTable("signatures", ("task", "metric", "signature"), signatures),
    ]


def sweep_tables(sweep: Sweep) -> list[PlainTable]:
    """Return a sweep's scores in long form and with one row per cell, and the tables of its analyses."""
    labels = label_cells(sweep.cells)
    scores = [
        (label, *row)
        for label, cell in zip(labels, sweep.cells, strict=True)
        for row in _score_rows((task, result.n, result.metrics) for task, result in (cell.results or {}).items())
    ]
    return [
        PlainTable("scores", ("cell", *_SCORE), tuple(scores)),
        _cell_table(sweep, labels),
        *sweep.analysis.list_tables(),
    ]


def _score_rows(parts: Iterable[tuple[str, int, Mapping[str, MetricResult]]]) -> Iterator[tuple[TableValue, ...]]:
    for name, n, metrics in parts:
        for metric, score in metrics.items():
            yield name, n, metric, score.score, score.stderr, *(score.ci95 or (None, None))


def _cell_table(sweep: Sweep, labels: Sequence[str]) -> PlainTable:
    columns = group_scores(sweep.cells)
    heads = [
        f"{task} {metric}{mark_direction(scores[0].higher_is_better)}" for (task, metric), scores in columns.items()
    ]
    rows = [
        (label, *("failed" if cell.error else _format_score(cell.score(task, metric)) for task, metric in columns))
        for label, cell in zip(labels, sweep.cells, strict=True)
    ]
    return PlainTable("cells", ("cell", *heads), tuple(rows))


def _format_score(result: MetricResult | None) -> str | None:
    if result is None:
        return None
    return format_score(result.score) + (f" ± {result.stderr:.2g}" if result.stderr else "")
