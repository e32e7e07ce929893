"""Conditions: runs that differ in seeds alone, which are draws of one condition.

A comparison is about conditions. Where both of them saw the same draws of demonstrations, the draws are paired, so that
what a draw does to both cancels out, and what it does to one of them counts as chance.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from icl_eval.analysis.designs import is_drawn, rank_seeds
from icl_eval.errors import DataError
from icl_eval.formatting import format_options
from icl_eval.runs.folders import Run
from icl_eval.runs.options import find_varying_options

_ONLY_SPEED = ("batch_size", "prefix_cache_mb", "device")


@dataclass(frozen=True)
class Condition:
    """Runs with the same options, model and data, but for seeds."""

    name: str
    """The folder of its only run, or a path that ends in the options that set it apart."""
    runs: tuple[Run, ...]

    @property
    def has_demonstrations(self) -> bool:
        """Whether any prompt shows demonstrations, so that seeds matter."""
        return any(result.num_fewshot for result in self.runs[0].report.results.values())


@dataclass(frozen=True)
class SharedDraws:
    """The runs of two conditions, in pairs that share their draw of demonstrations."""

    draws: tuple[tuple[tuple[Run, Run], ...], ...]
    """For each draw its pairs: one, or several that differ in other seeds, such as that of the order."""
    num_unshared: int
    """Number of runs that are left out, because the other condition lacks their draw."""


def group_conditions(runs: Sequence[Run]) -> list[Condition]:
    """Return the conditions that runs belong to, in the order of their first runs.

    Where two runs of a condition have the same seeds, they are not draws, and each is a condition of its own.
    """
    groups: defaultdict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[_identify(run)].append(run)
    found: list[tuple[Run, ...]] = []
    for members in groups.values():
        seeds = {tuple(_list_seeds(run).items()) for run in members}
        found += [tuple(members)] if len(seeds) == len(members) else [(run,) for run in members]
    return [Condition(name, members) for name, members in zip(_name(found), found, strict=True)]


def list_conditions_to_compare(runs: Sequence[Run]) -> list[Condition]:
    """Return the conditions that runs belong to; if there is only one, each of its runs as a condition of its own."""
    conditions = group_conditions(runs)
    return conditions if len(conditions) > 1 else [Condition(str(run.folder), (run,)) for run in runs]


def pair_draws(baseline: Condition, other: Condition) -> SharedDraws:
    """Pair the runs of two conditions by their seeds.

    A condition without demonstrations is the same for every draw, so that its first run is paired with each. Where one
    condition has another seed besides, such as that of a random order, each of its runs of a draw is paired with those
    of the other.

    Raises:
        DataError: If the conditions have several draws and none in common.
    """
    sides = [each.runs if each.has_demonstrations else each.runs[:1] for each in (baseline, other)]
    if 1 in map(len, sides) and not (baseline.has_demonstrations and other.has_demonstrations):
        longest = max(map(len, sides))
        before, after = (runs * longest if len(runs) == 1 else runs for runs in sides)
        return SharedDraws(_group_pairs(list(zip(before, after, strict=True))), 0)
    if len(sides[0]) == len(sides[1]) == 1:
        return SharedDraws((((sides[0][0], sides[1][0]),),), 0)
    keys = _find_keys(sides)
    by_draw = [_group_by_draw(runs, keys) for runs in sides]
    shared = [draw for draw in by_draw[0] if draw in by_draw[1]]
    if not shared:
        listed = [format_options(dict(zip(keys, _draw(runs[0], keys), strict=True))) for runs in sides]
        raise DataError(
            f"{other.name}: shares no draw of demonstrations with {baseline.name} ({listed[1]} … and {listed[0]} …); "
            "run both with the same seeds"
        )
    pairs = [pair for draw in shared for pair in product(by_draw[0][draw], by_draw[1][draw])]
    num_shared = sum(len(own[draw]) for own in by_draw for draw in shared)
    return SharedDraws(_group_pairs(pairs), len(sides[0]) + len(sides[1]) - num_shared)


def _identify(run: Run) -> str:
    """Return everything that sets a run apart from others, but for its seeds."""
    options = {key: value for key, value in run.options.items() if not is_drawn(key) and key not in _ONLY_SPEED}
    report = run.report
    shown = [report.run.model, report.run.num_fewshot, report.provenance.weights, dict(report.provenance.parts)]
    return json.dumps([options, shown, dict(report.run.loading)], sort_keys=True, default=str)


def _list_seeds(run: Run) -> Mapping[str, object]:
    return {key: value for key, value in sorted(run.options.items()) if is_drawn(key)}


def _find_varying_seeds(sides: Sequence[Sequence[Run]]) -> list[str]:
    """Return the seeds that vary within a side."""
    seeds = [[_list_seeds(run) for run in runs] for runs in sides]
    known = rank_seeds(key for side in seeds for own in side for key in own)
    return [key for key in known if any(len({own.get(key) for own in side}) > 1 for side in seeds)]


def _find_keys(sides: Sequence[Sequence[Run]]) -> list[str]:
    """Return the seeds that vary within a side and that all runs of both sides have."""
    shared = set.intersection(*({*_list_seeds(run)} for runs in sides for run in runs))
    return [key for key in _find_varying_seeds(sides) if key in shared]


def _draw(run: Run, keys: Sequence[str]) -> tuple[str, ...]:
    seeds = _list_seeds(run)
    return tuple(str(seeds.get(key)) for key in keys)


def _group_by_draw(runs: Sequence[Run], keys: Sequence[str]) -> Mapping[tuple[str, ...], list[Run]]:
    groups: defaultdict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        groups[_draw(run, keys)].append(run)
    return groups


def _group_pairs(pairs: Sequence[tuple[Run, Run]]) -> tuple[tuple[tuple[Run, Run], ...], ...]:
    """Return the pairs of each draw of demonstrations together."""
    keys = _find_varying_seeds([[before for before, _ in pairs], [after for _, after in pairs]])
    by_draw: defaultdict[tuple[str, ...], list[tuple[Run, Run]]] = defaultdict(list)
    for before, after in pairs:
        by_draw[_draw(before, keys[:1]) + _draw(after, keys[:1])].append((before, after))
    return tuple(map(tuple, by_draw.values()))


def _name(conditions: Sequence[Sequence[Run]]) -> list[str]:
    """Return a name for each condition: a folder, or a folder and the options that set the condition apart."""
    varying = find_varying_options([runs[0].overrides for runs in conditions])
    names = []
    for runs, options in zip(conditions, varying, strict=True):
        own = {key: Path(value).name for key, value in options.items() if not is_drawn(key)}
        parents = {run.folder.parent for run in runs}
        several = str(min(parents) / format_options(own, ",")) if len(parents) == 1 or own else str(runs[0].folder)
        names.append(str(runs[0].folder) if len(runs) == 1 else several)
    return [
        name if names.count(name) == 1 else str(runs[0].folder) for name, runs in zip(names, conditions, strict=True)
    ]
