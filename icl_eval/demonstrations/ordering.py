"""Ordering: the order in which a prompt shows its selected demonstrations.

Demonstrations are ordered after selection. With `overflow=drop`, a prompt that is too long loses the demonstration
with the lowest rank, in any order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from icl_eval.demonstrations.ranking import Demonstration, DemonstrationSelector, random_key
from icl_eval.errors import ConfigError
from icl_eval.targets import Seed


class Order(Protocol):
    """Arranges the selected demonstrations, which come by descending rank."""

    @property
    def name(self) -> str:
        """The name of the order in a configuration."""

    def require_sense(self, selector: DemonstrationSelector) -> None:
        """Raise ConfigError if the strategy does not provide what the order needs."""

    def arrange(self, selected: Sequence[Demonstration]) -> tuple[Demonstration, ...]:
        """Return the demonstrations in prompt order."""


@dataclass(frozen=True)
class AsSelectedOrder:
    """By descending rank: the demonstration with the highest rank comes first."""

    name = "as_selected"

    def require_sense(self, selector: DemonstrationSelector) -> None:
        """Do nothing: every strategy ranks."""

    def arrange(self, selected: Sequence[Demonstration]) -> tuple[Demonstration, ...]:
        """Return the demonstrations unchanged."""
        return tuple(selected)


@dataclass(frozen=True)
class ReversedOrder:
    """By ascending rank: the demonstration with the highest rank comes last, next to the question."""

    name = "reversed"

    def require_sense(self, selector: DemonstrationSelector) -> None:
        """Do nothing: every strategy ranks."""

    def arrange(self, selected: Sequence[Demonstration]) -> tuple[Demonstration, ...]:
        """Return the demonstrations in reverse."""
        return tuple(reversed(selected))


@dataclass(frozen=True)
class RandomOrder:
    """A seeded shuffle; questions with the same demonstrations see them in the same order."""

    seed: Seed

    name = "random"

    def require_sense(self, selector: DemonstrationSelector) -> None:
        """Do nothing: everything can be shuffled."""

    def arrange(self, selected: Sequence[Demonstration]) -> tuple[Demonstration, ...]:
        """Return the demonstrations in random order, drawn independently of the strategies."""
        return tuple(sorted(selected, key=lambda shown: random_key(self.seed, "order", shown.example.id)))


@dataclass(frozen=True)
class MostRelevantLastOrder:
    """By ascending similarity: the most similar demonstration comes last, next to the question."""

    name = "most_relevant_last"

    def require_sense(self, selector: DemonstrationSelector) -> None:
        """Raise ConfigError for a strategy that measures no similarity."""
        if not selector.measures_similarity:
            raise ConfigError(
                f"order=most_relevant_last: demonstrations={selector.name} measures no similarity; use bm25, nearest, "
                "diverse or dpp (order=reversed puts the highest rank last)"
            )

    def arrange(self, selected: Sequence[Demonstration]) -> tuple[Demonstration, ...]:
        """Return the demonstrations by ascending similarity; of equal ones, the higher rank comes later."""
        descending = sorted(selected, key=lambda shown: shown.similarity or 0.0, reverse=True)
        return tuple(reversed(descending))
