from dataclasses import replace
from math import log
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from sample_runs import FIRST

import icl_eval
from icl_eval.analysis.order_probing import (
    entropy,
    global_entropy,
    local_entropy,
    order_probing_table,
    order_probings,
    rank_correlation,
)
from icl_eval.runs.records import AnswerLikelihood, QuestionLikelihood


def likelihood(**logprobs):
    choices = tuple(AnswerLikelihood(text, value, 1, 1, None) for text, value in logprobs.items())
    return QuestionLikelihood(choices[:1], choices, None)


def predicting(*labels, among="abc", margin=1.0):
    """Return the likelihoods of questions for which these labels are the most probable ones."""
    return [likelihood(**{text: margin * (text == label) - 5 for text in among}) for label in labels]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("aaaa", 0.0),
        ("abcabc", log(3)),
        ("aaab", -0.75 * log(0.75) - 0.25 * log(0.25)),
    ],
)
def test_global_entropy_is_0_for_one_label_and_the_logarithm_of_their_number_where_all_are_as_frequent(
    labels, expected
):
    assert global_entropy(predicting(*labels)) == pytest.approx(expected)
    assert global_entropy(predicting(*labels, margin=0.01)) == pytest.approx(expected)  # however sure


def test_local_entropy_is_how_unsure_single_predictions_are_whatever_they_are_together():
    assert local_entropy(predicting("a", "a", margin=0.0)) == pytest.approx(log(3))
    assert local_entropy(predicting("a", "b", "c", margin=800.0)) == 0.0
    shares = np.array([0.7, 0.2, 0.1])
    one = likelihood(**dict(zip("abc", np.log(shares) - 40, strict=True)))  # a constant changes nothing
    assert local_entropy([one]) == pytest.approx(scipy.stats.entropy(shares))
    assert local_entropy([one, *predicting("a", margin=800.0)]) == pytest.approx(scipy.stats.entropy(shares) / 2)
    assert str(entropy(np.array([1.0, 0.0]))) == "0.0"


def test_where_choices_differ_by_question_there_are_no_labels():
    others = [*predicting("a", "b"), *predicting("d", among="ad")]
    assert global_entropy(others) is None
    assert local_entropy(others) > 0
    assert global_entropy(predicting("a", among="abc") + predicting("b", among="cba")) == pytest.approx(log(2))
    ties = predicting("a", among="abc", margin=0.0) + predicting("a", among="cba", margin=0.0)
    assert global_entropy(ties) == 0.0  # whatever the order of the choices


def test_the_rank_correlation_is_that_of_scipy_and_missing_where_a_side_is_constant():
    first, second = [0.0, 0.5, 0.2, 0.2], [0.1, 0.9, 0.5, 0.3]
    assert rank_correlation(first, second) == pytest.approx(scipy.stats.spearmanr(first, second).statistic)
    assert rank_correlation([0.1] * 4, second) is None
    assert rank_correlation(first, [0.5] * 4) is None
    assert rank_correlation([None] * 4, second) is None


@pytest.fixture
def cells_of(monkeypatch):
    """Return runs of one task, each with an order of demonstrations, its predictions and its score."""

    def cells_of(*cells):
        def run_of(order, likelihoods, score):
            records = [
                replace(FIRST, example_id=f"q{number}", demonstration_ids=tuple(order), likelihood=each)
                for number, each in enumerate(likelihoods)
            ]
            results = {"qa": SimpleNamespace(metrics={"choice_accuracy": None})}
            report = SimpleNamespace(results=results)
            return SimpleNamespace(report=report, records=lambda task: records, score=score)

        runs = [run_of(*cell) for cell in cells]
        options = [{"num_fewshot": "2", "order.seed": str(seed)} for seed in range(len(runs))]
        return runs, options

    def measure_answers(run, task, records):
        return [SimpleNamespace(metric="choice_accuracy", score=run.score)]

    monkeypatch.setattr("icl_eval.analysis.order_probing.measure_answers", measure_answers)
    return cells_of


CELLS = (
    ("xyz", predicting(*"aaaaaa"), 0.3),
    ("yxz", predicting(*"abcabc", margin=2.0), 0.7),
    ("zxy", predicting(*"abcabc", margin=1.0), 0.9),
    ("zyx", predicting(*"aaaabb"), 0.5),
)


