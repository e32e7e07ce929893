import numpy as np
import pytest
from scipy.special import ndtr

from icl_eval.analysis.wording import wording_spread


def right_answers(generator, deviation, num_questions=64):
    """Return answers after 12 wordings and the true best minus worst."""
    wordings = generator.normal(0, deviation, (12, 1))
    chances = ndtr(wordings + generator.normal(0, 1, num_questions) + generator.normal(0, 0.3, (12, num_questions)))
    true = ndtr(wordings / (1 + 1 + 0.09) ** 0.5)
    return (generator.random(chances.shape) < chances).astype(float), float(np.ptp(true))


@pytest.mark.parametrize(("deviation", "at_most"), [(0.0, 0.5), (0.1, 0.7), (0.2, 0.95)])
def test_the_true_spread_is_covered_and_estimated_better_than_by_the_observed_one(deviation, at_most):
    generator = np.random.default_rng(0)
    covered, errors = [], []
    for _ in range(80):
        values, true = right_answers(generator, deviation)
        found = wording_spread(values, ("template",))
        covered.append(found.ci95[0] - 1e-9 <= true <= found.ci95[1])
        errors.append((found.spread - true, found.true_spread - true))
    assert np.mean(covered) >= 0.91
    observed, corrected = (np.array(errors) ** 2).mean(axis=0) ** 0.5
    assert corrected < at_most * observed


def test_many_questions_leave_the_spread_as_it_is():
    values, _ = right_answers(np.random.default_rng(1), 0.3, 20_000)
    found = wording_spread(values, ("template",))
    assert found.spread == pytest.approx(np.ptp(values.mean(axis=1)))
    assert found.true_spread == pytest.approx(found.spread, rel=0.03)
    assert found.ci95[1] - found.ci95[0] < 0.05 * found.spread + 0.02


def test_parts_of_the_wording_are_one_wording_together_and_draws_are_averaged():
    values = np.random.default_rng(2).random((2, 3, 4, 20))  # separator, draw, variant, question
    found = wording_spread(values, ("template.separator", "demonstrations.seed", "template.variant"))
    assert (found.factors, found.count) == (("template.separator", "template.variant"), 8)
    assert found.spread == pytest.approx(np.ptp(values.mean(axis=(1, 3))))
    assert wording_spread(values[:, :, 0], ("order.seed", "demonstrations.seed")) is None
