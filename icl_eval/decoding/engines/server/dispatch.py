"""Send many requests, a bounded number at a time, and yield what they give as it comes."""

import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from queue import SimpleQueue
from typing import Generic, NoReturn, TypeVar

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
        work: Does one of them, in a thread of its own, which does not outlive the program.
        num_concurrent: The maximum number in flight.
        give_up: Called when one has failed or the caller has stopped, so that the others end soon.
    """
    flight = _Flight(tasks, work)
    failure: BaseException | None = None
    flight.start(num_concurrent)
    try:
        while flight.count:
            try:
                result = flight.wait()
            except Exception as error:
                if failure is None:
                    give_up()
                failure = failure or error
                continue
            yield result
            if failure is None:
                flight.start(1)
    finally:
        if flight.count:
            give_up()
    if failure is not None:
        raise failure


class _Flight(Generic[Task, Result]):
    """The tasks that are being done."""

    def __init__(self, tasks: Iterable[Task], work: Callable[[Task], Result]):
        self.count = 0
        self._waiting = iter(tasks)
        self._work = work
        self._ended: SimpleQueue[Callable[[], Result]] = SimpleQueue()

    def start(self, count: int) -> None:
        """Start as many tasks as there are, up to a number."""
        for task in islice(self._waiting, count):
            threading.Thread(target=self._run, args=(task,), daemon=True).start()
            self.count += 1

    def wait(self) -> Result:
        """Return the next result, or raise the error of the task that has failed."""
        end = self._ended.get()
        self.count -= 1
        return end()

    def _run(self, task: Task) -> None:
        try:
            result = self._work(task)
        except Exception as error:
            self._ended.put(partial(_raise, error))
        else:
            self._ended.put(lambda: result)


def _raise(error: Exception) -> NoReturn:
    raise error
