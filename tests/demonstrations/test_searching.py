import numpy as np
import pytest

from icl_eval.demonstrations import searching
from icl_eval.demonstrations.searching import SLACK, best_choices, best_first


@pytest.fixture(params=[1, 3, 50, 5000])
def few_at_a_time(request, monkeypatch):
    for name in ("_FIRST_LOOK", "_ACTIVE", "_EVALUATED_TOGETHER"):
        monkeypatch.setattr(searching, name, request.param)


@pytest.mark.parametrize("levels", [1, 4, 100_000])
def test_the_best_come_first_however_wrong_the_approximation_is_within_its_bounds(levels, few_at_a_time):
    rng = np.random.default_rng(levels)
    scores = np.round(rng.integers(0, levels, 400) * 2e-6, 6)  # many within the slack of each other, or equal
    ties = rng.permutation(400)
    allowed = rng.random(400) < 0.7
    found = list(best_first(scores + rng.uniform(-SLACK, SLACK, 400), scores.__getitem__, allowed, ties))
    rows = np.flatnonzero(allowed)
    order = rows[np.lexsort((ties[rows], -scores[rows]))]
    assert found == [(row, scores[row]) for row in order]


@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_each_choice_is_the_one_with_the_largest_gain(levels, few_at_a_time):
    rng = np.random.default_rng(levels)
    worth = np.round(rng.integers(0, levels, (60, 20)) / levels, 3)  # of each candidate for each of 20 readers
    ties = rng.permutation(60)
    covered = np.zeros(20)  # a reader has the best of what was chosen

    def gain(rows):
        return np.round(np.maximum(worth[rows] - covered, 0).sum(1), 6)

    bounds = np.where(np.arange(60) % 7, worth.sum(1) + rng.random(60), -np.inf)
    left = list(np.flatnonzero(bounds > -np.inf))
    for row in best_choices(bounds, gain, ties):
        assert row == max(left, key=lambda each: (gain(np.array([each]))[0], -ties[each]))
        left.remove(row)
        covered = np.maximum(covered, worth[row])
    assert left == []
