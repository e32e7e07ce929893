"""Controls that show another mapping from inputs to labels, which a model can follow.

`bind_mapping` says which answers the mapping implies, right or not, so that outputs that follow it can be counted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from icl_eval.demonstrations.controls import (
    Change,
    Control,
    check_fraction,
    group_by_kind,
    is_changed,
    replace_target,
)
from icl_eval.demonstrations.labels import kind_of, label_of, read_labels
from icl_eval.demonstrations.ranking import Demonstration, random_key
from icl_eval.errors import ConfigError
from icl_eval.formatting import list_names
from icl_eval.targets import Seed
from icl_eval.tasks.examples import Example, normalize
from icl_eval.tasks.loading import Task

Mapped = Callable[[Example], Example | None]
"""Maps an example to itself with the answers that a shown mapping implies; None if it implies none."""


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
        check_fraction(self.fraction)

    def bind(self, task: Task, match_field: str | None) -> Change:
        """Return a function that flips the labels.

        Raises:
            ConfigError: If the answers of the task are not labels, or all labels are correct for a demonstration, or
                demonstrations have fields of their own.
        """
        flip = self._bind_flip(task, match_field)

        def change(shown: Demonstration) -> Demonstration:
            if not is_changed(self.seed, self.name, shown.example.id, self.fraction):
                return shown
            flipped = flip(shown.example)
            if flipped is None:
                raise ConfigError(
                    f"control=flipped_labels: every label of task '{task.name}' is a correct answer to "
                    f"{shown.example.id!r}"
                )
            return replace_target(shown, flipped, shown.example)

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
            kind: sorted(labels, key=lambda label: random_key(self.seed, self.name, label))
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
            drawn = sorted(free, key=lambda symbol: random_key(self.seed, f"{self.name}\0{kind or ''}", symbol))
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
        for kind, candidates in group_by_kind(task, match_field).items()
    }
