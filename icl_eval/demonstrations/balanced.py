"""The strategy `balanced`."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from icl_eval.demonstrations.labels import label_of, read_labels
from icl_eval.demonstrations.ranking import Allowed, Demonstration, Ranking, draw
from icl_eval.targets import Seed
from icl_eval.tasks.examples import Example, Task


@dataclass(frozen=True)
class BalancedDemonstrations:
    """One example of each label in turn, drawn by seed within a label.

    The labels take turns in an order that the seed draws too, so that over seeds no label is favoured where the
    number of demonstrations is no multiple of the number of labels. The ranking ends when it is the turn of a
    label that has no example left: from there on nothing would be balanced.
    """

    seed: Seed

    name = "balanced"
    measures_similarity = False
    encoder = None

    def ranking(self, task: Task) -> Ranking:
        """Return the round over the labels; raises ConfigError when the task's answers are no labels."""
        labels = sorted(read_labels(task, "demonstrations=balanced"), key=lambda label: draw(self.seed, "", label))
        drawn: Mapping[str, list[Example]] = defaultdict(list)
        for candidate in sorted(task.pool, key=lambda candidate: draw(self.seed, "", candidate.id)):
            drawn[label_of(candidate)].append(candidate)
        groups = [drawn[label] for label in labels]
        return lambda question, allowed: map(Demonstration, _take_turns(groups, allowed))


def _take_turns(groups: Sequence[Sequence[Example]], allowed: Allowed) -> Iterator[Example]:
    """Yield from each group in turn until one is used up; a group with nothing allowed takes no turns."""
    queues = [filter(allowed, group) for group in groups]
    first = [(queue, candidate) for queue in queues if (candidate := next(queue, None)) is not None]
    for _, candidate in first:
        yield candidate
    while first:
        for queue, _ in first:
            following = next(queue, None)
            if following is None:
                return
            yield following
