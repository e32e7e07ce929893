"""Tables of influence: what each demonstration adds, and how outputs agree with demonstrations."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from icl_eval.analysis.influence import Effect, InfluenceAnalysis
from icl_eval.runs.behaviour import Agreement, Behaviour

_MAX_WIDTH = 24


def influence_table(analyses: Sequence[InfluenceAnalysis]) -> Table:
    """Return a row for each demonstration, with a column for what it adds to each measure."""
    measures = list(
        dict.fromkeys(name for found in analyses for shown in found.demonstrations for name in shown.effects)
    )
    table = Table(
        title="influence: how much better a score is with a demonstration than without it (above zero it helps, also "
        "where lower scores are better), 95 % interval, and how many questions it helps and hurts",
        title_justify="left",
    )
    for column in ("task", "demonstration", "target"):
        table.add_column(column, no_wrap=column == "demonstration")  # an id cut short cannot be looked up
    for name in measures:
        table.add_column(name, justify="right")
        table.add_column("helps / hurts", justify="right")
    for found in analyses:
        for row, shown in enumerate(found.demonstrations):
            cells = [text for name in measures for text in _effect_cells(shown.effects.get(name))]
            target = "" if shown.target is None else shown.target
            last = row == len(found.demonstrations) - 1
            table.add_row(_where(found) if row == 0 else "", shown.id, _cut(target), *cells, end_section=last)
    return table


def behaviour_table(analyses: Sequence[InfluenceAnalysis]) -> Table:
    """Return a row for each task: how often outputs are what demonstrations show, and how often that is right."""
    table = Table(
        title="outputs that are a demonstration's target, and in brackets how often that is a right answer",
        title_justify="left",
    )
    table.add_column("task")
    for column in ("any demonstration's", "the most frequent", "the last"):
        table.add_column(column, justify="right")
    for found in analyses:
        if found.behaviour is not None:
            table.add_row(_where(found), *map(_share, _agreements(found.behaviour)))
    return table


def _effect_cells(effect: Effect | None) -> tuple[str, str]:
    if effect is None:
        return "", ""
    interval = "" if effect.ci95 is None else f" ({effect.ci95[0]:+.3f} to {effect.ci95[1]:+.3f})"
    return f"{effect.mean:+.3f}{interval}", f"{len(effect.helped)} / {len(effect.hurt)}"


def _agreements(behaviour: Behaviour) -> Iterator[Agreement | None]:
    yield behaviour.copied
    yield behaviour.majority
    yield behaviour.last


def _share(agreement: Agreement | None) -> str:
    return "" if agreement is None else f"{agreement.output:.0%} ({agreement.truth:.0%}) of {agreement.n}"


def _where(found: InfluenceAnalysis) -> str:
    return " ".join([found.task, *(f"{key}={value}" for key, value in found.conditions.items())])


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_WIDTH else f"{line[: _MAX_WIDTH - 1]}…"
