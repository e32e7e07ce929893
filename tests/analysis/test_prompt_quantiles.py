from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from icl_eval.analysis.designs import SweepCell
from icl_eval.analysis.prompts import QUANTILES, scores_over_prompts
from icl_eval.analysis.rasch import fit_rasch
from icl_eval.analysis.sweeps import analyse_runs
from icl_eval.metrics.means import mean_statistics
from icl_eval.metrics.measurements import Measurement


def planted(generator, num_prompts, num_questions, num_seen, deviation):
    """Return answers, NaN where a question is not seen, and the quantiles of the prompts' true scores."""
    abilities = generator.normal(0.5, deviation, num_prompts)
    chances = expit(abilities[:, None] - generator.normal(0, 1.2, num_questions))
    answers = (generator.random(chances.shape) < chances).astype(float)
    for row in answers:
        row[generator.permutation(num_questions)[num_seen:]] = np.nan
    return answers, np.quantile(chances.mean(axis=1), QUANTILES)


def error(found, true):
    return float(np.mean((np.array(found) - true) ** 2) ** 0.5)


@pytest.mark.parametrize(
    ("num_prompts", "num_questions", "num_seen", "deviation", "at_most"),
    [(100, 64, 8, 0.5, 0.5), (100, 64, 8, 0.2, 0.3), (36, 64, 64, 0.2, 0.7), (100, 200, 8, 0.5, 0.5)],
)
def test_quantiles_with_noise_taken_off_are_nearer_to_the_planted_ones(
    num_prompts, num_questions, num_seen, deviation, at_most
):
    generator = np.random.default_rng(0)
    errors = []
    for _ in range(3):
        answers, true = planted(generator, num_prompts, num_questions, num_seen, deviation)
        printed = np.quantile(np.nanmean(answers, axis=1), QUANTILES)
        errors.append((error(printed, true), error(fit_rasch(answers).quantiles(QUANTILES), true)))
    raw, corrected = np.mean(errors, axis=0)
    assert corrected < at_most * raw


def test_an_answer_does_not_count_for_its_prompt_and_for_its_question():
    generator = np.random.default_rng(6)
    widths = []
    for _ in range(3):
        answers, true = planted(generator, 100, 400, 8, 0.8)  # two answers to a question
        found = fit_rasch(answers[:, ~np.isnan(answers).all(axis=0)]).quantiles(QUANTILES)
        widths.append((found[-1] - found[0]) / (true[-1] - true[0]))
    assert 0.85 < np.mean(widths) < 1.1  # 0.75 if the difficulty of a question is fitted to the same answer


def test_many_questions_leave_the_quantiles_as_they_are():
    answers, _ = planted(np.random.default_rng(1), 40, 800, 800, 0.5)
    printed = np.quantile(answers.mean(axis=1), QUANTILES).tolist()
    assert fit_rasch(answers).quantiles(QUANTILES) == pytest.approx(printed, abs=0.03)


def test_answers_that_a_prompt_did_not_give_are_expected_from_those_of_others():
    answers = np.array([[1.0, 0.0]] * 20 + [[1.0, np.nan]])
    expected = fit_rasch(answers).expected
    assert expected[-1, 1] < 0.2 < 0.8 < expected[-1, 0]


def cells(answers, is_share=True, **more):
    """Return the cells of prompts with these answers."""
    found = []
    for number, row in enumerate(answers):
        seen = np.flatnonzero(~np.isnan(row))
        statistics = mean_statistics(row[seen].tolist(), "signature", kind="share" if is_share else "mean")
        measured = Measurement("qa", "exact_match", True, tuple(f"q{place:03}" for place in seen), statistics)
        found.append(SweepCell({"template.variant": str(number), **more}, measured))
    return found


def test_cells_that_saw_other_questions_have_quantiles_as_printed_on_all_questions_and_without_noise():
    answers, _ = planted(np.random.default_rng(2), 30, 40, 8, 0.3)
    (found,) = scores_over_prompts(cells(answers, model="a"))
    assert (found.conditions, found.options, found.num_prompts) == ({"model": "a"}, ("template.variant",), 30)
    assert (found.n, found.n_per_prompt) == (40, 8)
    printed, on_all, true = found.quantiles.printed, found.quantiles.all_questions, found.quantiles.true
    assert printed == pytest.approx(np.quantile(np.nanmean(answers, axis=1), QUANTILES))
    expected = np.where(np.isnan(answers), fit_rasch(answers).expected, answers).mean(axis=1)
    assert on_all == pytest.approx(np.quantile(expected, QUANTILES))
    assert [kind for kind, _ in found.kinds] == ["as printed", "on all questions", "noise taken off"]
    assert true[-1] - true[0] < printed[-1] - printed[0]


def test_cells_that_saw_all_questions_are_not_guessed_at():
    answers, _ = planted(np.random.default_rng(3), 12, 20, 20, 0.3)
    (found,) = scores_over_prompts(cells(answers))
    assert found.quantiles.all_questions is None
    assert scores_over_prompts(cells(answers[:9])) == []
    assert scores_over_prompts(cells(answers, is_share=False)) == []
    assert scores_over_prompts(cells(np.ones((12, 20)))) == []
    alike = [replace(cell, options={"seed": cell.options["template.variant"]}) for cell in cells(answers)]
    no_demonstrations = [replace(cell, has_demonstrations=False) for cell in alike]
    assert scores_over_prompts(no_demonstrations) == []


def test_a_sweep_whose_cells_saw_other_questions_has_its_scores_over_prompts_and_says_what_it_lacks(monkeypatch):
    def group(runs, options):
        answers, _ = planted(np.random.default_rng(4), 12, 40, 8, 0.3)
        return {("qa", "exact_match"): cells(answers), ("qa", "token_f1"): cells(answers, is_share=False)}

    monkeypatch.setattr("icl_eval.analysis.sweeps._group_by_metric", group)
    analysis = analyse_runs([])
    assert [(found.task, found.num_prompts) for found in analysis.prompts] == [("qa", 12)]
    assert [table.name for table in analysis.list_tables()] == ["prompts"]
    assert analysis.notes == (
        "qa, exact_match: cells answered different questions and only their scores over prompts are analysed together",
        "qa, token_f1: cells answered different questions and cannot be analysed together",
    )
