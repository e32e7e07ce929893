import random
from dataclasses import replace
from itertools import combinations
from math import comb

import pytest
from sample_runs import FIRST

from icl_eval.metrics import BLEU, ExactMatch, TokenF1
from icl_eval.metrics.intervals import share_interval
from icl_eval.metrics.measurements import measure_records
from icl_eval.metrics.samples import any_of
from icl_eval.metrics.scoring import score_statistics
from icl_eval.runs.records import SampledCompletion


def asked(number, prediction, *predictions):
    samples = tuple(SampledCompletion(text, text, 1, "stop", "\n") for text in predictions)
    return replace(FIRST, example_id=f"q{number}", targets=("Paris",), prediction=prediction, samples=samples)


@pytest.mark.parametrize("num_samples", [1, 5, 8])
def test_any_of_k_is_the_share_of_subsets_with_a_right_sample(num_samples):
    for num_right in range(num_samples + 1):
        right = [number < num_right for number in range(num_samples)]
        for k in range(1, num_samples + 1):
            subsets = list(combinations(right, k))
            assert any_of(k, num_samples, num_right) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-15)


def test_the_vote_and_the_samples_are_scored_with_one_value_per_question():
    records = [
        asked(0, "Paris", "Paris", "Rome", "Paris"),
        asked(1, "Oslo", "Oslo", "Oslo", "Paris"),
        asked(2, "Rome", "Rome", "Oslo", "Bonn"),
        asked(3, "Paris", "Paris", "Paris", "Paris"),
    ]
    measured = {each.metric: each.statistics for each in measure_records("qa", records, [ExactMatch(), BLEU()])}
    assert {name: statistics.per_example for name, statistics in measured.items() if name != "bleu"} == {
        "exact_match": (1, 0, 0, 1),
        "exact_match_mean_of_samples": (2 / 3, 1 / 3, 0, 1),
        "exact_match_any_of_2": (1, 2 / 3, 0, 1),
        "exact_match_any_of_3": (1, 1, 0, 1),
    }  # and BLEU, which is no mean, has the vote alone
    shares = [name for name, statistics in measured.items() if statistics.is_share]
    assert shares == ["exact_match", "exact_match_any_of_3"]  # the others are between 0 and 1
    scores = {name: score_statistics(name, True, statistics, seed=0) for name, statistics in measured.items()}
    assert scores["exact_match_mean_of_samples"].value == 0.5
    assert scores["exact_match_any_of_3"].ci95 == share_interval(0.75, 4)  # of 4 questions, not of 12 samples
    assert scores["exact_match_mean_of_samples"].ci95 != share_interval(0.5, 4)
    assert scores["exact_match_any_of_2"].signature == f"{scores['exact_match'].signature}|samples:any_of_2"


def test_a_metric_that_is_no_share_has_the_mean_of_samples_alone():
    [vote, mean] = measure_records("qa", [asked(0, "Paris", "Paris", "in Paris", "")], [TokenF1()])
    assert (vote.metric, mean.metric) == ("token_f1", "token_f1_mean_of_samples")
    assert mean.score == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_one_completion_has_no_scores_of_samples():
    assert [each.metric for each in measure_records("qa", [asked(0, "Paris")], [ExactMatch()])] == ["exact_match"]


def test_copies_of_one_sample_do_not_narrow_an_interval():
    """Samples are not independent questions: twelve equal ones say what one says."""
    draw = random.Random(0)
    said = [draw.choice(["Paris", "Rome"]) for _ in range(30)]
    errors = []
    for copies in (2, 12):
        records = [asked(number, text, *[text] * copies) for number, text in enumerate(said)]
        found = {each.metric: each.statistics for each in measure_records("qa", records, [ExactMatch()])}
        errors.append(score_statistics("m", True, found["exact_match_mean_of_samples"], seed=0).stderr)
    share = said.count("Paris") / 30
    assert errors[0] == errors[1] == pytest.approx((share * (1 - share) / 30) ** 0.5, rel=0.1)


@pytest.mark.parametrize(("k", "num_samples"), [(4, 16), (8, 16)])
def test_any_of_k_has_no_bias(k, num_samples):
    """Over all outcomes of samples that are right with chance q, its mean is the chance of a right one among k."""
    q = 0.2
    weights = [comb(num_samples, c) * q**c * (1 - q) ** (num_samples - c) for c in range(num_samples + 1)]
    mean = sum(weight * any_of(k, num_samples, c) for c, weight in enumerate(weights))
    assert mean == pytest.approx(1 - (1 - q) ** k, abs=1e-12)
