"""Remarks on a report: warnings that a reader of its scores should know."""

from collections.abc import Iterator

from icl_eval.runs.reports import Counts, Report, RunInfo


def remarks(report: Report) -> Iterator[str]:
    """Yield a sentence for each deviation from the request and for each problem that affects a score."""
    for name, result in report.results.items():
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
    if report.run.decoding["batch_invariant"] is False:
        yield _explain_dependence(report.run)


def describe_draw(run: RunInfo) -> str:
    """Return a sentence about what the intervals of a run leave out; an empty string if nothing was drawn by seed."""
    if not run.one_draw:
        return ""
    return "scores of one draw of demonstrations: intervals are over questions (over draws, too: experiment=draws)"


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
