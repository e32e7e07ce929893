"""Controls: which property of the demonstrations a model uses, measured by removing one property at a time.

Demonstrations provide inputs, targets, the pairing of both, and a format. Each control destroys one of these, and the
loss in score shows its contribution (Min et al., 2022, Rethinking the Role of Demonstrations, arXiv:2202.12837). A
control changes the selected demonstrations and never the selection. It depends only on task, demonstrations and seed,
so questions with the same demonstrations see the same changed ones.

Two of them show a mapping that a model can follow, from inputs to other answers than the right ones: `flipped_labels`
and `abstract_labels`. `bind_mapping` says which answers it implies.

Fields that only demonstrations have, such as a rationale, argue for a target. They move with it, since a rationale for
another target would contradict what is shown.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from icl_eval.demonstrations.labels import kind_of, label_of, read_labels
from icl_eval.demonstrations.ranking import Demonstration, draw
from icl_eval.demonstrations.words import WORDS
from icl_eval.errors import ConfigError
from icl_eval.formatting import list_names
from icl_eval.targets import Seed
from icl_eval.tasks.examples import Example, normalize
from icl_eval.tasks.loading import Task

Mapped = Callable[[Example], Example | None]
"""Maps an example to itself with the answers that a shown mapping implies; None if it implies none."""

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
        _check_fraction(self.fraction)

    def bind(self, task: Task, match_field: str | None) -> Change:
        """Return a function that draws the targets; raises ConfigError if the pool has only one target."""
        targets = _group_targets(task, match_field, self.name)
        givers: defaultdict[tuple[str | None, str], list[Example]] = defaultdict(list)
        for candidate in task.pool:
            givers[kind_of(candidate, match_field), label_of(candidate)].append(candidate)

        def draw_target(shown: Demonstration) -> Demonstration:
            example = shown.example
            if not _is_changed(self.seed, self.name, example.id, self.fraction):
                return shown
            kind = kind_of(example, match_field)
            target = targets[kind][_draw_number(self.seed, self.name, example.id, len(targets[kind]))]
            if target == label_of(example) or not example.demonstration_fields:
                return _replace_target(shown, target, example)
            possible = givers[kind, target]
            number = _draw_number(self.seed, self.name, f"{example.id}\0fields", len(possible))
            return _replace_target(shown, target, possible[number])

        return lambda selected: tuple(map(draw_target, selected))


@dataclass(frozen=True)
class FlippedLabels:
    """Each label is consistently replaced by another one that is not a correct answer to the demonstration.

    A model that follows its demonstrations then gives wrong answers, the more of them the more labels are flipped (Wei
    et al., 2023, Larger language models do in-context learning differently, arXiv:2303.03846). Two labels are swapped;
    more labels are each replaced by the next one in a random cycle. Demonstrations with fields of their own are
    refused: nothing in the pool argues for the wrong label of a question.
    """

    seed: Seed
    fraction: float = 1.0
    """The probability with which a demonstration's label is flipped. Those of a smaller fraction are among those of a
    larger one."""

    name = "flipped_labels"
    min_fewshot = 1

    def __post_init__(self) -> None:
        _check_fraction(self.fraction)

    def bind(self, task: Task, match_field: str | None) -> Change:
        """Return a function that flips the labels.

        Raises:
            ConfigError: If the answers of the task are not labels, or all labels are correct for a demonstration, or
                demonstrations have fields of their own.
        """
        flip = self._bind_flip(task, match_field)

        def change(shown: Demonstration) -> Demonstration:
            if not _is_changed(self.seed, self.name, shown.example.id, self.fraction):
                return shown
            flipped = flip(shown.example)
            if flipped is None:
                raise ConfigError(
                    f"control=flipped_labels: every label of task '{task.name}' is a correct answer to "
                    f"{shown.example.id!r}"
                )
            return _replace_target(shown, flipped, shown.example)

        return lambda selected: tuple(map(change, selected))

    def bind_mapping(self, task: Task, match_field: str | None) -> Mapped:
        """Return the function that gives an example its flipped label as the only answer; raises as `bind` does."""
        flip = self._bind_flip(task, match_field)

        def follow(example: Example) -> Example | None:
            flipped = flip(example)
            return None if flipped is None else replace(example, references=(flipped,))

        return follow

    def _bind_flip(self, task: Task, match_field: str | None) -> Callable[[Example], str | None]:
        """Return the function from an example to its flipped label; None if it has none."""
        _refuse_rationales(task, self.name)
        cycles = {
            kind: sorted(labels, key=lambda label: draw(self.seed, self.name, label))
            for kind, labels in _read_labels_by_kind(task, match_field, self.name).items()
        }

        def flip(example: Example) -> str | None:
            cycle = cycles.get(kind_of(example, match_field), [])
            if label_of(example) not in cycle:
                return None
            place = cycle.index(label_of(example))
            correct = set(map(normalize, example.references))
            return next(
                (label for label in cycle[place + 1 :] + cycle[:place] if normalize(label) not in correct), None
            )

        return flip


@dataclass(frozen=True)
class AbstractLabels:
    """Each label is replaced by an arbitrary symbol, in demonstrations, choices and right answers alike.

    The label no longer says what the task is, so that it has to be learned from the demonstrations: task learning,
    while the score with `random_targets` is task recognition (Pan et al., 2023, What In-Context Learning "Learns"
    In-Context, arXiv:2305.09731). Symbols are drawn for the labels of each kind, one for one; those that are labels
    themselves are not used. An instruction that names the labels still names them.
    """

    seed: Seed
    symbols: Sequence[str]

    name = "abstract_labels"
    min_fewshot = 1

    def __post_init__(self) -> None:
        if len(set(map(normalize, self.symbols))) < len(self.symbols) or "" in map(normalize, self.symbols):
            raise ConfigError(f"symbols=[{', '.join(self.symbols)}]: must be different, and not empty")

    def bind(self, task: Task, match_field: str | None) -> Change:
        """Return a function that replaces the labels.

        Raises:
            ConfigError: If the answers of the task are not labels, there are fewer symbols than labels, or
                demonstrations have fields of their own.
        """
        follow = self.bind_mapping(task, match_field)
        return lambda selected: tuple(replace(shown, example=follow(shown.example)) for shown in selected)

    def bind_mapping(self, task: Task, match_field: str | None) -> Callable[[Example], Example]:
        """Return the function that gives an example the symbols of its answers and choices; raises as `bind` does.

        The function raises ConfigError if no answer, or not every choice, is a label of the pool.
        """
        _refuse_rationales(task, self.name)
        labels = _read_labels_by_kind(task, match_field, self.name)
        taken = {normalize(label) for own in labels.values() for label in own}
        free = [symbol for symbol in self.symbols if normalize(symbol) not in taken]
        symbols: dict[str | None, dict[str, str]] = {}
        for kind, own in labels.items():
            if len(own) > len(free):
                raise ConfigError(
                    f"control=abstract_labels: task '{task.name}' has {len(own)} labels, and control.symbols has only "
                    f"{len(free)} symbols that are no labels"
                )
            drawn = sorted(free, key=lambda symbol: draw(self.seed, f"{self.name}\0{kind or ''}", symbol))
            symbols[kind] = dict(zip(own, drawn, strict=False))

        def follow(example: Example) -> Example:
            known = symbols.get(kind_of(example, match_field), {})
            references = tuple(known[label] for label in example.references if label in known)
            unknown = [choice for choice in example.choices if choice not in known]
            if not references or unknown:
                what = f"choice {unknown[0]!r}" if references else f"answer {label_of(example)!r}"
                raise ConfigError(
                    f"control=abstract_labels: the {what} of {example.id!r} is no label in the pool of task "
                    f"'{task.name}'"
                )
            return replace(example, references=references, choices=tuple(known[choice] for choice in example.choices))

        return follow


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
            cycle = sorted((shown.example for shown in selected), key=lambda e: draw(self.seed, self.name, e.id))
            givers = {receiver.id: giver for giver, receiver in zip(cycle, cycle[1:] + cycle[:1], strict=True)}
            shuffled = ((shown, givers[shown.example.id]) for shown in selected)
            return tuple(_replace_target(shown, giver.references[0], giver) for shown, giver in shuffled)

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


def bind_mapping(control: Control, task: Task, match_field: str | None) -> Mapped | None:
    """Return the function that gives an example the answers that the shown mapping implies; None if there is none.

    Raises:
        ConfigError: If the control is not applicable to the task.
    """
    if isinstance(control, FlippedLabels | AbstractLabels):
        return control.bind_mapping(task, match_field)
    return None


def _refuse_rationales(task: Task, control: str) -> None:
    if task.demonstration_fields:
        raise ConfigError(
            f"control={control}: demonstrations of task '{task.name}' have more than a label "
            f"({list_names(task.demonstration_fields)}), which would argue for the right one; leave out its "
            "demonstration_fields, or use shuffled_targets or random_targets"
        )


def _read_labels_by_kind(task: Task, match_field: str | None, control: str) -> Mapping[str | None, Sequence[str]]:
    """Return the labels of each kind, sorted; raises ConfigError if the answers are not labels."""
    return {
        kind: read_labels(replace(task, pool=tuple(candidates)), f"control={control}")
        for kind, candidates in _group_by_kind(task, match_field).items()
    }


def _check_fraction(fraction: float) -> None:
    if not 0 <= fraction <= 1:
        raise ConfigError(f"fraction={fraction}: must be between 0 and 1")


def _is_changed(seed: int, control: str, example_id: str, fraction: float) -> bool:
    """Return whether a demonstration is one of the changed ones, whatever else is shown and whatever the others are."""
    place = int.from_bytes(draw(seed, f"{control}\0fraction", example_id)[:8], "big")
    return place < fraction * 2**64


def _group_targets(task: Task, match_field: str | None, control: str) -> Mapping[str | None, Sequence[str]]:
    """Return the distinct targets of each kind, sorted; raises ConfigError if a kind has only one."""
    targets = {
        kind: sorted({label_of(candidate) for candidate in candidates})
        for kind, candidates in _group_by_kind(task, match_field).items()
    }
    for kind, distinct in targets.items():
        if len(distinct) < 2:
            rows = "the pool" if match_field is None else f"the rows with {match_field}={kind!r}"
            raise ConfigError(f"control={control}: {distinct[0]!r} is the only target in {rows} of task '{task.name}'")
    return targets


def _group_by_kind(task: Task, match_field: str | None) -> Mapping[str | None, Sequence[Example]]:
    kinds: defaultdict[str | None, list[Example]] = defaultdict(list)
    for candidate in task.pool:
        kinds[kind_of(candidate, match_field)].append(candidate)
    return kinds


def _draw_number(seed: int, control: str, place: str, below: int) -> int:
    return int.from_bytes(draw(seed, control, place), "big") % below


def _replace_target(shown: Demonstration, target: str, giver: Example) -> Demonstration:
    """Return a demonstration with another target, and with the demonstration fields of an example that has it."""
    fields = giver.demonstration_fields
    return replace(shown, example=replace(shown.example, references=(target,), demonstration_fields=fields))
