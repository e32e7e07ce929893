"""The command `icl-eval plan`: prints what a study of so many draws and questions would find."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from icl_eval.analysis.pilots import Pilot, read_pilot
from icl_eval.analysis.planning import (
    ANY_NUMBER,
    Costs,
    Goal,
    Mix,
    compute_power,
    compute_power_of_flips,
    count_questions_of_flips,
    describe_mix,
    find_best,
    find_cheapest,
)
from icl_eval.commands.compare import read_runs
from icl_eval.config.schema import PlanConfig
from icl_eval.errors import ConfigError
from icl_eval.formatting import count_noun, format_score
from icl_eval.reporting.output import ignore_closed_output
from icl_eval.reporting.terminal import open_console

_MAX_NUMBER = 1_000_000


def print_plan(config: PlanConfig) -> None:
    """Print the standard error, the smallest detectable difference and the power of draws and questions.

    Raises:
        ConfigError: If an option is out of range or has no effect, or there is neither a pilot nor a share of flips.
        DataError: If the pilot cannot be read, or its runs are not draws of one or two conditions.
    """
    goal = _build_goal(config)
    console = open_console()
    if config.flips is not None:
        _require_no_pilot(config)
        with ignore_closed_output():
            _print_flips(console, config, goal)
        return
    if not config.pilot:
        raise ConfigError("plan: needs a pilot over seeds (icl-eval plan SWEEP), or flips=… for a guess without one")
    pilot = read_pilot(read_runs([Path(folder) for folder in config.pilot]), config.score)
    budgets = [
        _require_budget("budget_tokens", config.budget_tokens, pilot.tokens, "tokens"),
        _require_budget("budget_minutes", config.budget_minutes, pilot.minutes, "minutes"),
    ]
    with ignore_closed_output():
        _print_pilot(console, pilot)
        if not any(pilot.components.parts(1, 1)):
            console.print("nothing varies in the pilot, so it says nothing about errors", style="yellow")
            return
        console.print(_grid(pilot, goal, config.draws, config.questions))
        _print_limit(console, pilot, goal)
        _print_cheapest(console, pilot, goal)
        for budget in budgets:
            if budget is not None:
                _print_best(console, pilot, goal, *budget)


def _build_goal(config: PlanConfig) -> Goal:
    _require("difference", config.difference, config.difference > 0, "more than 0")
    for key, value in (("power", config.power), ("alpha", config.alpha)):
        _require(key, value, 0 < value < 1, "between 0 and 1")
    _require("tests", config.tests, config.tests >= 1, "1 or more")
    for key, numbers in (("draws", config.draws), ("questions", config.questions)):
        for number in numbers:
            _require(key, number, 2 <= number <= _MAX_NUMBER, f"2 to {_MAX_NUMBER:,}")
    level = config.alpha / config.tests
    _require("power", config.power, config.power > level, f"more than alpha ({level:g})")
    return Goal(config.difference, config.power, level)


def _require(key: str, value: float, holds: bool, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"{key}={value}: must be {allowed}")


def _require_no_pilot(config: PlanConfig) -> None:
    for key in ("score", "budget_tokens", "budget_minutes"):
        if getattr(config, key) is not None:
            raise ConfigError(f"{key}={getattr(config, key)}: has no effect with flips")
    if config.pilot:
        raise ConfigError(f"flips={config.flips}: has no effect with a pilot, which shows how often answers flip")
    flips = config.flips or 0.0
    _require("flips", flips, config.difference < flips <= 1, f"more than difference={config.difference}, and at most 1")


def _require_budget(key: str, budget: float | None, costs: Costs | None, unit: str) -> tuple[float, Costs, str] | None:
    if budget is None:
        return None
    _require(key, budget, budget > 0, "more than 0")
    if costs is None:
        raise ConfigError(f"{key}={budget}: no run of the pilot says its {unit}")
    return budget, costs, unit


def _print_pilot(console: Console, pilot: Pilot) -> None:
    names = [Path(name).name for name in pilot.conditions]
    what = f"score {format_score(pilot.mean)}"
    if len(names) == 2:
        what = f"difference {format_score(pilot.mean)} of {names[1]} from {names[0]}"
    console.print(
        f"pilot: {pilot.task} {pilot.metric}, {count_noun(pilot.num_draws, 'draw')} × "
        f"{count_noun(pilot.num_questions, pilot.unit)}: {what}"
    )
    low, high = (end**0.5 for end in pilot.draws_interval)
    found = pilot.components
    console.print(
        f"standard deviations: draws {found.draws**0.5:.3g} (95 % {low:.2g} to {high:.2g}), {pilot.unit}s "
        f"{found.questions**0.5:.3g}, both together {found.residual**0.5:.3g}"
    )


def _grid(pilot: Pilot, goal: Goal, draws: Sequence[int], questions: Sequence[int]) -> Table:
    against = "another condition on the same draws" if len(pilot.conditions) == 2 else "a known value"
    table = Table(
        title=f"smallest difference from {against} that is found with power {goal.power:g}, and the power for "
        f"{goal.difference:g}, at level {goal.level:.3g}",
        title_justify="left",
    )
    for column in ("draws", f"{pilot.unit}s", "± stderr", "smallest difference", "power", "tokens", "minutes"):
        table.add_column(column, justify="right")
    for num_draws in draws:
        for row, number in enumerate(questions):
            mix = describe_mix(pilot.components, goal, num_draws, number)
            table.add_row(*_cells(mix, pilot), end_section=row == len(questions) - 1)
    return table


def _cells(mix: Mix, pilot: Pilot) -> list[str]:
    costs = [
        "" if each is None else form(each.total(mix.draws, mix.questions))
        for each, form in ((pilot.tokens, _format_tokens), (pilot.minutes, _format_minutes))
    ]
    return [str(mix.draws), f"{mix.questions:,}", *_findings(mix), *costs]


def _findings(mix: Mix) -> list[str]:
    return [f"{mix.stderr:.3g}", f"{mix.smallest_difference:.3g}", f"{mix.power:.0%}"]


def _format_tokens(number: float) -> str:
    return f"{number:,.0f}"


def _format_minutes(number: float) -> str:
    return f"{number:,.1f}" if number >= 0.1 else f"{number:.1g}"


def _print_limit(console: Console, pilot: Pilot, goal: Goal) -> None:
    """Say what more questions, and more draws, cannot buy."""
    of_draws, *others = pilot.components.parts(pilot.num_draws, pilot.num_questions)
    total = of_draws + sum(others)
    limit = describe_mix(pilot.components, goal, pilot.num_draws, ANY_NUMBER)
    console.print(
        f"{of_draws / total:.0%} of the pilot's squared error is due to draws, which more {pilot.unit}s do not remove: "
        f"with {pilot.num_draws} draws and any number of {pilot.unit}s, power {limit.power:.0%}, smallest difference "
        f"{limit.smallest_difference:.3g}"
    )


def _print_cheapest(console: Console, pilot: Pilot, goal: Goal) -> None:
    costs, unit = (pilot.tokens, "tokens") if pilot.tokens else (Costs(0.0, 1.0), "prompts")
    mix = find_cheapest(pilot.components, goal, costs)
    if mix is None:
        console.print(f"no mix of up to 100 draws finds {goal.difference:g} with power {goal.power:g}", style="yellow")
        return
    console.print(f"cheapest for power {goal.power:g}: {_describe(mix, costs, unit, pilot.unit)}")
    most = pilot.draws_interval[1]
    worst = compute_power(replace(pilot.components, draws=most), goal.difference, goal.level, mix.draws, mix.questions)
    console.print(
        f"if draws vary as much as the pilot allows (standard deviation {most**0.5:.2g}), its power is {worst:.0%}"
    )


def _print_best(console: Console, pilot: Pilot, goal: Goal, budget: float, costs: Costs, unit: str) -> None:
    mix = find_best(pilot.components, goal, costs, budget)
    if mix is None:
        console.print(f"{budget:g} {unit} do not suffice for two draws of two questions", style="yellow")
        return
    console.print(f"best for {budget:,g} {unit}: {_describe(mix, costs, unit, pilot.unit)}")


def _describe(mix: Mix, costs: Costs, unit: str, of: str) -> str:
    stderr, smallest, power = _findings(mix)
    form = _format_minutes if unit == "minutes" else _format_tokens
    price = form(costs.total(mix.draws, mix.questions))
    return (
        f"{mix.draws} draws × {mix.questions:,} {of}s ({price} {unit}): ± {stderr}, "
        f"smallest difference {smallest}, power {power}"
    )


def _print_flips(console: Console, config: PlanConfig, goal: Goal) -> None:
    flips = config.flips or 0.0
    console.print(
        f"one draw, {flips:g} of the questions flip: power for a difference of {goal.difference:g}, at level "
        f"{goal.level:.3g}"
    )
    table = Table()
    for column in ("questions", "power"):
        table.add_column(column, justify="right")
    for number in config.questions:
        table.add_row(f"{number:,}", f"{compute_power_of_flips(goal, flips, number):.0%}")
    console.print(table)
    needed = count_questions_of_flips(goal, flips)
    console.print(f"questions for power {goal.power:g}: {needed:,}")
    console.print(
        "this is about the prompts of one draw: what another draw would change, a pilot over seeds shows",
        style="yellow",
    )
