"""Render results as Markdown tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.floor import Rates
from benchmarks.rounds import Result
from benchmarks.workloads import Workload

_REFERENCE = "one by one"
"""The end of the name of the reference system, whose answers count as right."""
_HEADER = (
    "| system | seconds | range | ms a question | times icl_eval | same text as one by one | others' CPU |\n"
    "|---|---:|---:|---:|---:|---:|---:|"
)


@dataclass(frozen=True)
class Outcome:
    """The results of one workload."""

    workload: Workload
    results: Sequence[Result]
    """The results of all systems; the first one is icl_eval's."""
    rates: Rates
    floor: float
    """The minimum time, in seconds."""


def render_machine(facts: Mapping[str, str]) -> str:
    """Return the facts about the machine as a Markdown list."""
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def render_outcome(outcome: Outcome) -> str:
    """Return a workload's table, with a row for each system."""
    workload, ours = outcome.workload, outcome.results[0]
    lengths = [prompt.num_tokens for prompt in workload.prompts]
    generated = sum(answer.num_tokens or 0 for answer in ours.answers)
    mode = f"{generated} tokens generated" if workload.max_new_tokens else "answers chosen by their likelihood"
    about = f"{workload.model.name}, prompts of {min(lengths)} to {max(lengths)} tokens, {mode}."
    floor = (
        f"Floor {outcome.floor:.2f} s, at {outcome.rates.flops / 1e9:.0f} GFLOP/s and "
        f"{outcome.rates.bytes_read / 1e9:.1f} GB/s; icl_eval takes {ours.median_seconds / outcome.floor:.1f} "
        "times that."
    )
    rows = [_row(result, outcome) for result in outcome.results]
    scaled = any(result.num_questions < len(lengths) for result in outcome.results)
    note = (
        ["", "\\* measured on the first questions only, their number in brackets; scaled by count."] if scaled else []
    )
    return "\n".join(
        [f"### {workload.name}, {len(lengths)} questions", "", f"{about} {floor}", "", _HEADER, *rows, *note]
    )


def _row(result: Result, outcome: Outcome) -> str:
    total = len(outcome.workload.prompts)
    name = result.system if result.num_questions == total else f"{result.system} \\* ({result.num_questions})"
    reference = next((other for other in outcome.results if other.system.endswith(_REFERENCE)), None)
    foreign = [share for share in result.foreign if share is not None]
    cells = (
        name,
        f"{result.median_seconds:.2f}",
        f"{min(result.seconds):.2f}–{max(result.seconds):.2f}",
        f"{1000 * result.median_seconds / total:.0f}",
        f"{result.median_seconds / outcome.results[0].median_seconds:.2f}",
        _agreement(result, reference),
        f"{max(foreign):.0%}" if foreign else "unknown",
    )
    return f"| {' | '.join(cells)} |"


def _agreement(result: Result, reference: Result | None) -> str:
    if reference is None:
        return "not compared"
    if result is reference:
        return "reference"
    rows = min(len(result.answers), len(reference.answers))
    return f"{result.agreement(reference):.3f} of {rows}"
