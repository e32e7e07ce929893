from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from sample_runs import FIRST

import icl_eval
from icl_eval.analysis.influence import _PENALTIES, MIN_SETS, fit_ridge, influence_analyses, measure_influences
from icl_eval.runs.records import ShownDemonstration

NAMES = "abcdef"
WORTH = {"a": 0.3, "b": 0.1, "c": 0.0, "d": 0.0, "e": -0.1, "f": -0.4}


def drawn(names):
    return frozenset((name, f"target of {name}") for name in names)


def additive(sets, worth=WORTH):
    """Return cells whose score is the sum of what their demonstrations are worth."""
    return [(drawn(names), {"f1": sum(worth[name] for name in names)}) for names in sets]


def test_where_all_sets_are_drawn_influence_is_what_a_demonstration_is_worth_in_the_place_of_the_others():
    found = {each.id: each for each in measure_influences(additive(combinations(NAMES, 3)))}
    assert list(found) == sorted(NAMES, key=lambda name: -WORTH[name])
    for name in NAMES:
        # in sets of 3, each of the others is in 2 / 5 of the sets with `name`, and in 3 / 5 of those without
        expected = WORTH[name] - sum(WORTH[other] for other in NAMES if other != name) / 5
        assert found[name].effects["f1"].mean == pytest.approx(expected)
        assert (found[name].sets_with, found[name].sets_without) == (10, 10)
        assert found[name].target == f"target of {name}"


def test_the_coefficients_of_a_linear_score_are_its_own_whatever_is_drawn():
    cells = additive([names for size in (1, 2, 4) for names in combinations(NAMES, size)][::2])
    presence = np.array([[(name, f"target of {name}") in shown for name in NAMES] for shown, _ in cells], float)
    coefficients = fit_ridge(presence, np.array([own["f1"] for _, own in cells]))
    assert coefficients == pytest.approx([WORTH[name] for name in NAMES], abs=1e-3)


def ridge(presence, values, penalty):
    """Fit an intercept without, and coefficients with a penalty, by the normal equations."""
    design = np.column_stack([np.ones(len(values)), presence])
    penalties = np.diag([0.0] + [penalty] * presence.shape[1])
    return np.linalg.solve(design.T @ design + penalties, design.T @ values)


@pytest.mark.parametrize("seed", [0, 8, 40])
def test_the_penalty_is_the_one_that_predicts_each_set_best_from_the_others(seed):
    generator = np.random.default_rng(seed)
    presence = np.array([[name in names for name in NAMES] for names in combinations(NAMES, 3)], float)
    values = presence @ list(WORTH.values()) + generator.normal(0, 0.3, len(presence))
    scale = ((presence - presence.mean(axis=0)) ** 2).sum() / presence.shape[1]
    errors = {}
    for penalty in _PENALTIES * scale:
        misses = []
        for row in range(len(values)):
            others = np.arange(len(values)) != row
            intercept, *coefficients = ridge(presence[others], values[others], penalty)
            misses.append(values[row] - intercept - presence[row] @ coefficients)
        errors[penalty] = np.mean(np.square(misses))
    best = min(errors, key=errors.get)
    assert best not in (min(errors), max(errors))
    assert fit_ridge(presence, values) == pytest.approx(ridge(presence, values, best)[1:])


def test_the_interval_is_welchs_at_a_level_for_all_demonstrations():
    generator = np.random.default_rng(0)
    cells = [(shown, {"f1": float(generator.normal())}) for shown, _ in additive(combinations(NAMES, 3))]
    for each in measure_influences(cells):
        inside, outside = (
            [own["f1"] for shown, own in cells if ((each.id, each.target) in shown) == there] for there in (True, False)
        )
        expected = scipy.stats.ttest_ind(inside, outside, equal_var=False).confidence_interval(1 - 0.05 / 6)
        assert each.effects["f1"].ci95 == pytest.approx(tuple(expected))


def test_intervals_hold_for_all_demonstrations_at_once():
    """Eight demonstrations that do nothing: at 95 % each, a quarter of sweeps would find one that does something."""
    generator, misses = np.random.default_rng(1), 0
    names = "abcdefgh"
    for _ in range(200):
        sets = [generator.choice(list(names), 3, replace=False) for _ in range(40)]
        cells = [(drawn(names), {"f1": float(generator.binomial(64, 0.5) / 64)}) for names in sets]
        intervals = [each.effects["f1"].ci95 for each in measure_influences(cells)]
        misses += any(low > 0 or high < 0 for low, high in intervals)
    assert misses <= 20


def test_what_too_few_sets_contain_or_lack_is_not_estimated():
    often, seldom = ["ab", "ac", "ad", "ae", "af"], ["bc", "bd", "cd"]
    assert MIN_SETS == 5
    assert [each.id for each in measure_influences(additive([*often, *seldom]))] == []
    assert [each.id for each in measure_influences(additive([*often, *seldom, "be", "bf"]))] == ["a", "b"]
    assert measure_influences(additive(["ab"] * 5 + ["cd"] * 5)) == []  # ten cells, two sets


