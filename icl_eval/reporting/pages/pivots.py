"""Arrange the scores of a sweep as tables of two options: draws down, numbers of demonstrations across.

    control=none                       num_fewshot=1        2        4
    mean of 5 draws                            0.221    0.508    0.790     with its interval over draws and questions
    demonstrations.seed=0                      0.250    0.510    0.833
                        1                      0.208    0.510    0.812

Where no seed varies, another option goes down the table; where only one option varies, the table has a single row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from icl_eval.analysis.designs import is_drawn, is_incidental, rank_seeds
from icl_eval.analysis.draws import ScoreOverDraws
from icl_eval.analysis.sweeps import Sweep
from icl_eval.formatting import count_noun, format_options
from icl_eval.reporting.pages.scales import Scale, metric_scale
from icl_eval.reporting.remarks import has_clusters, name_units
from icl_eval.runs.cells import Cell
from icl_eval.runs.options import find_varying_options
from icl_eval.runs.reports import MetricResult, TaskResult

_SHOTS = "num_fewshot"


@dataclass(frozen=True)
class PivotScore:
    """The score at one place of a table, of one cell or of several."""

    score: float
    ci95: tuple[float, float] | None
    over: str
    """What the interval is over, such as `questions` or `draws and questions`."""
    cells: tuple[str, ...]
    """Names of the folders of its cells."""
    draws: tuple[float, ...] = ()
    """Scores of the individual draws, if it is a mean over draws."""
    new_draw: tuple[float, float] | None = None
    """95 % interval for the score of one new draw on the same questions."""


@dataclass(frozen=True)
class PivotRow:
    """A row of a table."""

    label: str
    """The value of the option that goes down; empty if there is a single row."""
    scores: tuple[PivotScore | None, ...]
    """One score a column; None where no cell has one."""


@dataclass(frozen=True)
class PivotGroup:
    """The rows that share all options which are neither down nor across."""

    label: str
    summary: PivotRow | None
    """Means over the draws that are the rows; None if the rows are not draws."""
    rows: tuple[PivotRow, ...]

    @property
    def has_new_draws(self) -> bool:
        """Whether a column has an interval for a new draw."""
        return bool(self.summary and any(score and score.new_draw for score in self.summary.scores))

    @property
    def shown(self) -> tuple[PivotRow, ...]:
        """The rows that a figure shows: the summary if there is one, otherwise all."""
        return (self.summary,) if self.summary else self.rows


@dataclass(frozen=True)
class Pivot:
    """One metric of one task over all cells that have it."""

    task: str
    metric: str
    higher_is_better: bool
    n: int
    scale: Scale
    down: str | None
    """The option whose values are the rows; None if there is a single row."""
    across: str | None
    """The option whose values are the columns; None if there is a single column."""
    columns: tuple[str, ...]
    groups: tuple[PivotGroup, ...]
    averaged: tuple[str, ...]
    """Seeds over which the numbers in the rows are means."""

    @property
    def shown(self) -> list[tuple[str, PivotScore]]:
        """The scores that a figure shows, with the options that tell them apart."""
        return [
            (self._name(group, row, column), score)
            for group in self.groups
            for row in group.shown
            for column, score in zip(self.columns, row.scores, strict=True)
            if score is not None
        ]

    def _name(self, group: PivotGroup, row: PivotRow, column: str) -> str:
        down = f"{self.down}={row.label}" if self.down and row is not group.summary else ""
        across = f"{self.across}={column}" if self.across else ""
        return " ".join(filter(None, (group.label, down, across))) or row.label

    @property
    def num_rows(self) -> int:
        """The number of rows of the table, without headings."""
        return sum(len(group.rows) for group in self.groups)

    @property
    def kinds(self) -> list[str]:
        """What the intervals of `shown` are over, each once."""
        return list(dict.fromkeys(score.over for _, score in self.shown if score.ci95))

    @property
    def key(self) -> list[str]:
        """What the marks of a figure mean, and which uncertainty each of them shows."""
        scores = [score for _, score in self.shown]
        return [
            *(
                ["large points: means over draws", "small points: single draws"]
                if any(each.draws for each in scores)
                else []
            ),
            *([f"thick bars: 95 % over {' or over '.join(self.kinds)}"] if self.kinds else []),
            *(["thin bars: 95 % for a new draw on these questions"] if any(each.new_draw for each in scores) else []),
        ]


@dataclass(frozen=True)
class _Member:
    """A finished cell with the options in which it differs from others."""

    cell: Cell
    options: Mapping[str, str]
    result: TaskResult
    score: MetricResult


def build_pivots(sweep: Sweep) -> list[Pivot]:
    """Return a table for each task and metric of which several cells with distinct options have a score."""
    finished = [cell for cell in sweep.cells if cell.results]
    options = find_varying_options([cell.overrides for cell in finished])
    members: dict[tuple[str, str], list[_Member]] = {}
    for cell, own in zip(finished, options, strict=True):
        for task, result in (cell.results or {}).items():
            for metric, score in result.metrics.items():
                members.setdefault((task, metric), []).append(_Member(cell, own, result, score))
    pivots = []
    for (task, metric), found in members.items():
        draws = [each for each in sweep.analysis.draws if (each.task, each.metric) == (task, metric)]
        levels = {key: values for key, values in _find_levels(found).items() if len(values) > 1}
        if levels:
            pivots.append(_build_pivot(task, metric, found, draws, levels))
    return pivots


def choose_axes(options: Sequence[str]) -> tuple[str | None, str | None]:
    """Return the option that goes down and the one that goes across a table.

    The seed of the demonstrations goes down, or another seed, or else the second of the other options. The number of
    demonstrations goes across, or else the first option that is neither a seed nor wording.

    Args:
        options: The options that vary.
    """
    others = [option for option in options if not is_drawn(option)]
    others.sort(key=lambda option: (option != _SHOTS, is_incidental(option)))
    rows = [*rank_seeds(filter(is_drawn, options)), *others[1:]]
    return (rows[0] if rows else None), (others[0] if others else None)


def _find_levels(members: Sequence[_Member]) -> dict[str, list[str]]:
    """Return the values of each option, in the order of the cells."""
    keys = dict.fromkeys(key for member in members for key in member.options)
    return {
        key: list(dict.fromkeys(member.options[key] for member in members if key in member.options)) for key in keys
    }


def _build_pivot(
    task: str,
    metric: str,
    members: Sequence[_Member],
    draws: Sequence[ScoreOverDraws],
    levels: Mapping[str, Sequence[str]],
) -> Pivot:
    down, across = choose_axes(list(levels))
    # a second seed, such as that of the order, is averaged within the first
    outside = [key for key in levels if key not in (down, across) and not is_drawn(key)]
    columns = tuple(_sort_numbers(levels[across])) if across else ("",)
    grouped: dict[str, list[_Member]] = {}
    for member in members:
        if across is None or across in member.options:
            label = format_options({key: member.options[key] for key in outside if key in member.options})
            grouped.setdefault(label, []).append(member)
    groups = tuple(_build_group(label, found, draws, down, (across, columns)) for label, found in grouped.items())
    scores = [score for group in groups for row in (group.summary, *group.rows) if row for score in row.scores if score]
    ends = [end for score in scores for end in (score.score, *(score.ci95 or ()))]
    return Pivot(
        task=task,
        metric=metric,
        higher_is_better=members[0].score.higher_is_better,
        n=max(member.result.n for member in members),
        scale=metric_scale(metric, ends, (end for score in scores for end in score.new_draw or ())),
        down=down,
        across=across,
        columns=columns,
        groups=groups,
        averaged=tuple(key for key in levels if key != down and is_drawn(key)),
    )


def _sort_numbers(values: Sequence[str]) -> list[str]:
    """Return values in ascending order if all are whole numbers, and otherwise as they are."""
    return sorted(values, key=int) if all(value.isdecimal() for value in values) else list(values)


def _build_group(
    label: str,
    members: Sequence[_Member],
    draws: Sequence[ScoreOverDraws],
    down: str | None,
    across: tuple[str | None, tuple[str, ...]],
) -> PivotGroup:
    def row(name: str, found: Sequence[_Member], means: Sequence[ScoreOverDraws] = ()) -> PivotRow:
        key, columns = across
        placed = [[member for member in found if key is None or member.options[key] == column] for column in columns]
        return PivotRow(name, tuple(_score(place, means) if place else None for place in placed))

    by_level: dict[str, list[_Member]] = {}
    for member in members:
        by_level.setdefault(member.options.get(down, "") if down else "", []).append(member)
    rows = tuple(row(level, found) for level, found in by_level.items())
    is_over_draws = down is not None and is_drawn(down) and len(by_level) > 1
    summary = row(f"mean of {count_noun(len(by_level), 'draw')}", members, draws) if is_over_draws else None
    return PivotGroup(label, summary, rows)


def _score(members: Sequence[_Member], means: Sequence[ScoreOverDraws]) -> PivotScore:
    """Return the score of cells that share a place: their mean over draws, their only score, or the mean of several."""
    names = tuple(member.cell.cell for member in members)
    conditions = {key: value for key, value in members[0].options.items() if not is_drawn(key)}
    for each in means:
        if each.conditions == conditions:  # cells of another sweep in the folder may set fewer options
            draws = tuple(each.scores.values())
            return PivotScore(each.mean, each.ci95, "draws and questions", names, draws, each.new_draw)
    scores = [member.score.score for member in members]
    first = members[0]
    # without demonstrations, all draws are the same prompt
    if len(members) == 1 or (first.result.num_fewshot == 0 and len(set(scores)) == 1):
        return PivotScore(scores[0], first.score.ci95, _name_units(first.result), names)
    return PivotScore(sum(scores) / len(scores), None, "", names)


def _name_units(result: TaskResult) -> str:
    return name_units(result.num_clusters if has_clusters(result) else None)