def test_orders_are_ranked_by_global_entropy_and_then_by_local_entropy_and_compared_with_their_scores(cells_of):
    [analysis], notes = order_probings(*cells_of(*CELLS))
    assert (analysis.task, analysis.conditions, analysis.n, notes) == ("qa", {"num_fewshot": "2"}, 6, [])
    assert ["".join(each.demonstration_ids) for each in analysis.orders] == ["zxy", "yxz", "zyx", "xyz"]
    assert analysis.orders[0].options == {"order.seed": "2"}
    assert [each.global_entropy for each in analysis.orders] == pytest.approx(
        [log(3), log(3), log(3) - 2 / 3 * log(2), 0.0]
    )
    assert (analysis.global_correlation, analysis.mean_score) == (pytest.approx(0.9486833), pytest.approx(0.6))
    assert order_probing_table([analysis]).rows[0][:4] == ("qa", "2", 1, "order.seed=2")


def test_no_reference_is_read_for_the_entropies(cells_of):
    runs, options = cells_of(*CELLS)
    for run in runs:
        records = [replace(each, targets=("another",)) for each in run.records("qa")]
        run.records = lambda task, records=records: records
    assert order_probings(runs, options) == order_probings(*cells_of(*CELLS))


def test_cells_with_the_same_order_count_once(cells_of):
    [analysis], _ = order_probings(*cells_of(*CELLS, ("xyz", predicting(*"bbbbbb"), 0.4)))
    assert [each.options["order.seed"] for each in analysis.orders] == ["2", "1", "3", "0"]
    assert order_probings(*cells_of(*CELLS[:2], *CELLS[:2])) == ([], [])  # two orders are too few


def test_what_is_no_order_of_one_set_is_not_ranked(cells_of):
    runs, options = cells_of(*CELLS)
    assert order_probings(runs, [{**own, "demonstrations.seed": str(n)} for n, own in enumerate(options)]) == ([], [])
    records = list(runs[0].records("qa"))
    records[0] = replace(records[0], demonstration_ids=("x", "z", "y"))
    runs[0].records = lambda task: records
    assert order_probings(runs, options) == (
        [],
        ["order probing, qa num_fewshot=2: questions have demonstrations of their own, so that no order is shared"],
    )
    runs, options = cells_of(*CELLS[:3], ("zyx", predicting(*"aaa"), 0.5))
    assert order_probings(runs, options)[1] == [
        "order probing, qa num_fewshot=2: cells answered different questions and cannot be analysed together"
    ]
    for run in runs:
        run.report.results["qa"].metrics.clear()
    assert order_probings(runs, options) == ([], [])


@pytest.mark.slow
def test_orders_of_the_shipped_model_are_probed_from_their_records(tmp_path):
    labels = ("tate", "vuna")
    rows = [
        {"question": f"{first} {second}", "references": [label]}
        for label, second in zip(labels, ("nare", "kito"), strict=True)
        for first in ("vula", "fiko", "rebi", "nofu", "dame", "suna")
    ]
    fields = {"question": "question", "references": "references", "choices": f"{list(labels)}"}
    task = icl_eval.Task.of_rows(
        "rule", pool=rows[1::3], test=[*rows[::3], *rows[2::3]], fields=fields, instruction="Name the group.",
        labels={"question": "Input", "answer": "Output"},
    )  # fmt: skip
    model = icl_eval.load_model("icl_t5", device="cpu")
    options = ("likelihood=choices", "max_new_tokens=0", "order=random", "num_fewshot=4")
    runs = [
        icl_eval.evaluate(*options, f"order.seed={seed}", model=model, task=task, folder=tmp_path / str(seed))
        for seed in range(5)
    ]
    [analysis] = icl_eval.analyse(runs).order_probing
    assert analysis.n == 8
    assert len({each.demonstration_ids for each in analysis.orders}) == len(analysis.orders) >= 3
    assert all(0 <= each.local_entropy <= log(2) + 1e-9 for each in analysis.orders)
    scores = {run.report.results["rule"].metrics["choice_accuracy"].score for run in runs}
    assert {each.score for each in analysis.orders} <= scores
