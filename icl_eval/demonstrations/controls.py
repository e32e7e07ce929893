"""Controls: what of a demonstration carries, found out by taking one thing away.

Whatever the demonstrations' inputs, targets, their pairing or the mere format contribute is missing under the
control that destroys it (Min et al., 2022, Rethinking the Role of Demonstrations, arXiv:2202.12837). A control
changes what was selected and never what is selected, and is a function of task, demonstrations and seed alone:
questions that share their demonstrations share the changed ones.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from icl_eval.demonstrations.labels import label_of, read_labels
from icl_eval.demonstrations.ranking import Demonstration, draw
from icl_eval.demonstrations.words import WORDS
from icl_eval.errors import ConfigError
from icl_eval.targets import Seed
from icl_eval.tasks.examples import Example, Task, normalise

Change = Callable[[Sequence[Demonstration]], tuple[Demonstration, ...]]
"""From the selected demonstrations, the most wanted first, to what is shown in their place."""


class Control(Protocol):
    """Takes away one thing that demonstrations carry."""

    @property
    def name(self) -> str:
        """What the control is called in a configuration."""

    @property
    def min_fewshot(self) -> int:
        """How many demonstrations it needs to have a meaning."""

    def bind(self, task: Task, match_field: str | None) -> Change:
        """Return the change for a task, whose demonstrations share the question's `match_field` where one is given.

        Raises:
            ConfigError: When the control makes no sense for the task.
        """


@dataclass(frozen=True)
class NoControl:
    """Demonstrations as they are."""

    name = "none"
    min_fewshot = 0

    def bind(self, task: Task, match_field: str | None) -> Change:
        """Return what changes nothing."""
        return tuple


@dataclass(frozen=True)
class RandomTargets:
    """Each target is drawn from all distinct ones of the pool, evenly, as Min et al. draw from the label set.

    It may be the right one by chance: of two labels, every second is.
    """

    seed: Seed

    name = "random_targets"
    min_fewshot = 1

    def bind(self, task: Task, match_field: str | None) -> Change:
        """Return the draw; raises ConfigError when the pool has one target only."""
        targets = _targets(task, match_field, self.name)

        def draw_target(example: Example) -> str:
            choices = targets[_kind(example, match_field)]
            return choices[_draw_number(self.seed, self.name, example.id, len(choices))]

        return lambda selected: tuple(_with_target(shown, draw_target(shown.example)) for shown in selected)


@dataclass(frozen=True)
class FlippedLabels:
    """Each label becomes another one, always the same for a label, and never a right answer of the demonstration.

    A model that follows its demonstrations then errs on purpose (Wei et al., 2023, Larger language models do
    in-context learning differently, arXiv:2303.03846). Of two labels each becomes the other; of more, each the next
    in a circle that the seed draws.
    """

    seed: Seed

    name = "flipped_labels"
    min_fewshot = 1

    def bind(self, task: Task, match_field: str | None) -> Change:
        """Return the flip; raises ConfigError when answers are no labels, or a demonstration accepts all of them."""
        circles = {
            kind: sorted(
                read_labels(replace(task, pool=tuple(candidates)), "control=flipped_labels"),
                key=lambda label: draw(self.seed, self.name, label),
            )
            for kind, candidates in _by_kind(task, match_field).items()
        }

        def flip(example: Example) -> str:
            circle = circles[_kind(example, match_field)]
            place = circle.index(label_of(example))
            right = set(map(normalise, example.references))
            for label in circle[place + 1 :] + circle[:place]:
                if normalise(label) not in right:
                    return label
            raise ConfigError(
                f"control=flipped_labels: every label of task '{task.name}' is a right answer of {example.id!r}"
            )

        return lambda selected: tuple(_with_target(shown, flip(shown.example)) for shown in selected)


@dataclass(frozen=True)
class ShuffledTargets:
    """The demonstrations of a prompt exchange their targets: the same inputs, the same targets, no mapping.

    They pass them on in a circle that the seed draws, so that none keeps its own; it may get an equal one where
    another demonstration has the same target.
    """

    seed: Seed

    name = "shuffled_targets"
    min_fewshot = 2

    def bind(self, task: Task, match_field: str | None) -> Change:
        """Return the exchange; raises ConfigError when the pool has one target only."""
        _targets(task, match_field, self.name)

        def shuffle(selected: Sequence[Demonstration]) -> tuple[Demonstration, ...]:
            circle = sorted((shown.example for shown in selected), key=lambda e: draw(self.seed, self.name, e.id))
            given = {
                receiver.id: giver.references[0]
                for giver, receiver in zip(circle, circle[1:] + circle[:1], strict=True)
            }
            return tuple(_with_target(shown, given[shown.example.id]) for shown in selected)

        return shuffle


@dataclass(frozen=True)
class NoTargets:
    """Questions without answers: each demonstration ends where its answer would begin."""

    name = "no_targets"
    min_fewshot = 1

    def bind(self, task: Task, match_field: str | None) -> Change:
        """Return what withholds the targets."""
        return lambda selected: tuple(
            replace(shown, example=replace(shown.example, references=())) for shown in selected
        )


@dataclass(frozen=True)
class UnrelatedInputs:
    """Inputs without meaning, targets as they are: every word becomes one from a list of everyday English nouns.

    Length, punctuation and layout stay, so that nothing but the meaning of the inputs is gone. Words of the pool's
    targets are not used, and the field that demonstrations are matched by is left as it is.
    """

    seed: Seed

    name = "unrelated_inputs"
    min_fewshot = 1

    def bind(self, task: Task, match_field: str | None) -> Change:
        """Return the replacement; raises ConfigError when the targets use all of the words."""
        targets = " ".join(normalise(text) for candidate in task.pool for text in candidate.references)
        taken = set(re.findall(r"\w+", targets))
        words = [word for word in WORDS if word not in taken]
        if not words:
            raise ConfigError(f"control=unrelated_inputs: the targets of task '{task.name}' use every word of the list")

        def scramble(example: Example, field: str) -> str:
            position = 0

            def other_word(match: re.Match[str]) -> str:
                nonlocal position
                position += 1
                place = f"{example.id}\0{field}\0{position}"
                word = words[_draw_number(self.seed, self.name, place, len(words))]
                return word.capitalize() if match[0][0].isupper() else word

            return re.sub(r"\w+", other_word, example.inputs[field])

        def change(shown: Demonstration) -> Demonstration:
            inputs = {
                field: text if field == match_field else scramble(shown.example, field)
                for field, text in shown.example.inputs.items()
            }
            return replace(shown, example=replace(shown.example, inputs=inputs))

        return lambda selected: tuple(map(change, selected))


@dataclass(frozen=True)
class InstructionOnly:
    """No demonstrations: what `num_fewshot=0` shows, as the end of a row of controls."""

    name = "instruction_only"
    min_fewshot = 1

    def bind(self, task: Task, match_field: str | None) -> Change:
        """Return what shows nothing."""
        return lambda selected: ()


def _targets(task: Task, match_field: str | None, control: str) -> Mapping[str | None, Sequence[str]]:
    """Return by kind the distinct targets, sorted; raises ConfigError where there is only one."""
    targets = {
        kind: sorted({label_of(candidate) for candidate in candidates})
        for kind, candidates in _by_kind(task, match_field).items()
    }
    for kind, found in targets.items():
        if len(found) < 2:
            among = "the pool" if match_field is None else f"the rows with {match_field}={kind!r}"
            raise ConfigError(f"control={control}: in {among} of task '{task.name}' {found[0]!r} is the only target")
    return targets


def _by_kind(task: Task, match_field: str | None) -> Mapping[str | None, Sequence[Example]]:
    kinds: defaultdict[str | None, list[Example]] = defaultdict(list)
    for candidate in task.pool:
        kinds[_kind(candidate, match_field)].append(candidate)
    return kinds


def _kind(example: Example, match_field: str | None) -> str | None:
    return None if match_field is None else example.inputs[match_field]


def _draw_number(seed: int, control: str, place: str, below: int) -> int:
    return int.from_bytes(draw(seed, control, place), "big") % below


def _with_target(shown: Demonstration, target: str) -> Demonstration:
    return replace(shown, example=replace(shown.example, references=(target,)))
