"""Write the page of a run, `report.html`: its scores, and every question behind them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_eval.reporting.pages.packing import embed_records
from icl_eval.reporting.pages.rendering import render_page, write_page
from icl_eval.reporting.pages.scales import Scale, metric_scale
from icl_eval.reporting.remarks import describe_draw, remarks
from icl_eval.runs.folders import read_run
from icl_eval.runs.reports import MetricResult, Report


@dataclass(frozen=True)
class ScoreRow:
    """A row of the table of scores."""

    task: str
    n: int
    metric: str
    result: MetricResult
    scale: Scale


def write_run_page(folder: Path) -> None:
    """Write the `report.html` of a finished run from the files in its folder.

    Raises:
        DataError: When records are missing, or a line is not a record.
    """
    run = read_run(folder)
    records = {task: embed_records(run.records(task)) for task in run.report.results}
    write_page(render_run_page(run.report, records), folder / "report.html")


def render_run_page(report: Report, records: dict[str, Any]) -> str:
    """Render the page of a run from its report and each task's records as returned by `embed_records`."""
    tasks = [
        {"name": name, "metrics": list(result.metrics), "data": f"records-{number}"}
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
        records={task["data"]: records[str(task["name"])] for task in tasks},
    )


def _score_rows(report: Report) -> Sequence[ScoreRow]:
    return [
        ScoreRow(name, n, metric, score, metric_scale(metric, (score.score, *(score.ci95 or ())), whole=True))
        for name, n, metrics in report.rows
        for metric, score in metrics.items()
    ]
