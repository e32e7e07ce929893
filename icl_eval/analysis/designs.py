"""Experimental designs: which options vary in a sweep, and which of its cells form a group.

Options fall into three kinds, which each analysis treats in its own way:

- drawn: seeds. Their values carry no meaning, so cells that differ only in seeds are repetitions.
- incidental: wording and order. They are chosen, but a finding should not depend on the choice.
- conditions: all other options (model, number of demonstrations, control …). They are the subject of the study.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from icl_eval.formatting import count_noun, format_options
from icl_eval.metrics.measurements import Measurement
from icl_eval.runs.folders import Run

_TEMPLATE = "template"
_ORDER = "order"
_ORDER_SEED = "order.seed"
_SELECTION_SEEDS = ("demonstrations.seed", "seed")
_SEEDS_OF_DEMONSTRATIONS = (*_SELECTION_SEEDS, _ORDER_SEED, "control.seed")


@dataclass(frozen=True)
class SweepCell:
    """One metric of one task in one cell of a sweep."""

    options: Mapping[str, str]
    """The overrides that vary between cells of the sweep, by key."""
    measurement: Measurement
    has_demonstrations: bool = True
    """Whether its prompts show demonstrations; without them, seeds of demonstrations change nothing."""


@dataclass(frozen=True)
class CellGroup:
    """Cells that differ only in some options."""

    conditions: Mapping[str, str]
    """The values of all other options that vary in the sweep."""
    where: str
    """The task and the conditions, for messages."""
    options: tuple[str, ...]
    """The options that may differ between the cells."""
    cells: tuple[SweepCell, ...]
    """The cells that set all of `options`. Sweeps that share a folder may set different ones."""
    gap: str | None
    """A sentence about the cells that were left out because they do not set all of `options`; None if there are
    none."""


def is_drawn(option: str) -> bool:
    """Return whether an option is a seed."""
    return option == "seed" or option.endswith(".seed")


def is_incidental(option: str) -> bool:
    """Return whether an option is a seed, an order, or part of the wording."""
    return is_drawn(option) or option == _ORDER or is_wording(option)


def is_wording(option: str) -> bool:
    """Return whether an option is the template or a part of it."""
    return option == _TEMPLATE or option.startswith(f"{_TEMPLATE}.")


def group_runs(
    runs: Sequence[Run], options: Sequence[Mapping[str, str]], may_differ: Callable[[str], bool]
) -> Iterator[tuple[Mapping[str, str], list[Run]]]:
    """Yield groups of runs that differ only in some options, with their shared options.

    Args:
        runs: Finished runs, such as the cells of a sweep.
        options: For each run, the options that distinguish it.
        may_differ: Whether an option may differ within a group.
    """
    groups: defaultdict[tuple[tuple[str, str], ...], list[Run]] = defaultdict(list)
    for run, own in zip(runs, options, strict=True):
        groups[tuple((key, value) for key, value in own.items() if not may_differ(key))].append(run)
    for conditions, members in groups.items():
        yield dict(conditions), members


def nesting(options: Collection[str]) -> tuple[str, str] | None:
    """Return the option that is drawn anew within each draw of another one, and that other one; None if there is none.

    The second random order of one draw of demonstrations is unrelated to the second order of another draw, because
    the demonstrations differ.
    """
    hosts = [option for option in _SELECTION_SEEDS if option in options]
    return (_ORDER_SEED, hosts[0]) if _ORDER_SEED in options and hosts else None


def merge_unseeded(cells: Sequence[SweepCell]) -> list[SweepCell]:
    """Return the cells without repetitions of cells that show no demonstrations.

    Such cells are the same whatever the seeds of demonstrations, which are dropped from their options.

    Args:
        cells: Cells with the same task and metric.
    """
    merged: dict[tuple[tuple[str, str], ...], SweepCell] = {}
    for cell in cells:
        dropped = () if cell.has_demonstrations else _SEEDS_OF_DEMONSTRATIONS
        options = {key: value for key, value in cell.options.items() if key not in dropped}
        merged.setdefault(tuple(options.items()), replace(cell, options=options))
    return list(merged.values())


def choose_draw(cells: Sequence[SweepCell]) -> str | None:
    """Return the seed whose values are independent draws: that of demonstrations if it varies; None if no seed does.

    Orders and samples are drawn within a draw of demonstrations, so they are not independent repetitions of it.

    Args:
        cells: Cells that differ only in seeds and set the same ones.
    """
    seeds = rank_seeds(key for cell in cells for key in cell.options if is_drawn(key))
    return next((seed for seed in seeds if len({cell.options[seed] for cell in cells}) > 1), None)


def rank_seeds(seeds: Iterable[str]) -> list[str]:
    """Return seeds, each once, with those of the selection of demonstrations first."""
    known = list(dict.fromkeys(seeds))
    return sorted(
        known, key=lambda seed: (_SEEDS_OF_DEMONSTRATIONS.index(seed) if seed in _SEEDS_OF_DEMONSTRATIONS else 9, seed)
    )


def split(cells: Sequence[SweepCell], is_inside: Callable[[str], bool]) -> list[CellGroup]:
    """Return groups of cells that differ only in some options.

    Args:
        cells: Cells with the same task and metric.
        is_inside: Returns whether an option may differ within a group.
    """
    groups: defaultdict[tuple[tuple[str, str], ...], list[SweepCell]] = defaultdict(list)
    for cell in cells:
        outside = tuple((key, value) for key, value in cell.options.items() if not is_inside(key))
        groups[outside].append(cell)
    return [_group(dict(outside), members, is_inside) for outside, members in groups.items()]


def _group(conditions: Mapping[str, str], members: Sequence[SweepCell], is_inside: Callable[[str], bool]) -> CellGroup:
    options = dict.fromkeys(key for cell in members for key in cell.options if is_inside(key))
    whole = tuple(cell for cell in members if all(key in cell.options for key in options))
    where = f"{members[0].measurement.task} {format_options(conditions)}".rstrip()
    gap = None
    if len(whole) < len(members):
        missing = [key for key in options if any(key not in cell.options for cell in members)]
        left_out = len(members) - len(whole)
        gap = (
            f"{left_out} of {count_noun(len(members), 'cell')} left out because they do not set {' and '.join(missing)}"
        )
    return CellGroup(conditions, where, tuple(options), whole, gap)
