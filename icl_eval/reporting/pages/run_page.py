"""Write the page of a run, `report.html`: its scores, and every question behind them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_eval.reporting.pages.packing import embed_records
from icl_eval.reporting.pages.rendering import render_page, write_page
from icl_eval.reporting.pages.scales import Scale, metric_scale
from icl_eval.reporting.remarks import describe_draw, has_clusters, name_units, remarks
from icl_eval.runs.folders import is_cell, read_run
from icl_eval.runs.records import Record
from icl_eval.runs.reports import MetricResult, Report


@dataclass(frozen=True)
class ScoreRow:
    """A row of the table of scores."""

    task: str
    n: int
    metric: str
    result: MetricResult
    scale: Scale
    num_clusters: int | None
    """Number of clusters of the questions; None if questions are independent."""
    is_one_draw: bool
    """Whether questions share one draw of demonstrations."""

    @property
    def units(self) -> str:
        """What the interval is over."""
        return name_units(self.num_clusters)


def write_run_page(folder: Path) -> None:
    """Write the `report.html` of a finished run from the files in its folder.

    Raises:
        DataError: When records are missing, or a line is not a record.
    """
    run = read_run(folder)
    records = {task: run.records(task) for task in run.report.results}
    write_page(render_run_page(run.report, records, is_cell(folder)), folder / "report.html")


def render_run_page(report: Report, records: Mapping[str, Sequence[Record]], is_cell: bool) -> str:
    """Render the page of a run.

    Args:
        report: The report of the run.
        records: The records of each task.
        is_cell: Whether the run is a cell of a sweep, whose page lies in the folder above.
    """
    tasks = [
        {
            "name": name,
            "metrics": list(result.metrics),
            "data": f"records-{number}",
            "clusters": cluster_means(records[name], list(result.metrics)) if has_clusters(result) else [],
        }
        for number, (name, result) in enumerate(report.results.items())
    ]
    rows = _score_rows(report)
    return render_page(
        "run.html.j2",
        report=report,
        scores=rows,
        draw=describe_draw(report.run),
        remarks=list(remarks(report)),
        signatures={f"{row.task} {row.metric}": row.result.signature for row in rows},
        behaviours=[(task, result.behaviour) for task, result in report.results.items() if result.behaviour],
        tasks=tasks,
        has_clusters=any(task["clusters"] for task in tasks),
        is_cell=is_cell,
        records={task["data"]: embed_records(records[str(task["name"])]) for task in tasks},
    )


def cluster_means(records: Iterable[Record], metrics: Sequence[str]) -> list[list[Any]]:
    """Return the name, the number of questions and the mean scores of each cluster, in order of first appearance.

    A mean is over the questions that have the score, and None if none has it.
    """
    clusters: dict[str, list[Record]] = {}
    for record in records:
        if record.cluster is not None:
            clusters.setdefault(record.cluster, []).append(record)
    return [
        [name, len(members), *(_mean([record.metrics.get(metric) for record in members]) for metric in metrics)]
        for name, members in clusters.items()
    ]


def _mean(scores: Iterable[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None


def _score_rows(report: Report) -> Sequence[ScoreRow]:
    rows = []
    for name, n, metrics in report.rows:
        task = report.results.get(name)
        for metric, score in metrics.items():
            scale = metric_scale(metric, (score.score, *(score.ci95 or ())), whole=True)
            is_one_draw = report.run.one_draw and (task is None or task.num_fewshot > 0)
            num_clusters = task.num_clusters if task and has_clusters(task) else None
            rows.append(ScoreRow(name, n, metric, score, scale, num_clusters, is_one_draw))
    return rows
