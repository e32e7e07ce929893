import numpy as np
import pytest

from icl_eval.demonstrations import searching
from icl_eval.demonstrations.searching import SLACK, best_first


@pytest.fixture(params=[1, 3, 50, 5000])
def few_at_a_time(request, monkeypatch):
    monkeypatch.setattr(searching, "_FIRST_LOOK", request.param)


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
