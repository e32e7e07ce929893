"""Remarks on a report: warnings that a reader of its scores should know."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from icl_eval.formatting import count_noun
from icl_eval.runs.behaviour import ControlOutcome
from icl_eval.runs.reports import Counts, Report, RunInfo, TaskResult

if TYPE_CHECKING:
    from icl_eval.analysis.comparison import Difference


def remarks(report: Report) -> Iterator[str]:
    """Yield a sentence for each deviation from the request, each problem that affects a score, and each control."""
    for name, result in report.results.items():
        yield from _remark_on_task(name, result)
        if result.control is not None:
            yield from _describe_control(f"{name}: control={report.run.control}", result.control)
    if report.run.decoding["batch_invariant"] is False:
        yield _explain_dependence(report.run)


def _remark_on_task(name: str, result: TaskResult) -> Iterator[str]:
    yield from _explain_errors(name, result)
    shots = result.counts.shots_effective
    fewer = sum(count for number, count in shots.items() if int(number) < result.num_fewshot)
    if fewer:
        yield f"{name}: {fewer} of {result.n} prompts fit fewer than {result.num_fewshot} demonstrations"
    for metric, count in result.counts.unparsed.items():
        if count:
            sought = "number" if metric.startswith("numeric_") else "match"
            yield f"{name}: {metric} found no {sought} in {count} of {result.n} predictions"
    if result.counts.empty >= 0.9 * result.n:
        yield f"{name}: {result.counts.empty} of {result.n} predictions are empty{_reason(result.counts)}"
    cut, completions = (result.counts.finish_reasons.get("length", 0), sum(result.counts.finish_reasons.values()))
    if cut > completions / 4:
        yield f"{name}: {cut} of {completions} completions were cut off at max_new_tokens"


def _describe_control(where: str, outcome: ControlOutcome) -> Iterator[str]:
    """Yield what is left of the demonstrations, and how many outputs follow what they show instead."""
    if outcome.dose is not None:
        yield f"{where}: {outcome.dose.share:.0%} of the targets shown are right"
    if outcome.follows is not None:
        followed = round(outcome.follows.share * outcome.follows.n)
        yield f"{where}: {followed} of {outcome.follows.n} outputs follow the mapping shown"


def has_clusters(result: "TaskResult | Difference") -> bool:
    """Return whether errors are over clusters of questions; not if each question is a cluster of its own."""
    return result.num_clusters is not None and result.num_clusters < result.n


def name_units(num_clusters: int | None) -> str:
    """Return what an interval is over: its questions, or their clusters."""
    return "questions" if num_clusters is None else count_noun(num_clusters, "cluster")


def describe_draw(run: RunInfo) -> str:
    """Return a sentence about what the intervals of a run leave out; an empty string if nothing was drawn by seed."""
    if not run.one_draw:
        return ""
    return "scores of one draw of demonstrations: intervals are over questions (over draws, too: experiment=draws)"


def _explain_errors(name: str, result: TaskResult) -> Iterator[str]:
    """Yield a sentence if questions are in clusters, and one for each score that is smoothing alone."""
    if result.num_clusters == 1 < result.n:
        yield (
            f"{name}: all {result.n} questions are of one cluster, so no error can be estimated; with limit, draw them "
            "at random: limit_seed=0"
        )
    elif has_clusters(result):
        yield f"{name}: errors and intervals are over {result.num_clusters} clusters of {result.n} questions"
    for metric, score in result.metrics.items():
        if score.smoothed:
            longest = score.signature.rpartition("|ngram:")[2] if "|ngram:" in score.signature else "4"
            yield (
                f"{name}: {metric} is smoothing alone and has no interval: no prediction has a {longest}-gram of its "
                "reference"
            )


def _explain_dependence(run: RunInfo) -> str:
    """Return a sentence that says why completions can depend on the batch, and what to do about it."""
    if "quantization" in run.loading:
        return "quantized weights: completions can depend on batch_size; use batch_size=1 to avoid this"
    return f"{run.decoding['dtype']}: completions can depend on batch_size; use float32 to avoid this"


def _reason(counts: Counts) -> str:
    """Return the probable reason for empty predictions, and what to try."""
    if not counts.stopped_empty:
        return "; inspect the completions: the template or the postprocessing may not suit the model"
    stop, stopped = max(counts.stopped_empty.items(), key=lambda item: item[1])
    return (
        f"; {stopped} completions ended at the stop string {stop!r} before any text: try decoding.stop=[] with "
        "postprocessing=first_line, or postprocessing=extract if the model reasons before it answers"
    )