def test_cells_with_the_same_set_count_once_and_a_score_without_spread_has_no_interval():
    sets = additive(combinations(NAMES, 3))
    assert measure_influences([*sets, *sets]) == measure_influences(sets)
    constant = [(shown, {"f1": float(("a", "target of a") in shown)}) for shown, _ in sets]
    best, *_ = measure_influences(constant)
    assert (best.id, best.effects["f1"].mean, best.effects["f1"].ci95) == ("a", 1.0, None)


def cells_of(monkeypatch, sets_of_questions):
    """Return runs, and the demonstrations of each question, as the records of each say."""

    def run_of(sets):
        records = [
            replace(
                FIRST,
                example_id=f"q{number}",
                demonstrations=tuple(ShownDemonstration(name, name, None) for name in names),
            )
            for number, names in enumerate(sets)
        ]
        return SimpleNamespace(report=SimpleNamespace(results={"qa": None}), records=lambda task: records, sets=sets)

    def measure(run, tasks):
        worth = sum(WORTH[name] for name in run.sets[0])
        return [
            SimpleNamespace(metric="f1", score=worth, higher_is_better=True),
            SimpleNamespace(metric="ter", score=-worth, higher_is_better=False),
        ]

    monkeypatch.setattr("icl_eval.analysis.influence.measure", measure)
    runs = [run_of(sets) for sets in sets_of_questions]
    return runs, [{"num_fewshot": "3", "demonstrations.seed": str(seed)} for seed in range(len(runs))]


def test_any_sweep_over_seeds_has_an_analysis_for_each_value_of_the_other_options(monkeypatch):
    runs, options = cells_of(monkeypatch, [[names, names] for names in combinations(NAMES, 3)])
    [analysis], notes = influence_analyses(runs, options)
    assert (analysis.task, analysis.conditions, analysis.num_sets, notes) == ("qa", {"num_fewshot": "3"}, 20, [])
    assert [each.id for each in analysis.demonstrations][::5] == ["a", "f"]
    for each in analysis.demonstrations:
        assert each.effects["ter"] == each.effects["f1"]  # above zero if it helps
        assert each.target == each.id
    assert influence_analyses(runs[:9], options[:9]) == ([], [])  # too few sets for any demonstration


def test_it_is_said_where_questions_have_sets_of_their_own_or_cells_other_questions(monkeypatch):
    runs, options = cells_of(monkeypatch, [[names, names[::-1][:2]] for names in combinations(NAMES, 3)])
    assert influence_analyses(runs, options) == (
        [],
        ["influence, qa num_fewshot=3: no set of demonstrations has a score, since questions have sets of their own"],
    )
    runs, options = cells_of(monkeypatch, [[names] * (1 + (names[0] == "a")) for names in combinations(NAMES, 3)])
    assert influence_analyses(runs, options) == (
        [],
        ["influence, qa num_fewshot=3: cells answered different questions and cannot be analysed together"],
    )


RIGHT, WRONG = {27: 34, 12: 19, 31: 38, 18: 25}, {22: 17, 35: 30, 14: 9, 29: 24}
"""Demonstrations of the rule +7, and of the rule -5."""


@pytest.mark.slow
def test_the_shipped_model_is_helped_by_right_and_hurt_by_wrong_demonstrations_eight_of_eight(tmp_path):
    pool = [
        {"id": f"{kind}-{number}", "question": str(number), "references": [str(answer)]}
        for kind, numbers in (("right", RIGHT), ("wrong", WRONG))
        for number, answer in numbers.items()
    ]
    test = [
        {"question": str(n), "references": [str(n + 7)]} for n in range(10, 36) if n not in RIGHT and n not in WRONG
    ]
    labels = {"question": "Input", "answer": "Output"}
    task = icl_eval.Task.of_rows("mixed", pool=pool, test=test, instruction="Change the number.", labels=labels)
    model = icl_eval.load_model("icl_t5", device="cpu")

    def run(name, *overrides):
        return icl_eval.evaluate(*overrides, model=model, task=task, folder=tmp_path / name)

    draws = [run(f"draw {seed}", f"demonstrations.seed={seed}", "num_fewshot=3") for seed in range(40)]
    [analysis] = icl_eval.analyse(draws).influence
    effects = {each.id: each.effects["exact_match"] for each in analysis.demonstrations}
    assert len(effects) == 8
    for name, effect in effects.items():
        sign = 1 if name.startswith("right") else -1
        assert sign * effect.mean > 0, name
        assert sign * effect.coefficient > 0, name

    left_out = [run(f"rank {rank}", f"leave_out={rank}", "num_fewshot=8") for rank in ("null", *range(1, 9))]
    [beside] = icl_eval.analyse(left_out).leave_one_out
    signs = {each.id: each.effects["exact_match"].mean for each in beside.demonstrations}
    mistaken = [name for name, mean in signs.items() if (mean > 0) != name.startswith("right") or mean == 0]
    assert len(mistaken) >= 2
