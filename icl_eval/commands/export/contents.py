"""Contents: which tables a run and a sweep have."""

from collections.abc import Iterator, Mapping, Sequence

from icl_eval.analysis import ShotCurve, VarianceAnalysis
from icl_eval.analysis.influence import InfluenceAnalysis
from icl_eval.analysis.sweeps import Sweep
from icl_eval.commands.export.tables import Cell, PaperTable
from icl_eval.formatting import short
from icl_eval.reporting.pages.sweep_page import score_columns
from icl_eval.runs.cells import label_cells
from icl_eval.runs.reports import MetricResult, Report, TaskResult

_SCORE = ("task", "n", "metric", "score", "stderr", "ci95 low", "ci95 high")


def run_tables(report: Report) -> list[PaperTable]:
    """Return a run's scores, and the recipe behind each."""
    signatures = tuple(
        (task, metric, found.signature)
        for task, result in report.results.items()
        for metric, found in result.metrics.items()
    )
    return [
        PaperTable("scores", _SCORE, tuple(_score_rows(report.results))),
        PaperTable("signatures", ("task", "metric", "signature"), signatures),
    ]


def sweep_tables(sweep: Sweep) -> list[PaperTable]:
    """Return a sweep's scores, one a row and one cell a row, and what was found in them together."""
    labels = label_cells(sweep.cells)
    scores = [
        (label, *row)
        for label, cell in zip(labels, sweep.cells, strict=True)
        for row in _score_rows(cell.results or {})
    ]
    tables = [PaperTable("scores", ("cell", *_SCORE), tuple(scores)), _cell_table(sweep, labels)]
    if sweep.analysis.shot_curves:
        tables.append(_curve_table(sweep.analysis.shot_curves))
    if sweep.analysis.spreads:
        tables.append(_variance_table(sweep.analysis.spreads))
    if sweep.analysis.influence:
        tables.append(_influence_table(sweep.analysis.influence))
    return tables


def _score_rows(results: Mapping[str, TaskResult]) -> Iterator[tuple[Cell, ...]]:
    for task, result in results.items():
        for metric, found in result.metrics.items():
            yield task, result.n, metric, found.score, found.stderr, *(found.ci95 or (None, None))


def _cell_table(sweep: Sweep, labels: Sequence[str]) -> PaperTable:
    columns = score_columns(sweep.cells)
    heads = [f"{column.task} {column.metric}{'' if column.higher_is_better else ' ↓'}" for column in columns]
    rows = [
        (label, *("failed" if cell.error else _estimate(cell.score(column.task, column.metric)) for column in columns))
        for label, cell in zip(labels, sweep.cells, strict=True)
    ]
    return PaperTable("cells", ("cell", *heads), tuple(rows))


def _estimate(found: MetricResult | None) -> str | None:
    if found is None:
        return None
    return short(found.score) + ("" if found.stderr is None else f" ± {found.stderr:.2g}")


def _curve_table(curves: Sequence[ShotCurve]) -> PaperTable:
    conditions = _conditions(curves)
    rows = []
    for curve in curves:
        for point in curve.points:
            scores = sorted(point.scores.values(), reverse=not curve.higher_is_better)
            found = (point.num_fewshot, len(scores), point.mean, *(point.ci95 or (None, None)), scores[0], scores[-1])
            rows.append((*_identity(curve, conditions), *found, point.test_set_stderr))
    numbers = ("demonstrations", "draws", "mean", "ci95 low", "ci95 high", "worst draw", "best draw", "test set stderr")
    return PaperTable("shot_curves", ("task", "metric", *conditions, *numbers), tuple(rows))


def _variance_table(analyses: Sequence[VarianceAnalysis]) -> PaperTable:
    conditions = _conditions(analyses)
    rows = [
        (
            *_identity(found, conditions),
            " × ".join(component.factors),
            component.variance**0.5,
            component.share,
            component.p_value,
        )
        for found in analyses
        for component in found.components
    ]
    return PaperTable("variance", ("task", "metric", *conditions, "component", "stdev", "share", "p"), tuple(rows))


def _influence_table(analyses: Sequence[InfluenceAnalysis]) -> PaperTable:
    conditions = list(dict.fromkeys(key for found in analyses for key in found.conditions))
    rows: list[tuple[Cell, ...]] = []
    for found in analyses:
        for demonstration in found.demonstrations:
            for measure, effect in demonstration.effects.items():
                identity = (found.task, *(found.conditions.get(key) for key in conditions), demonstration.id, measure)
                counts = (len(effect.helped), len(effect.hurt))
                rows.append((*identity, effect.n, effect.mean, *(effect.ci95 or (None, None)), *counts))
    numbers = ("n", "mean effect", "ci95 low", "ci95 high", "helped", "hurt")
    return PaperTable("influence", ("task", *conditions, "demonstration", "measure", *numbers), tuple(rows))


def _conditions(found: Sequence[ShotCurve | VarianceAnalysis]) -> list[str]:
    return list(dict.fromkeys(key for one in found for key in one.conditions))


def _identity(found: ShotCurve | VarianceAnalysis, conditions: Sequence[str]) -> tuple[Cell, ...]:
    return found.task, found.metric, *(found.conditions.get(key) for key in conditions)
