"""Families of rules: each episode draws its own rule, which nothing but its demonstrations gives away.

| family      | a demonstration         | what the rule draws                                            |
|-------------|-------------------------|----------------------------------------------------------------|
| `lexicon`   | `dobi kalu → mepo suni` | an invented word for each of four invented words               |
| `rearrange` | `bkfd → dbk`            | which letter of the question stands at each place of the answer |
| `labels`    | `dobi kalu → suni`      | which of the places decides, and a label for each word there   |
| `numbers`   | `27 → 31`               | what is added                                                  |
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Protocol

from training.holding_out import is_held_out

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
SYLLABLES = tuple(consonant + vowel for consonant in CONSONANTS for vowel in VOWELS)
LETTERS = "bcdfghjklmnpqrstvwxz"
MAX_LEVEL = 4
"""Training's levels of difficulty run from 0 to this one."""


@dataclass(frozen=True)
class Pair:
    """A question and its answer."""

    question: str
    answer: str


class Rule(Protocol):
    """What all demonstrations of an episode have in common."""

    def draw_pair(self, rng: Random) -> Pair:
        """Draw a question and answer it by the rule."""


class Family(Protocol):
    """A kind of rule."""

    instruction: str
    """Says what kind it is, and nothing of the rule."""

    def draw_rule(self, rng: Random, level: int) -> Rule:
        """Draw a rule for training, which never holds anything that is held out."""

    def draw_held_out(self, rng: Random) -> Rule:
        """Draw a rule for evaluation, of what training never sees."""


def draw_words(rng: Random, count: int, held_out: bool, syllables: int = 2) -> list[str]:
    """Draw different invented words of some syllables.

    Words of one syllable are for the first levels of training, and none of them is held out.
    """
    words: list[str] = []
    while len(words) < count:
        word = "".join(rng.choice(SYLLABLES) for _ in range(syllables))
        if word not in words and (syllables == 1 or is_held_out(word) == held_out):
            words.append(word)
    return words


def draw_syllables(rng: Random, level: int) -> int:
    """Draw how long an episode's words are: the higher the level, the more often two syllables."""
    return 2 if rng.random() < level / MAX_LEVEL else 1


@dataclass(frozen=True)
class LexiconRule:
    """A phrase is translated word by word."""

    translations: Mapping[str, str]
    longest: int
    """The most words of a phrase."""

    def draw_pair(self, rng: Random) -> Pair:
        """Draw a phrase; the longest are as frequent as all others together."""
        length = self.longest if rng.random() < 0.5 else rng.randint(1, self.longest)
        words = rng.choices(list(self.translations), k=length)
        return Pair(" ".join(words), " ".join(self.translations[word] for word in words))


@dataclass(frozen=True)
class Lexicon:
    """Invented words and their translations."""

    instruction: str = "Translate the words."

    def draw_rule(self, rng: Random, level: int) -> LexiconRule:
        """Draw two to four words (four at the highest level) with their translations."""
        size = min(4, rng.randint(2, 2 + level)) if level < MAX_LEVEL else 4
        words = draw_words(rng, 2 * size, False, draw_syllables(rng, level))
        return _lexicon(words, longest=2 if rng.random() < level / MAX_LEVEL else 1)

    def draw_held_out(self, rng: Random) -> LexiconRule:
        """Draw four words of two syllables with their translations."""
        return _lexicon(draw_words(rng, 8, True), longest=2)


def _lexicon(words: Sequence[str], longest: int) -> LexiconRule:
    size = len(words) // 2
    return LexiconRule(dict(zip(words[:size], words[size:], strict=True)), longest)


@dataclass(frozen=True)
class RearrangeRule:
    """The answer's letters are taken from fixed places of the question."""

    length: int
    places: tuple[int, ...]
    """For each letter of the answer, its place in the question."""

    def __str__(self) -> str:
        return f"{self.length}>{''.join(map(str, self.places))}"

    def draw_pair(self, rng: Random) -> Pair:
        """Draw different letters."""
        letters = rng.sample(LETTERS, self.length)
        return Pair("".join(letters), "".join(letters[place] for place in self.places))


