"""Families of rules; each episode draws its own rule, which only its demonstrations reveal.

| family      | a demonstration         | what the rule draws                                            |
|-------------|-------------------------|----------------------------------------------------------------|
| `lexicon`   | `dobu kale → mepi suna` | an invented word for each of four invented words               |
| `rearrange` | `bkfd → dbk`            | which letter of the question goes where in the answer          |
| `labels`    | `dobu kale → suna`      | which of the places decides, and a label for each word there   |
| `numbers`   | `27 → 31`               | what is added                                                  |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import Protocol

from training.holding_out import is_held_out

CONSONANTS = "bdfgklmnprstvz"
VOWELS = {"a": "e", "e": "i", "i": "o", "o": "u", "u": "a"}
"""The second vowel of a word, by its first vowel."""
WORDS = tuple(
    first + vowel + second + following
    for first, (vowel, following), second in product(CONSONANTS, VOWELS.items(), CONSONANTS)
)
"""All 980 invented words, each of two syllables."""
LETTERS = "bcdfghjklmnpqrstvwxz"
MAX_LEVEL = 4
"""The highest level of difficulty in training; the lowest is 0."""


@dataclass(frozen=True)
class Pair:
    """A question and its answer."""

    question: str
    answer: str


class Rule(Protocol):
    """A rule that all demonstrations of an episode follow."""

    def draw_pair(self, rng: Random) -> Pair:
        """Draw a question and answer it by the rule."""


class Family(Protocol):
    """A kind of rule."""

    @property
    def instruction(self) -> str:
        """Names the kind of rule, without revealing the rule."""

    def draw_rule(self, rng: Random, level: int) -> Rule:
        """Draw a rule for training, which never uses held-out material."""

    def draw_held_out(self, rng: Random) -> Rule:
        """Draw a rule for evaluation, from material that training never sees."""


_WORDS = {held_out: [word for word in WORDS if is_held_out(word) == held_out] for held_out in (False, True)}


def draw_words(rng: Random, count: int, held_out: bool) -> list[str]:
    """Draw distinct invented words."""
    return rng.sample(_WORDS[held_out], count)


@dataclass(frozen=True)
class LexiconRule:
    """Translates a phrase word by word."""

    translations: Mapping[str, str]
    length: int
    """Number of words in a phrase."""

    def draw_pair(self, rng: Random) -> Pair:
        """Draw a phrase, which may contain a word twice."""
        words = rng.choices(list(self.translations), k=self.length)
        return Pair(" ".join(words), " ".join(self.translations[word] for word in words))


@dataclass(frozen=True)
class Lexicon:
    """Invented words and their translations."""

    instruction: str = "Translate the words."

    def draw_rule(self, rng: Random, level: int) -> LexiconRule:
        """Draw two to four words (four at the highest level) with their translations, and the length of phrases."""
        size = min(4, rng.randint(2, 2 + level)) if level < MAX_LEVEL else 4
        return _lexicon(draw_words(rng, 2 * size, False), length=2 if rng.random() < level / MAX_LEVEL else 1)

    def draw_held_out(self, rng: Random) -> LexiconRule:
        """Draw four words with their translations; phrases are of two words."""
        return _lexicon(draw_words(rng, 8, True), length=2)


def _lexicon(words: Sequence[str], length: int) -> LexiconRule:
    size = len(words) // 2
    return LexiconRule(dict(zip(words[:size], words[size:], strict=True)), length)


@dataclass(frozen=True)
class RearrangeRule:
    """Takes the letters of the answer from fixed positions of the question."""

    length: int
    places: tuple[int, ...]
    """Position in the question of each letter of the answer."""

    def __str__(self) -> str:
        return f"{self.length}>{''.join(map(str, self.places))}"

    def draw_pair(self, rng: Random) -> Pair:
        """Draw distinct letters."""
        letters = rng.sample(LETTERS, self.length)
        return Pair("".join(letters), "".join(letters[place] for place in self.places))


@dataclass(frozen=True)
class Rearrange:
    """Moves, drops and doubles letters: copying, reversing, rotating, swapping, and combinations of these."""

    instruction: str = "Rearrange the letters."

    def draw_rule(self, rng: Random, level: int) -> RearrangeRule:
        """Draw a rule for questions of two letters at the lowest level, three, then three or four; the answers grow."""
        length = min(2 + level, rng.randint(3, 3 + level // 3))
        answer_length = rng.randint(max(1, level - 2), 2 + level // 2)
        while True:
            rule = _rearrangement(rng, length, answer_length)
            if not is_held_out(str(rule)):
                return rule

    def draw_held_out(self, rng: Random) -> RearrangeRule:
        """Draw a rule for questions and answers of three letters."""
        while True:
            rule = _rearrangement(rng, 3, 3)
            if is_held_out(str(rule)):
                return rule


def _rearrangement(rng: Random, length: int, answer_length: int) -> RearrangeRule:
    """Draw a map that takes no letter twice in half of the cases, and any map otherwise."""
    if answer_length <= length and rng.random() < 0.5:
        return RearrangeRule(length, tuple(rng.sample(range(length), answer_length)))
    return RearrangeRule(length, tuple(rng.choices(range(length), k=answer_length)))


@dataclass(frozen=True)
class LabelsRule:
    """Labels a phrase by the word at one position; the other words are arbitrary."""

    labels: Mapping[str, str]
    """The label of each deciding word."""
    place: int
    """The position of the deciding word."""
    num_places: int
    held_out: bool
    """Whether the other words are ones that training never sees."""

    def draw_pair(self, rng: Random) -> Pair:
        """Draw a word for each position."""
        deciding = rng.choice(list(self.labels))
        words = draw_words(rng, self.num_places - 1, self.held_out)
        words.insert(self.place, deciding)
        return Pair(" ".join(words), self.labels[deciding])


@dataclass(frozen=True)
class Labels:
    """Items described by invented words, sorted into invented groups."""

    instruction: str = "Name the group."

    def draw_rule(self, rng: Random, level: int) -> LabelsRule:
        """Draw one or two places, and two or three deciding words (three at the highest level) with their labels."""
        num_places = 2 if rng.random() < level / MAX_LEVEL else 1
        return _labels(rng, 3 if level == MAX_LEVEL else rng.randint(2, 3), num_places, held_out=False)

    def draw_held_out(self, rng: Random) -> LabelsRule:
        """Draw three deciding words with their labels; one of two places decides."""
        return _labels(rng, 3, 2, held_out=True)


def _labels(rng: Random, num_labels: int, num_places: int, held_out: bool) -> LabelsRule:
    words = draw_words(rng, 2 * num_labels, held_out)
    labels = dict(zip(words[:num_labels], words[num_labels:], strict=True))
    return LabelsRule(labels, rng.randrange(num_places), num_places, held_out)


@dataclass(frozen=True)
class NumbersRule:
    """Adds a fixed number, which may be negative."""

    added: int
    highest: int
    """The highest number in a question; the lowest is 10."""
    for_training: bool
    """Whether to leave out sums that are held out."""

    def draw_pair(self, rng: Random) -> Pair:
        """Draw a number of two digits."""
        while True:
            number = rng.randint(10, self.highest)
            if not (self.for_training and is_held_out(f"{number}{self.added:+}")):
                return Pair(str(number), str(number + self.added))


@dataclass(frozen=True)
class Numbers:
    """Adds the same number to every question."""

    instruction: str = "Change the number."

    def draw_rule(self, rng: Random, level: int) -> NumbersRule:
        """Draw the number to add, from -9 to 9 except 0; the level sets the range of the questions."""
        return NumbersRule(_draw_added(rng), 20 + 60 * level // MAX_LEVEL, for_training=True)

    def draw_held_out(self, rng: Random) -> NumbersRule:
        """Draw the number to add to the numbers 10 to 35; the caller selects held-out sums."""
        return NumbersRule(_draw_added(rng), 35, for_training=False)


def _draw_added(rng: Random) -> int:
    return rng.choice([number for number in range(-9, 10) if number])


FAMILIES: Mapping[str, Family] = {
    "lexicon": Lexicon(),
    "rearrange": Rearrange(),
    "labels": Labels(),
    "numbers": Numbers(),
}
