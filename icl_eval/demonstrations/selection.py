"""Selection: from a question to its demonstrations, ranked, guarded against leaks, and changed by a control."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from icl_eval.demonstrations.controls import Control, InstructionOnly
from icl_eval.demonstrations.leaks import build_guard
from icl_eval.demonstrations.ordering import Order
from icl_eval.demonstrations.ranking import Demonstration, DemonstrationSelector
from icl_eval.errors import ConfigError
from icl_eval.tasks import Example, Task

Selection = Callable[[Example], tuple[Demonstration, ...]]
"""From a question to its demonstrations, the most wanted first."""


@dataclass(frozen=True)
class Choice:
    """What a run shows its questions, whatever the task."""

    selector: DemonstrationSelector
    control: Control
    order: Order
    num_fewshot: int
    """How many demonstrations are selected for a question."""

    @property
    def num_shown(self) -> int:
        """How many of them a prompt is to show."""
        return 0 if isinstance(self.control, InstructionOnly) else self.num_fewshot

    def require_sense(self) -> None:
        """Raise ConfigError when the parts of the choice contradict each other."""
        self.order.require_sense(self.selector)
        if self.num_fewshot < self.control.min_fewshot:
            raise ConfigError(
                f"control={self.control.name}: num_fewshot={self.num_fewshot}, but at least "
                f"{self.control.min_fewshot} are needed for it to mean anything"
            )


def build_shown(task: Task, choice: Choice, match_field: str | None = None) -> Selection:
    """Return the function from a question to what its prompt shows: the selection, as the control changes it.

    Raises:
        ConfigError: As `build_selection` does, and when the control makes no sense for the task.
    """
    select = build_selection(task, choice.selector, choice.num_fewshot, match_field)
    change = choice.control.bind(task, match_field)
    return lambda question: change(select(question))


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
    rank, guard = selector.ranking(task), build_guard(task, match_field)

    def select(question: Example) -> tuple[Demonstration, ...]:
        selected = tuple(islice(rank(question, guard(question)), num_fewshot))
        if len(selected) < num_fewshot:
            raise ConfigError(
                f"num_fewshot={num_fewshot}: task '{task.name}' has only {len(selected)} demonstrations "
                f"for question {question.id!r} (demonstrations={selector.name}, a pool of {len(task.pool)})"
            )
        return selected

    return select
