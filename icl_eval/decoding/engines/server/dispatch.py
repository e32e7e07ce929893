"""Send many requests, a bounded number at a time, and yield what they give as it comes."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_all(
    tasks: Iterable[Task], work: Callable[[Task], Result], num_concurrent: int, give_up: Callable[[], None]
) -> Iterator[Result]:
    """Yield the result of each task, in the order in which they end.

    Tasks are taken one by one, so that any number of them takes no memory. If one fails, those in flight may end, their
    results are yielded, and then its error is raised.

    Args:
        tasks: What to do.
        work: Does one of them, in a thread of its own.
        num_concurrent: The maximum number in flight.
        give_up: Called when one has failed, so that the others end soon.
    """
    executor = ThreadPoolExecutor(num_concurrent, thread_name_prefix="icl_eval-request")
    waiting = iter(tasks)
    pending = {executor.submit(work, task) for task in islice(waiting, num_concurrent)}
    failure: BaseException | None = None
    try:
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                failure = failure or future.exception()
                if future.exception() is None:
                    yield future.result()
            if failure is None:
                pending |= {executor.submit(work, task) for task in islice(waiting, num_concurrent - len(pending))}
            else:
                give_up()
        if failure is not None:
            raise failure
    finally:
        if pending:  # the caller has stopped
            give_up()
        executor.shutdown(wait=False, cancel_futures=True)
