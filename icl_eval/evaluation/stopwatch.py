"""Stopwatch: how long the stages of a run took, and how much they got done."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up seconds and units of work by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._units: defaultdict[str, int] = defaultdict(int)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time until the block ends to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self.seconds[name] = round(self.seconds.get(name, 0.0) + elapsed, 3)

    def count(self, name: str, units: int) -> None:
        """Note that a stage got some units of work done."""
        self._units[name] += units

    def rate(self, name: str) -> float | None:
        """Return a stage's units a second; None where it did nothing."""
        if not self._units[name] or not self.seconds.get(name):
            return None
        return round(self._units[name] / self.seconds[name], 2)
