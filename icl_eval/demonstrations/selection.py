"""Selection: from a question to its demonstrations, ranked, guarded against leaks, and changed by a control."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

from icl_eval.demonstrations.controls import Control, InstructionOnly
from icl_eval.demonstrations.fixed import FixedDemonstrations
from icl_eval.demonstrations.leaks import build_guard, distinct
from icl_eval.demonstrations.ordering import Order
from icl_eval.demonstrations.ranking import Demonstration, DemonstrationSelector
from icl_eval.errors import ConfigError
from icl_eval.tasks.examples import Example, Task

Selection = Callable[[Example], tuple[Demonstration, ...]]
"""From a question to its demonstrations, the most wanted first."""


@dataclass(frozen=True)
class FewShot:
    """The demonstrations that a run shows with each question, whatever the task."""

    selector: DemonstrationSelector
    control: Control
    order: Order
    num_fewshot: int
    """How many demonstrations are selected for a question."""
    leave_out: int | None = None
    """The rank, from 1, of the one that is not shown; the others stay as they are."""

    @property
    def num_shown(self) -> int:
        """How many of them a prompt is to show."""
        if isinstance(self.control, InstructionOnly):
            return 0
        return self.num_fewshot if self.leave_out is None else self.num_fewshot - 1

    def require_sense(self) -> None:
        """Raise ConfigError when its parts contradict each other."""
        self.order.require_sense(self.selector)
        if self.num_fewshot < self.control.min_fewshot:
            raise ConfigError(
                f"control={self.control.name}: num_fewshot={self.num_fewshot}, but at least "
                f"{self.control.min_fewshot} are needed for it to mean anything"
            )
        if self.leave_out is not None and not 1 <= self.leave_out <= self.num_fewshot:
            raise ConfigError(
                f"leave_out={self.leave_out}: must be the rank of a demonstration, 1 to num_fewshot={self.num_fewshot}"
            )
        if self.leave_out is not None and isinstance(self.control, InstructionOnly):
            raise ConfigError(f"leave_out={self.leave_out}: control=instruction_only shows no demonstration anyway")


def build_shown(task: Task, few_shot: FewShot, match_field: str | None = None) -> Selection:
    """Return the function from a question to what its prompt shows.

    That is the selection as the control changes it, less the one that is left out.

    Raises:
        ConfigError: As `build_selection` does, and when the control makes no sense for the task.
    """
    select = build_selection(task, few_shot.selector, few_shot.num_fewshot, match_field)
    change = few_shot.control.bind(task, match_field)
    if few_shot.leave_out is None:
        return lambda question: change(select(question))
    place = few_shot.leave_out - 1

    def all_but_one(question: Example) -> tuple[Demonstration, ...]:
        shown = change(select(question))  # first, so that the others stay as the control changes them
        return shown[:place] + shown[place + 1 :]

    return all_but_one


def build_selection(
    task: Task, selector: DemonstrationSelector, num_fewshot: int, match_field: str | None = None
) -> Selection:
    """Return the function from a question to its demonstrations, the most wanted first.

    Args:
        task: Whose pool is drawn from.
        selector: The strategy.
        num_fewshot: How many demonstrations a question gets.
        match_field: Where given, only candidates that share the question's value of this input field.

    Raises:
        ConfigError: When an id or field does not exist, the strategy makes no sense for the task or, when the
            function is called, when there are not enough demonstrations.
    """
    guard = build_guard(task, match_field)
    is_named = isinstance(selector, FixedDemonstrations)  # whoever names two of one text wants them
    candidates = task.pool if is_named else distinct(task.pool, match_field)
    rank = selector.ranking(replace(task, pool=candidates))

    def select(question: Example) -> tuple[Demonstration, ...]:
        allowed = guard(question)
        selected = tuple(islice(rank(question, allowed), min(num_fewshot, len(candidates))))
        if len(selected) < num_fewshot:
            kept = sum(not allowed(candidate) for candidate in task.pool)
            repeated = len(task.pool) - kept - sum(map(allowed, candidates))
            reason = f", {kept} of them copies of the question" if kept and match_field is None else ""
            reason += f", {repeated} of them duplicates" if repeated else ""
            raise ConfigError(
                f"num_fewshot={num_fewshot}: task '{task.name}' has only {len(selected)} demonstrations "
                f"for question {question.id!r} (demonstrations={selector.name}, a pool of {len(task.pool)}{reason})"
            )
        return selected

    return select
