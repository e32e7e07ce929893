"""Draw episodes, each of which has demonstrations and questions of one rule."""

from dataclasses import dataclass
from random import Random

from training.families import FAMILIES, Pair, Rule


@dataclass(frozen=True)
class Episode:
    """Demonstrations of a rule, and questions to answer by it."""

    family: str
    demonstrations: tuple[Pair, ...]
    questions: tuple[Pair, ...]


def draw_episode(rng: Random, family: str, level: int, num_demonstrations: int, num_questions: int) -> Episode:
    """Draw an episode for training: a rule, and pairs that follow it."""
    pairs = draw_pairs(rng, FAMILIES[family].draw_rule(rng, level), num_demonstrations + num_questions)
    return Episode(family, tuple(pairs[:num_demonstrations]), tuple(pairs[num_demonstrations:]))


def draw_pairs(rng: Random, rule: Rule, count: int) -> list[Pair]:
    """Draw distinct pairs; if three times as many draws do not give enough, some are repeated."""
    drawn = [rule.draw_pair(rng) for _ in range(3 * count)]
    different = list(dict.fromkeys(drawn))
    pairs = (different + drawn)[:count]
    rng.shuffle(pairs)
    return pairs
