"""Candidates: what another random draw from the pool would show.

A model that always gives the same answer agrees with its demonstrations as often as that answer is in the pool. What
another draw would show says how much of an agreement is due to the demonstrations of the prompt.
"""

from collections import Counter, defaultdict

from icl_eval.demonstrations.labels import kind_of
from icl_eval.demonstrations.leaks import drop_duplicates, normalized_text
from icl_eval.demonstrations.ranking import Demonstration
from icl_eval.demonstrations.selection import FewShot
from icl_eval.errors import ConfigError
from icl_eval.tasks.examples import Example, compute_once, normalize
from icl_eval.tasks.loading import Task


class CandidateTargets:
    """The targets of a task's pool, as the control shows them."""

    def __init__(self, task: Task, few_shot: FewShot, match_field: str | None = None):
        """Count the targets of the pool.

        Args:
            task: The task.
            few_shot: Its choice of demonstrations. The control changes all candidates of a kind together.
            match_field: If given, only candidates with the question's value of this input field count.

        Raises:
            ConfigError: If the control cannot change one of the candidates.
        """
        self._match_field = match_field
        pool = task.pool if few_shot.selector.keeps_duplicates else drop_duplicates(task.pool, match_field)
        change = few_shot.control.bind(task, match_field)
        self._by_kind: defaultdict[str | None, Counter[str]] = defaultdict(Counter)
        self._by_text: defaultdict[tuple[str | None, str], Counter[str]] = defaultdict(Counter)
        kinds: defaultdict[str | None, list[Example]] = defaultdict(list)
        for candidate in pool:
            kinds[kind_of(candidate, match_field)].append(candidate)
        for kind, candidates in kinds.items():
            texts = {candidate.id: normalized_text(candidate) for candidate in candidates}
            for shown in change(tuple(map(Demonstration, candidates))):
                for target in shown.example.references[:1]:
                    self._by_kind[kind][normalize(target)] += 1
                    self._by_text[kind, texts[shown.example.id]][normalize(target)] += 1
        self._totals = {kind: targets.total() for kind, targets in self._by_kind.items()}

    def count(self, question: Example, target: str) -> tuple[int, int]:
        """Return how many of the candidates that a question may see have a target, and how many there are."""
        kind = kind_of(question, self._match_field)
        targets = self._by_kind.get(kind, Counter())
        copies = self._by_text.get((kind, normalized_text(question)), Counter())
        wanted = normalize(target)
        return targets[wanted] - copies[wanted], self._totals.get(kind, 0) - copies.total()


def count_candidates(task: Task, few_shot: FewShot, match_field: str | None = None) -> CandidateTargets | None:
    """Return the targets of a task's pool; None if the control cannot change all of them.

    A label of the pool may have no wrong label to be flipped to. That is a mistake only where it is shown.
    """
    key = task.name, few_shot.control, few_shot.selector.keeps_duplicates, match_field

    def count() -> CandidateTargets | None:
        try:
            return CandidateTargets(task, few_shot, match_field)
        except ConfigError:
            return None

    return compute_once(task.pool, "targets", key, count)
