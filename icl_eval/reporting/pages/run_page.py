"""Write the page of a run, `report.html`: its scores, and every question behind them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from icl_eval.reporting.pages.packing import BlockList, is_large, pack_record
from icl_eval.reporting.pages.rendering import render_page, write_page
from icl_eval.reporting.pages.scales import Scale, metric_scale
from icl_eval.reporting.remarks import describe_draw, has_clusters, name_units, remarks
from icl_eval.runs.folders import PAGE_FILE, Run, is_cell, read_run
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
    write_page(render_run_page(run, RecordBlocks(run), is_cell(folder)), folder / PAGE_FILE)


def render_run_page(run: Run, records: "RecordBlocks", is_cell: bool) -> Iterator[str]:
    """Yield the pieces of a run's page.

    Args:
        run: The finished run.
        records: Its records.
        is_cell: Whether the run is a cell of a sweep, whose page lies in the folder above.
    """
    report = run.report
    rows = _score_rows(report)
    return render_page(
        "run.html.j2",
        report=report,
        scores=rows,
        draw=describe_draw(report.run),
        remarks=list(remarks(report)),
        signatures={f"{row.task} {row.metric}": row.result.signature for row in rows},
        behaviours=[(task, result.behaviour) for task, result in report.results.items() if result.behaviour],
        has_clusters=any(map(has_clusters, report.results.values())),
        is_cell=is_cell,
        records=records,
    )


class RecordBlocks:
    """The records of a run as elements of its page."""

    def __init__(self, run: Run):
        """Find the records of a run without reading them.

        Raises:
            DataError: When a file is missing.
        """
        self._run = run
        self._compress = is_large(map(run.records_path, run.report.results))
        self.tasks: list[dict[str, Any]] = []
        """What `run.js` needs to know to read the elements; complete once all of them were yielded."""

    def __iter__(self) -> Iterator[Markup]:
        """Yield the elements, reading one record at a time.

        Raises:
            DataError: When a line is not a record, or records are missing.
        """
        for number, (task, result) in enumerate(self._run.report.results.items()):
            blocks = BlockList(f"records-{number}", self._compress, pack_record)
            clusters, reasons = ClusterMeans(list(result.metrics)), set()
            is_clustered = has_clusters(result)
            for record in self._run.stream_records(task):
                yield from blocks.add(record)
                if is_clustered:
                    clusters.add(record)
                reasons.add(record.finish_reason)
            yield from blocks.finish()
            self.tasks.append(
                {
                    "name": task,
                    "metrics": list(result.metrics),
                    "blocks": blocks.blocks,
                    "reasons": sorted(reasons),
                    "clusters": clusters.rows,
                }
            )


class ClusterMeans:
    """The mean scores of the questions of each cluster."""

    def __init__(self, metrics: Sequence[str]):
        """Begin without a question."""
        self._metrics = metrics
        self._sizes: Counter[str] = Counter()
        self._known: dict[str, list[tuple[int, float]]] = {}

    def add(self, record: Record) -> None:
        """Add the scores of a question, if it has a cluster."""
        if record.cluster is None:
            return
        self._sizes[record.cluster] += 1
        sums = self._known.setdefault(record.cluster, [(0, 0.0) for _ in self._metrics])
        for place, metric in enumerate(self._metrics):
            score = record.metrics.get(metric)
            if score is not None:
                count, total = sums[place]
                sums[place] = (count + 1, total + score)

    @property
    def rows(self) -> list[list[Any]]:
        """The name, the number of questions and the means of each cluster, in order of first appearance.

        A mean is over the questions that have the score, and None if none has it.
        """
        return [
            [name, self._sizes[name], *(total / count if count else None for count, total in sums)]
            for name, sums in self._known.items()
        ]


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
