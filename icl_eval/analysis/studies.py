"""Plan a study: what each number of draws and questions would find and cost, and which are the cheapest or the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from icl_eval.analysis.pilots import Pilot
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
from icl_eval.analysis.tables import PlainTable
from icl_eval.formatting import count_noun

if TYPE_CHECKING:
    import pandas

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class PlannedStudy:
    """A study of so many draws and questions (or clusters of questions)."""

    draws: int
    questions: int
    power: float
    """The chance to find the goal's difference."""
    stderr: float | None = None
    """Standard error over draws and questions; None without a pilot."""
    smallest_difference: float | None = None
    """The smallest true difference that is found with the goal's power; None without a pilot."""
    tokens: float | None = None
    """Tokens to compute; None if the pilot does not say."""
    minutes: float | None = None
    """Minutes on the machine of the pilot; None if the pilot does not say."""


@dataclass(frozen=True, repr=False)
class StudyPlan:
    """The content of `plan.json`."""

    schema_version: int
    goal: Goal
    pilot: Pilot | None
    """None for a plan from a guessed share of flips."""
    flips: float | None
    """The guessed share of questions that only one of two systems has right."""
    studies: tuple[PlannedStudy, ...]
    """All pairs of the numbers of draws and of questions; empty if nothing varies in the pilot. Without a pilot there
    is one draw."""
    cheapest: PlannedStudy | None
    """The cheapest study with the goal's power, by tokens, else by prompts; None if there is none."""
    cheapest_power_at_most_variable: float | None = None
    """Its power if draws vary as much as the 95 % interval of their variance allows."""
    share_of_draws: float | None = None
    """The share of the pilot's squared error that is due to draws, which more questions do not remove."""
    any_questions: PlannedStudy | None = None
    """The draws of the pilot with so many questions that their error is gone."""
    best: Mapping[str, PlannedStudy | None] = field(default_factory=dict)
    """The study with the most power within each budget, by its unit (`tokens`, `minutes`); None if it allows none."""

    @property
    def table(self) -> "pandas.DataFrame":
        """The studies as a data frame."""
        return study_table(self.studies).to_frame()

    def __repr__(self) -> str:
        if self.pilot:
            names = ", ".join(Path(name).name for name in self.pilot.conditions)
            what = f"pilot of {count_noun(len(self.pilot.conditions), 'condition')} ({names})"
        else:
            what = f"{self.flips:g} of the questions flip"
        return f"<StudyPlan: {what}, {len(self.studies)} studies>"

    def _repr_html_(self) -> str:
        """Return the table of studies for display in a notebook."""
        return study_table(self.studies).to_html()


def study_table(studies: Sequence[PlannedStudy]) -> PlainTable:
    """Return one row per study."""
    columns = ("draws", "questions", "stderr", "smallest_difference", "power", "tokens", "minutes")
    return PlainTable("plan", columns, tuple(tuple(getattr(each, name) for name in columns) for each in studies))


def plan_from_pilot(
    pilot: Pilot, goal: Goal, draws: Sequence[int], questions: Sequence[int], budgets: Mapping[str, float]
) -> StudyPlan:
    """Plan a study of the same kind as a pilot.

    Args:
        pilot: The pilot.
        goal: What the study should find.
        draws: Numbers of draws, two or more.
        questions: Numbers of questions (or clusters), two or more.
        budgets: What may be spent, by unit (`tokens`, `minutes`), which the pilot knows.
    """
    if not any(pilot.components.parts(1, 1)):
        return StudyPlan(SCHEMA_VERSION, goal, pilot, None, (), None)
    studies = (describe_mix(pilot.components, goal, each, number) for each in draws for number in questions)
    cheapest = find_cheapest(pilot.components, goal, pilot.tokens or Costs(0.0, 1.0))
    of_draws, *others = pilot.components.parts(pilot.num_draws, pilot.num_questions)
    units = {"tokens": pilot.tokens, "minutes": pilot.minutes}
    found = {
        unit: find_best(pilot.components, goal, costs, budgets[unit])
        for unit, costs in units.items()
        if costs is not None and unit in budgets
    }
    return StudyPlan(
        schema_version=SCHEMA_VERSION,
        goal=goal,
        pilot=pilot,
        flips=None,
        studies=tuple(_price(each, pilot) for each in studies),
        cheapest=None if cheapest is None else _price(cheapest, pilot),
        cheapest_power_at_most_variable=None if cheapest is None else _find_worst_power(pilot, goal, cheapest),
        share_of_draws=of_draws / (of_draws + sum(others)),
        any_questions=_price(describe_mix(pilot.components, goal, pilot.num_draws, ANY_NUMBER), pilot),
        best={unit: None if mix is None else _price(mix, pilot) for unit, mix in found.items()},
    )


def plan_from_flips(flips: float, goal: Goal, questions: Sequence[int]) -> StudyPlan:
    """Plan a study of one draw.

    Args:
        flips: The guessed share of questions that flip; more than the goal's difference.
        goal: What the study should find.
        questions: Numbers of questions.
    """
    needed = count_questions_of_flips(goal, flips)
    studies, cheapest = (
        tuple(PlannedStudy(1, number, compute_power_of_flips(goal, flips, number)) for number in numbers)
        for numbers in (questions, [needed])
    )
    return StudyPlan(SCHEMA_VERSION, goal, None, flips, studies, cheapest[0])


def _find_worst_power(pilot: Pilot, goal: Goal, mix: Mix) -> float:
    components = replace(pilot.components, draws=pilot.draws_interval[1])
    return compute_power(components, goal.difference, goal.level, mix.draws, mix.questions)


def _price(mix: Mix, pilot: Pilot) -> PlannedStudy:
    tokens, minutes = (
        None if costs is None else costs.total(mix.draws, mix.questions) for costs in (pilot.tokens, pilot.minutes)
    )
    return PlannedStudy(mix.draws, mix.questions, mix.power, mix.stderr, mix.smallest_difference, tokens, minutes)
