"""Selection: finding the demonstrations of a question by rank, without leaks, and applying a control to them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

from icl_eval.demonstrations.controls import Control, InstructionOnly
from icl_eval.demonstrations.leaks import build_guard, drop_duplicates, require_match_field
from icl_eval.demonstrations.ordering import Order
from icl_eval.demonstrations.ranking import Demonstration, DemonstrationSelector
from icl_eval.errors import ConfigError
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

Selection = Callable[[Example], tuple[Demonstration, ...]]
"""Maps a question to its demonstrations, by descending rank."""


@dataclass(frozen=True)
class FewShot:
    """How a task's demonstrations are selected, changed and ordered."""

    selector: DemonstrationSelector
    control: Control
    order: Order
    num_fewshot: int
    """Number of demonstrations that are selected for a question."""
    leave_out: int | None = None
    """Rank, from 1, of a selected demonstration that is not shown; the others do not change."""

    @property
    def num_shown(self) -> int:
        """The number of demonstrations in a prompt that fits."""
        if isinstance(self.control, InstructionOnly):
            return 0
        return self.num_fewshot if self.leave_out is None else self.num_fewshot - 1

    def require_sense(self) -> None:
        """Raise ConfigError if the options contradict each other."""
        self.order.require_sense(self.selector)
        if self.num_fewshot < self.control.min_fewshot:
            raise ConfigError(
                f"control={self.control.name}: needs num_fewshot={self.control.min_fewshot} or more, "
                f"not {self.num_fewshot}"
            )
        if self.leave_out is not None and not 1 <= self.leave_out <= self.num_fewshot:
            raise ConfigError(
                f"leave_out={self.leave_out}: must be the rank of a demonstration, 1 to num_fewshot={self.num_fewshot}"
            )
        if self.leave_out is not None and isinstance(self.control, InstructionOnly):
            raise ConfigError(
                f"leave_out={self.leave_out}: has no effect, control=instruction_only shows no demonstrations"
            )


def build_shown(task: Task, few_shot: FewShot, match_field: str | None = None) -> Selection:
    """Return the function from a question to the demonstrations that its prompt shows.

    These are the selected demonstrations as changed by the control, without the one that is left out.

    Raises:
        ConfigError: Under the conditions of `build_selection`, and if the control is not applicable to the task.
    """
    select = build_selection(task, few_shot.selector, few_shot.num_fewshot, match_field)
    change = few_shot.control.bind(task, match_field)
    if few_shot.leave_out is None:
        return lambda question: change(select(question))
    place = few_shot.leave_out - 1

    def all_but_one(question: Example) -> tuple[Demonstration, ...]:
        shown = change(select(question))  # before leaving one out, so that the others do not change
        return shown[:place] + shown[place + 1 :]

    return all_but_one


def build_selection(
    task: Task, selector: DemonstrationSelector, num_fewshot: int, match_field: str | None = None
) -> Selection:
    """Return the function from a question to its demonstrations, by descending rank.

    Args:
        task: The task.
        selector: The strategy.
        num_fewshot: Number of demonstrations for each question.
        match_field: If given, only candidates with the question's value of this input field are selected.

    Raises:
        ConfigError: If an id or field does not exist or the strategy is not applicable to the task. The returned
            function raises it if there are not enough demonstrations.
    """
    if match_field is not None:
        require_match_field(task, match_field)
    candidates = task.pool if selector.keeps_duplicates else drop_duplicates(task.pool, match_field)
    guard = build_guard(replace(task, pool=candidates), match_field)
    rank = selector.ranking(replace(task, pool=candidates))

    def select(question: Example) -> tuple[Demonstration, ...]:
        allowed = guard(question)
        selected = tuple(islice(rank(question, allowed), min(num_fewshot, len(candidates))))
        if len(selected) < num_fewshot:
            refused = len(task.pool) - int(build_guard(task, match_field)(question).sum())
            repeated = len(task.pool) - refused - int(allowed.sum())
            reason = f", {refused} of them copies of the question" if refused and match_field is None else ""
            reason += f", {repeated} of them duplicates" if repeated else ""
            raise ConfigError(
                f"num_fewshot={num_fewshot}: task '{task.name}' has only {len(selected)} demonstrations "
                f"for question {question.id!r} (demonstrations={selector.name}, a pool of {len(task.pool)}{reason})"
            )
        return selected

    return select