@dataclass(frozen=True)
class Rearrange:
    """Letters moved, dropped and doubled: copying, reversing, turning, swapping and most of what they compose to."""

    instruction: str = "Rearrange the letters."

    def draw_rule(self, rng: Random, level: int) -> RearrangeRule:
        """Draw, half of the time, a permutation (with a letter more or fewer), and else any map."""
        while True:
            length = min(4, rng.randint(2, 2 + level)) if level < MAX_LEVEL else rng.randint(3, 4)
            answer_length = length + (rng.choice((-1, 0, 0, 1)) if level > 1 and length > 2 else 0)
            rule = _rearrangement(rng, length, answer_length)
            if not is_held_out(str(rule)):
                return rule

    def draw_held_out(self, rng: Random) -> RearrangeRule:
        """Draw a rearrangement of three letters."""
        while True:
            rule = _rearrangement(rng, 3, 3)
            if is_held_out(str(rule)):
                return rule


def _rearrangement(rng: Random, length: int, answer_length: int) -> RearrangeRule:
    if rng.random() < 0.5:
        places = [*rng.sample(range(length), length), rng.randrange(length)][:answer_length]
    else:
        places = rng.choices(range(length), k=answer_length)
    return RearrangeRule(length, tuple(places))


@dataclass(frozen=True)
class LabelsRule:
    """One of the places decides, and what stands at the others does not matter."""

    words: tuple[tuple[str, ...], ...]
    """By place, the words that can stand there."""
    place: int
    """The place that decides."""
    labels: Mapping[str, str]
    """By word at that place."""

    def draw_pair(self, rng: Random) -> Pair:
        """Draw a word for each place."""
        item = [rng.choice(choices) for choices in self.words]
        return Pair(" ".join(item), self.labels[item[self.place]])


@dataclass(frozen=True)
class Labels:
    """Items described by invented words, sorted into two invented groups."""

    instruction: str = "Name the group."

    def draw_rule(self, rng: Random, level: int) -> LabelsRule:
        """Draw one to three places (two or three at the highest level), the words there, and two labels."""
        num_places = min(3, rng.randint(1, 1 + level)) if level < MAX_LEVEL else rng.randint(2, 3)
        return self._draw(rng, num_places, lambda count: draw_words(rng, count, False, draw_syllables(rng, level)))

    def draw_held_out(self, rng: Random) -> LabelsRule:
        """Draw three places, the words there, of two syllables, and two labels."""
        return self._draw(rng, 3, lambda count: draw_words(rng, count, True))

    def _draw(self, rng: Random, num_places: int, words_of: Callable[[int], Sequence[str]]) -> LabelsRule:
        place = rng.randrange(num_places)
        sizes = [2 if index == place else rng.randint(3, 4) for index in range(num_places)]
        words = iter(words_of(sum(sizes) + 2))
        choices = tuple(tuple(islice(words, size)) for size in sizes)
        return LabelsRule(choices, place, dict(zip(choices[place], words, strict=True)))


@dataclass(frozen=True)
class NumbersRule:
    """A number is added, or taken away."""

    added: int
    highest: int
    """The highest number that is asked about; the lowest is 10."""
    for_training: bool
    """Leave out the sums that are held out."""

    def draw_pair(self, rng: Random) -> Pair:
        """Draw a number of two digits."""
        while True:
            number = rng.randint(10, self.highest)
            if not (self.for_training and is_held_out(f"{number}{self.added:+}")):
                return Pair(str(number), str(number + self.added))


@dataclass(frozen=True)
class Numbers:
    """The same number added to each."""

    instruction: str = "Change the number."

    def draw_rule(self, rng: Random, level: int) -> NumbersRule:
        """Draw what is added, -9 to 9 and not 0; the level says to how large a number."""
        return NumbersRule(_draw_added(rng), 20 + 60 * level // MAX_LEVEL, for_training=True)

    def draw_held_out(self, rng: Random) -> NumbersRule:
        """Draw what is added to the numbers 10 to 35; it is for the sums to be held out."""
        return NumbersRule(_draw_added(rng), 35, for_training=False)


def _draw_added(rng: Random) -> int:
    return rng.choice([number for number in range(-9, 10) if number])


FAMILIES: Mapping[str, Family] = {
    "lexicon": Lexicon(),
    "rearrange": Rearrange(),
    "labels": Labels(),
    "numbers": Numbers(),
}
