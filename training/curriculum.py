"""The curriculum: a family gets harder once it is mastered, and is drawn more often until then."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from training.families import FAMILIES, MAX_LEVEL

MASTERED = 0.8
"""The exact match from which on a family moves up a level."""


@dataclass
class Curriculum:
    """The level of every family, and the weight with which it is drawn."""

    levels: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAMILIES, 0))
    weights: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FAMILIES, 1.0))

    def draw_family(self, rng: Random) -> str:
        """Draw a family; less well learned ones are drawn more often."""
        return rng.choices(list(self.weights), list(self.weights.values()))[0]

    def draw_level(self, rng: Random, family: str) -> int:
        """Draw the family's level or, in one of five episodes, any level up to it, so that nothing is forgotten."""
        level = self.levels[family]
        return rng.randint(0, level) if rng.random() < 0.2 else level

    def update(self, exact_match: Mapping[str, float]) -> None:
        """Update levels and weights from the exact match of each family at its level."""
        for family, share in exact_match.items():
            self.weights[family] = 1.2 - share
            if share >= MASTERED and self.levels[family] < MAX_LEVEL:
                self.levels[family] += 1
                self.weights[family] = 1.0
