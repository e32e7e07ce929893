"""Selection: from a question to its demonstrations, ranked and guarded against leaks."""

from collections.abc import Callable
from itertools import islice

from icl_eval.demonstrations.leaks import build_guard
from icl_eval.demonstrations.ranking import Demonstration, DemonstrationSelector
from icl_eval.errors import ConfigError
from icl_eval.tasks import Example, Task


def build_selection(
    task: Task, selector: DemonstrationSelector, num_fewshot: int, match_field: str | None = None
) -> Callable[[Example], tuple[Demonstration, ...]]:
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
