"""Ordering: in which order a prompt shows the demonstrations that were selected for it.

Selecting comes first, and a prompt that is too long loses the last selected, whatever the order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from icl_eval.demonstrations.ranking import Demonstration, DemonstrationSelector, draw
from icl_eval.errors import ConfigError
from icl_eval.targets import Seed


class Order(Protocol):
    """Arranges selected demonstrations, the most wanted of which comes first."""

    @property
    def name(self) -> str:
        """What the order is called in a configuration."""

    def require_sense(self, selector: DemonstrationSelector) -> None:
        """Raise ConfigError when the strategy gives no grounds for the order."""

    def arrange(self, selected: Sequence[Demonstration]) -> tuple[Demonstration, ...]:
        """Return the demonstrations in the order of the prompt."""


@dataclass(frozen=True)
class AsSelectedOrder:
    """The most wanted demonstration first, the question after the least wanted."""

    name = "as_selected"

    def require_sense(self, selector: DemonstrationSelector) -> None:
        """Do nothing: every strategy ranks."""

    def arrange(self, selected: Sequence[Demonstration]) -> tuple[Demonstration, ...]:
        """Return them as they are."""
        return tuple(selected)


@dataclass(frozen=True)
class ReversedOrder:
    """The most wanted demonstration last, beside the question."""

    name = "reversed"

    def require_sense(self, selector: DemonstrationSelector) -> None:
        """Do nothing: every strategy ranks."""

    def arrange(self, selected: Sequence[Demonstration]) -> tuple[Demonstration, ...]:
        """Return them backwards."""
        return tuple(reversed(selected))


@dataclass(frozen=True)
class RandomOrder:
    """A seeded shuffle; questions that share their demonstrations share the order too."""

    seed: Seed

    name = "random"

    def require_sense(self, selector: DemonstrationSelector) -> None:
        """Do nothing: everything can be shuffled."""

    def arrange(self, selected: Sequence[Demonstration]) -> tuple[Demonstration, ...]:
        """Return them by a draw that is another one than that of the strategies."""
        return tuple(sorted(selected, key=lambda shown: draw(self.seed, "order", shown.example.id)))


@dataclass(frozen=True)
class MostRelevantLastOrder:
    """By similarity to the question, the most similar demonstration beside it."""

    name = "most_relevant_last"

    def require_sense(self, selector: DemonstrationSelector) -> None:
        """Raise ConfigError for a strategy that measures no similarity."""
        if not selector.measures_similarity:
            raise ConfigError(
                f"order=most_relevant_last: demonstrations={selector.name} measures no relevance; "
                "bm25, nearest and diverse do (order=reversed puts the first selected last)"
            )

    def arrange(self, selected: Sequence[Demonstration]) -> tuple[Demonstration, ...]:
        """Return them by rising similarity; of equal ones, the earlier selected comes later."""
        falling = sorted(selected, key=lambda shown: shown.similarity or 0.0, reverse=True)
        return tuple(reversed(falling))
