"""Measure the duration and throughput of a run's stages."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Accumulates seconds and units of work for each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._units: defaultdict[str, int] = defaultdict(int)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the duration of a `with` block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self.seconds[name] = round(self.seconds.get(name, 0.0) + elapsed, 3)

    def count(self, name: str, units: int) -> None:
        """Add units of work to a stage."""
        self._units[name] += units

    def rate(self, name: str) -> float | None:
        """Return a stage's units per second; None if it did no work."""
        if not self._units[name] or not self.seconds.get(name):
            return None
        return round(self._units[name] / self.seconds[name], 2)
