"""Controls: which property of the demonstrations a model uses, measured by removing one property at a time.

Demonstrations provide inputs, targets, the pairing of both, and a format. Each control destroys one of these, and the
loss in score shows its contribution (Min et al., 2022, Rethinking the Role of Demonstrations, arXiv:2202.12837). A
control changes the selected demonstrations and never the selection. It depends only on task, demonstrations and seed,
so questions with the same demonstrations see the same changed ones.

Two more, in `label_mappings`, show a mapping that a model can follow to other answers than the right ones.

Fields that only demonstrations have, such as a rationale, argue for a target. They move with it, since a rationale for
another target would contradict what is shown.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from icl_eval.demonstrations.labels import kind_of, label_of
from icl_eval.demonstrations.ranking import Demonstration, random_key
from icl_eval.demonstrations.words import WORDS
from icl_eval.errors import ConfigError
from icl_eval.targets import Seed
from icl_eval.tasks.examples import Example, normalize
from icl_eval.tasks.loading import Task

Change = Callable[[Sequence[Demonstration]], tuple[Demonstration, ...]]
"""Maps the selected demonstrations, by descending rank, to those that are shown instead."""


class Control(Protocol):
    """Removes one property of the demonstrations."""

    @property
    def name(self) -> str:
        """The name of the control in a configuration."""

    @property
    def min_fewshot(self) -> int:
        """The smallest number of demonstrations for which the control is meaningful."""

    def bind(self, task: Task, match_field: str | None) -> Change:
        """Return the change for a task.

        Args:
            task: The task, whose pool provides labels and targets.
            match_field: The input field in which demonstrations agree with the question; None if there is no such
                field.

        Raises:
            ConfigError: If the control is not applicable to the task.
        """


@dataclass(frozen=True)
class NoControl:
    """Unchanged demonstrations."""

    name = "none"
    min_fewshot = 0

    def bind(self, task: Task, match_field: str | None) -> Change:
        """Return the identity."""
        return tuple


@dataclass(frozen=True)
class RandomTargets:
    """Each target is drawn uniformly from the distinct targets of the pool, as Min et al. draw from the label set.

    The drawn target may be correct by chance: with two labels, half of them are; reports give the share. If
    demonstrations have fields of their own, those of another target are drawn from the pool's examples with that
    target.
    """

    seed: Seed
    fraction: float = 1.0
    """The probability with which a demonstration gets another target. Those of a smaller fraction are among those of a
    larger one."""

    name = "random_targets"
    min_fewshot = 1

    def __post_init__(self) -> None:
        check_fraction(self.fraction)

    def bind(self, task: Task, match_field: str | None) -> Change:
        """Return a function that draws the targets; raises ConfigError if the pool has only one target."""
        targets = _group_targets(task, match_field, self.name)
        givers: defaultdict[tuple[str | None, str], list[Example]] = defaultdict(list)
        for candidate in task.pool:
            givers[kind_of(candidate, match_field), label_of(candidate)].append(candidate)

        def draw_target(shown: Demonstration) -> Demonstration:
            example = shown.example
            if not is_changed(self.seed, self.name, example.id, self.fraction):
                return shown
            kind = kind_of(example, match_field)
            target = targets[kind][_draw_number(self.seed, self.name, example.id, len(targets[kind]))]
            if target == label_of(example) or not example.demonstration_fields:
                return replace_target(shown, target, example)
            possible = givers[kind, target]
            number = _draw_number(self.seed, self.name, f"{example.id}\0fields", len(possible))
            return replace_target(shown, target, possible[number])

        return lambda selected: tuple(map(draw_target, selected))


@dataclass(frozen=True)
class ShuffledTargets:
    """The demonstrations of a prompt exchange their targets: inputs and targets stay, their pairing is lost.

    The targets rotate along a random cycle of the demonstrations, so none keeps its own target. Where targets are
    labels, many receive an equal one, and stay right; reports give the share.
    """

    seed: Seed

    name = "shuffled_targets"
    min_fewshot = 2

    def bind(self, task: Task, match_field: str | None) -> Change:
        """Return a function that exchanges the targets; raises ConfigError if the pool has only one target."""
        _group_targets(task, match_field, self.name)

        def shuffle(selected: Sequence[Demonstration]) -> tuple[Demonstration, ...]:
            cycle = sorted((shown.example for shown in selected), key=lambda e: random_key(self.seed, self.name, e.id))
            givers = {receiver.id: giver for giver, receiver in zip(cycle, cycle[1:] + cycle[:1], strict=True)}
            shuffled = ((shown, givers[shown.example.id]) for shown in selected)
            return tuple(replace_target(shown, giver.references[0], giver) for shown, giver in shuffled)

        return shuffle


@dataclass(frozen=True)
class NoTargets:
    """Demonstrations without answers: each one ends where its answer would begin."""

    name = "no_targets"
    min_fewshot = 1

    def bind(self, task: Task, match_field: str | None) -> Change:
        """Return a function that removes the targets."""
        return lambda selected: tuple(
            replace(shown, example=replace(shown.example, references=())) for shown in selected
        )


@dataclass(frozen=True)
class UnrelatedInputs:
    """Meaningless inputs, unchanged targets: every input word is replaced by a random everyday English noun.

    Number of words, punctuation and layout stay the same, so only the meaning of the inputs is lost. Words that occur
    in the targets of the pool are not used, and the field by which demonstrations are matched is unchanged. Fields that
    only demonstrations have are treated like inputs, since a rationale repeats what the input says.
    """

    seed: Seed

    name = "unrelated_inputs"
    min_fewshot = 1

    def bind(self, task: Task, match_field: str | None) -> Change:
        """Return a function that replaces the words; raises ConfigError if every noun occurs in the targets."""
        targets = " ".join(normalize(text) for candidate in task.pool for text in candidate.references)
        taken = set(re.findall(r"\w+", targets))
        words = [word for word in WORDS if word not in taken]
        if not words:
            raise ConfigError(f"control=unrelated_inputs: the targets of task '{task.name}' use every word of the list")

        def scramble(example: Example, field: str, text: str) -> str:
            position = 0

            def other_word(match: re.Match[str]) -> str:
                nonlocal position
                position += 1
                place = f"{example.id}\0{field}\0{position}"
                word = words[_draw_number(self.seed, self.name, place, len(words))]
                return word.capitalize() if match[0][0].isupper() else word

            return re.sub(r"\w+", other_word, text)

        def change(shown: Demonstration) -> Demonstration:
            inputs, own = (
                {
                    field: text if field == match_field else scramble(shown.example, field, text)
                    for field, text in fields
                }
                for fields in (shown.example.inputs.items(), shown.example.demonstration_fields.items())
            )
            return replace(shown, example=replace(shown.example, inputs=inputs, demonstration_fields=own))

        return lambda selected: tuple(map(change, selected))


@dataclass(frozen=True)
class InstructionOnly:
    """No demonstrations, as with `num_fewshot=0`: the baseline of a series of controls."""

    name = "instruction_only"
    min_fewshot = 1

    def bind(self, task: Task, match_field: str | None) -> Change:
        """Return a function that drops all demonstrations."""
        return lambda selected: ()


def check_fraction(fraction: float) -> None:
    """Raise ConfigError unless a fraction is between 0 and 1."""
    if not 0 <= fraction <= 1:
        raise ConfigError(f"fraction={fraction}: must be between 0 and 1")


def is_changed(seed: int, control: str, example_id: str, fraction: float) -> bool:
    """Return whether a demonstration is one of the changed ones, whatever else is shown and whatever the others are."""
    place = int.from_bytes(random_key(seed, f"{control}\0fraction", example_id)[:8], "big")
    return place < fraction * 2**64


def _group_targets(task: Task, match_field: str | None, control: str) -> Mapping[str | None, Sequence[str]]:
    """Return the distinct targets of each kind, sorted; raises ConfigError if a kind has only one."""
    targets = {
        kind: sorted({label_of(candidate) for candidate in candidates})
        for kind, candidates in group_by_kind(task, match_field).items()
    }
    for kind, distinct in targets.items():
        if len(distinct) < 2:
            rows = "the pool" if match_field is None else f"the rows with {match_field}={kind!r}"
            raise ConfigError(f"control={control}: {distinct[0]!r} is the only target in {rows} of task '{task.name}'")
    return targets


def group_by_kind(task: Task, match_field: str | None) -> Mapping[str | None, Sequence[Example]]:
    """Return the pool of a task by the value of the field in which demonstrations agree with the question."""
    kinds: defaultdict[str | None, list[Example]] = defaultdict(list)
    for candidate in task.pool:
        kinds[kind_of(candidate, match_field)].append(candidate)
    return kinds


def _draw_number(seed: int, control: str, place: str, below: int) -> int:
    return int.from_bytes(random_key(seed, control, place), "big") % below


def replace_target(shown: Demonstration, target: str, giver: Example) -> Demonstration:
    """Return a demonstration with another target, and with the demonstration fields of an example that has it."""
    fields = giver.demonstration_fields
    return replace(shown, example=replace(shown.example, references=(target,), demonstration_fields=fields))
