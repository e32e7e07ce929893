"""The strategy `balanced`."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from icl_eval.demonstrations.labels import label_of, read_labels
from icl_eval.demonstrations.ranking import Allowed, Demonstration, Ranking, draw_order, keep_allowed, random_key
from icl_eval.targets import Seed
from icl_eval.tasks.loading import Task


@dataclass(frozen=True)
class BalancedDemonstrations:
    """One example of each label in turn, in random order within a label.

    The order of the labels is random too. So no label is favored on average over seeds, even if the number of
    demonstrations is not a multiple of the number of labels. The ranking ends when a label runs out of examples,
    because the set could not stay balanced.
    """

    seed: Seed

    name = "balanced"
    measures_similarity = False
    shares_a_draw = True
    keeps_duplicates = False
    encoder = None

    def ranking(self, task: Task) -> Ranking:
        """Return a ranking that alternates between the labels; raises ConfigError if the answers are not labels."""
        labels = sorted(
            read_labels(task, "demonstrations=balanced"), key=lambda label: random_key(self.seed, "", label)
        )
        drawn: Mapping[str, list[int]] = defaultdict(list)
        for row in draw_order(task.pool, self.seed).tolist():
            drawn[label_of(task.pool[row])].append(row)
        groups = [np.array(drawn[label]) for label in labels]
        return lambda question, allowed: (Demonstration(task.pool[row]) for row in _take_turns(groups, allowed))


def _take_turns(groups: Sequence[npt.NDArray[np.int64]], allowed: Allowed) -> Iterator[int]:
    """Yield from each group of rows in turn until one is exhausted; skip groups without any allowed row."""
    queues = [keep_allowed(group, allowed) for group in groups]
    first = [(queue, row) for queue in queues if (row := next(queue, None)) is not None]
    for _, row in first:
        yield row
    while first:
        for queue, _ in first:
            following = next(queue, None)
            if following is None:
                return
            yield following
