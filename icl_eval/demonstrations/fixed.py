"""The strategy `fixed`."""

from dataclasses import dataclass

from icl_eval.demonstrations.ranking import Demonstration, Ranking
from icl_eval.errors import ConfigError
from icl_eval.tasks.loading import Task


@dataclass(frozen=True)
class FixedDemonstrations:
    """The demonstrations with the ids that the user lists, in that order."""

    ids: list[str]

    name = "fixed"
    measures_similarity = False
    shares_a_draw = False
    keeps_duplicates = True
    encoder = None

    def ranking(self, task: Task) -> Ranking:
        """Return the candidates with the given ids for every question; raises ConfigError for an unknown id."""
        rows = {candidate.id: row for row, candidate in enumerate(task.pool)}
        for demonstration_id in self.ids:
            if demonstration_id not in rows:
                raise ConfigError(
                    f"demonstrations.ids: {demonstration_id!r} is not in the pool of task '{task.name}' "
                    f"(it holds {len(rows)}, such as {task.pool[0].id!r})"
                )
        if len(set(self.ids)) < len(self.ids):
            raise ConfigError("demonstrations.ids: an id is given twice")
        chosen = [rows[demonstration_id] for demonstration_id in self.ids]
        return lambda question, allowed: (Demonstration(task.pool[row]) for row in chosen if allowed[row])
