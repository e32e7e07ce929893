"""The command `icl-eval plan`: prints what a study of so many draws and questions would find, and writes it as JSON."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path

from rich.console import Console
from rich.table import Table

from icl_eval.analysis.pilots import Pilot, read_pilot
from icl_eval.analysis.planning import Goal
from icl_eval.analysis.studies import PlannedStudy, StudyPlan, plan_from_flips, plan_from_pilot
from icl_eval.commands.compare import read_runs
from icl_eval.commands.result_files import require_json_file, require_own
from icl_eval.config.schema import PlanConfig
from icl_eval.errors import ConfigError
from icl_eval.formatting import count_noun, format_score
from icl_eval.reporting.output import ignore_closed_output
from icl_eval.reporting.terminal import open_console, print_path
from icl_eval.runs.folders import Run
from icl_eval.runs.reports import write_json

_MAX_NUMBER = 1_000_000
_DRAWS = (2, 3, 5, 8, 12, 20)
"""The numbers of draws that are shown unless others are given."""
_LEAST_OF_FLIPS = 0.0001
"""The smallest difference of shares that is planned for: it needs up to a billion questions."""


def print_plan(config: PlanConfig) -> None:
    """Print the standard error, the smallest detectable difference and the power of draws and questions.

    They are written into `plan.json` next to the runs of the pilot, or where `output` says.

    Raises:
        ConfigError: If an option is out of range or has no effect, there is neither a pilot nor a share of flips, or
            `output` cannot be written to.
        DataError: If the pilot cannot be read, or its runs are not draws of one or two conditions.
    """
    path = require_json_file(config.output, page=False) if config.output is not None else None
    runs = read_runs([Path(folder) for folder in config.pilot]) if config.flips is None else []
    plan = plan_study(config, runs)
    if runs and path is None:
        path = runs[0].folder.parent / "plan.json"
    if path is not None:
        require_own(path, "a plan", {"goal", "studies"}, page=False)
        write_json(asdict(plan), path)
    with ignore_closed_output():
        console = open_console()
        if plan.pilot is None:
            _print_flips(console, plan)
        else:
            _print_plan(console, plan, plan.pilot, config)
        if path is not None:
            print_path(console, "plan", path)


def plan_study(config: PlanConfig, runs: Sequence[Run]) -> StudyPlan:
    """Return what studies would find.

    Args:
        config: The options of the command; its pilot and output are not read.
        runs: The runs of the pilot; empty with a guessed share of flips.

    Raises:
        ConfigError: If an option is out of range or has no effect, or there is neither a pilot nor a share of flips.
        DataError: If the runs are not draws of one or two conditions.
    """
    goal = _build_goal(config)
    if config.flips is not None:
        _check_flips(config, config.flips, runs)
        return plan_from_flips(config.flips, goal, config.questions)
    if not runs:
        raise ConfigError("plan: needs a pilot over seeds (icl-eval plan SWEEP), or flips=… for a guess without one")
    pilot = read_pilot(runs, config.score)
    budgets = {}
    for unit, budget in (("tokens", config.budget_tokens), ("minutes", config.budget_minutes)):
        if budget is not None:
            _require(f"budget_{unit}", budget, budget > 0, "more than 0")
            if getattr(pilot, unit) is None:
                raise ConfigError(f"budget_{unit}={budget}: no run of the pilot says its {unit}")
            budgets[unit] = float(budget)
    return plan_from_pilot(pilot, goal, _DRAWS if config.draws is None else config.draws, config.questions, budgets)


def _build_goal(config: PlanConfig) -> Goal:
    _require("difference", config.difference, 0 < config.difference < math.inf, "more than 0 and finite")
    for key, value in (("power", config.power), ("alpha", config.alpha)):
        _require(key, value, 0 < value < 1, "between 0 and 1")
    _require("tests", config.tests, config.tests >= 1, "1 or more")
    for key, numbers in (("draws", config.draws), ("questions", config.questions)):
        if numbers == []:
            raise ConfigError(f"{key}=[]: must be one or more numbers")
        for number in numbers or ():
            _require(key, number, 2 <= number <= _MAX_NUMBER, f"2 to {_MAX_NUMBER:,}")
    level = config.alpha / config.tests
    _require("power", config.power, config.power > level, f"more than alpha ({level:g})")
    return Goal(config.difference, config.power, level)


def _require(key: str, value: float, holds: bool, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"{key}={value}: must be {allowed}")


def _check_flips(config: PlanConfig, flips: float, runs: Sequence[Run]) -> None:
    for key in ("score", "budget_tokens", "budget_minutes"):
        if getattr(config, key) is not None:
            raise ConfigError(f"{key}={getattr(config, key)}: has no effect with flips")
    if config.draws is not None:
        raise ConfigError(f"draws={config.draws}: has no effect with flips, which plan a test of one draw")
    if config.pilot or runs:
        raise ConfigError(f"flips={flips}: has no effect with a pilot, which shows how often answers flip")
    _require(
        "difference", config.difference, config.difference >= _LEAST_OF_FLIPS, f"{_LEAST_OF_FLIPS} or more with flips"
    )
    _require("flips", flips, config.difference < flips <= 1, f"more than difference={config.difference}, and at most 1")


def _print_plan(console: Console, plan: StudyPlan, pilot: Pilot, config: PlanConfig) -> None:
    _print_pilot(console, pilot)
    if not plan.studies or plan.any_questions is None:
        console.print("nothing varies in the pilot, so it says nothing about errors", style="yellow")
        return
    console.print(_grid(plan, pilot))
    limit = plan.any_questions
    console.print(
        f"{plan.share_of_draws:.0%} of the pilot's squared error is due to draws, which more {pilot.unit}s do not "
        f"remove: with {limit.draws} draws and any number of {pilot.unit}s, power {limit.power:.0%}, smallest "
        f"difference {limit.smallest_difference:.3g}"
    )
    _print_cheapest(console, plan, pilot)
    for unit, budget in (("tokens", config.budget_tokens), ("minutes", config.budget_minutes)):
        if budget is not None:
            best = plan.best[unit]
            if best is None:
                console.print(f"{budget:,.12g} {unit} do not suffice for two draws of two questions", style="yellow")
            else:
                console.print(f"best for {budget:,.12g} {unit}: {_describe(best, unit, pilot.unit)}")


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


def _grid(plan: StudyPlan, pilot: Pilot) -> Table:
    goal = plan.goal
    against = "another condition on the same draws" if len(pilot.conditions) == 2 else "a known value"
    table = Table(
        title=f"smallest difference from {against} that is found with power {goal.power:g}, and the power for "
        f"{goal.difference:g}, at level {goal.level:.3g}",
        title_justify="left",
    )
    for column in ("draws", f"{pilot.unit}s", "± stderr", "smallest difference", "power", "tokens", "minutes"):
        table.add_column(column, justify="right")
    for each, following in zip_longest(plan.studies, plan.studies[1:]):
        costs = ("" if getattr(each, unit) is None else _format_cost(each, unit) for unit in ("tokens", "minutes"))
        last = following is not None and following.draws != each.draws
        table.add_row(str(each.draws), f"{each.questions:,}", *_findings(each), *costs, end_section=last)
    return table


def _findings(study: PlannedStudy) -> list[str]:
    return [f"{study.stderr:.3g}", f"{study.smallest_difference:.3g}", f"{study.power:.0%}"]


def _format_cost(study: PlannedStudy, unit: str) -> str:
    if unit == "prompts":
        return f"{study.draws * study.questions:,}"
    if unit == "tokens":
        return f"{study.tokens:,.0f}"
    minutes = study.minutes or 0.0
    return f"{minutes:,.1f}" if minutes >= 0.1 else f"{minutes:.1g}"


def _print_cheapest(console: Console, plan: StudyPlan, pilot: Pilot) -> None:
    goal, cheapest = plan.goal, plan.cheapest
    if cheapest is None:
        console.print(f"no mix of up to 100 draws finds {goal.difference:g} with power {goal.power:g}", style="yellow")
        return
    unit = "tokens" if pilot.tokens else "prompts"
    console.print(f"cheapest for power {goal.power:g}: {_describe(cheapest, unit, pilot.unit)}")
    console.print(
        f"if draws vary as much as the pilot allows (standard deviation {pilot.draws_interval[1] ** 0.5:.2g}), its "
        f"power is {plan.cheapest_power_at_most_variable:.0%}"
    )


def _describe(study: PlannedStudy, unit: str, of: str) -> str:
    stderr, smallest, power = _findings(study)
    return (
        f"{study.draws} draws × {study.questions:,} {of}s ({_format_cost(study, unit)} {unit}): ± {stderr}, "
        f"smallest difference {smallest}, power {power}"
    )


def _print_flips(console: Console, plan: StudyPlan) -> None:
    goal = plan.goal
    console.print(
        f"one draw, {plan.flips:g} of the questions flip: power for a difference of {goal.difference:g}, at level "
        f"{goal.level:.3g}"
    )
    table = Table()
    for column in ("questions", "power"):
        table.add_column(column, justify="right")
    for each in plan.studies:
        table.add_row(f"{each.questions:,}", f"{each.power:.0%}")
    console.print(table)
    if plan.cheapest:
        console.print(f"questions for power {goal.power:g}: {plan.cheapest.questions:,}")
    console.print(
        "this is about the prompts of one draw: what another draw would change, a pilot over seeds shows",
        style="yellow",
    )
