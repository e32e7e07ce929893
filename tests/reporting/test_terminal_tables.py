from dataclasses import replace

from sample_sweeps import PROMPTS, VARIANCE, difference

from icl_eval.analysis import SweepAnalysis
from icl_eval.analysis.comparison import Comparison
from icl_eval.analysis.influence import Influence, InfluenceAnalysis, SetEffect
from icl_eval.analysis.leave_one_out import Effect, LeaveOneOutAnalysis, LeftOut
from icl_eval.reporting.comparison_table import print_comparison
from icl_eval.reporting.sweep_tables import print_analysis
from icl_eval.reporting.terminal import print_sweep
from icl_eval.runs.cells import Cell


def rows(output):
    """Return the cells of printed tables, row by row."""
    lines = [line for line in output.splitlines() if line.startswith(("│", "┃"))]
    return [[cell.strip() for cell in line.replace("┃", "│").split("│")[1:-1]] for line in lines]


def test_a_variance_has_a_row_for_each_source_with_its_interval(capsys):
    print_analysis(SweepAnalysis((), (VARIANCE,), ()))
    printed = rows(capsys.readouterr().out)
    assert printed[:5] == [
        ["task", "metric", "control", "source", "±", "share", "95 % interval", "p"],
        ["qa", "exact_match", "none", "seed", "0.1", "25%", "0% to 75%", "0.040"],
        ["", "", "", "template", "0", "0%", "", "0.600"],
        ["", "", "", "seed × template", "0.1", "25%", "", "0.500"],
        ["", "", "", "test set (6 clusters)", "0.14", "50%", "at least 12%", ""],
    ]
    spread, gap = printed[6], printed[8]
    assert spread[3:] == ["4", "0.500", "0.1", "0.05", "2", "0.125", "0.062", "0.000 to 0.250"]
    assert gap[3:] == ["0.400 seed=0 template=a", "0.600 seed=1 template=b", "0.200", "0.22, up to 0.28"]


def test_without_wordings_no_column_is_about_them(capsys):
    print_analysis(SweepAnalysis((), (replace(VARIANCE, wording=None, num_clusters=None),), ()))
    printed = rows(capsys.readouterr().out)
    assert printed[4][3] == "test set"
    assert printed[5] == ["task", "metric", "control", "cells", "mean", "over cells ±", "test set ±"]


def test_scores_over_prompts_have_a_row_for_each_kind(capsys):
    print_analysis(SweepAnalysis((), (), (), prompts=(PROMPTS,)))
    printed = rows(capsys.readouterr().out)
    assert [row[-6:] for row in printed] == [
        ["scores", "5%", "25%", "50%", "75%", "95%"],
        ["as printed", "0.100", "0.200", "0.300", "0.400", "0.500"],
        ["on all questions", "0.150", "0.250", "0.350", "0.450", "0.550"],
        ["noise taken off", "0.200", "0.250", "0.300", "0.350", "0.400"],
    ]


def test_effects_of_demonstrations_have_the_digits_that_they_have_on_the_page(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    effects = {
        "exact_match": Effect(20, 0.0, (-0.25, 0.25), {}, {}),
        "bleu": Effect(20, -2.989, (-17.1, 11.135), {}, {}),
    }
    left_out = LeaveOneOutAnalysis("qa", {}, (LeftOut("one", "yes", effects),), None)
    influence = Influence("one", "yes", 5, 5, {"bleu": SetEffect(11.377, (-7.386, 30.139), 3.05)})
    analysis = SweepAnalysis(
        (), (), (), leave_one_out=(left_out,), influence=(InfluenceAnalysis("qa", {}, 10, (influence,)),)
    )
    print_analysis(analysis)
    printed = [cell for row in rows(capsys.readouterr().out) for cell in row]
    for shown in ("0.000 (-0.250 to +0.250)", "-3.0 (-17.1 to +11.1)", "+11.4 (-7.4 to +30.1)", "+3.0"):
        assert shown in printed


def test_a_comparison_says_for_how_many_tests_its_p_values_are_adjusted(capsys):
    untested = difference("b", metric="hub", ci95=None, test=None, p_value=None, p_adjusted=None)
    print_comparison(Comparison(1, "a", ("b",), 0, 1000, (), (difference("b"), untested, difference("b"))))
    assert "about these prompts; p adjusted for 2 tests (Holm)" in capsys.readouterr().out


def test_a_line_break_in_an_option_is_written_as_it_is_typed(capsys, tmp_path):
    cells = [Cell(name, (f'decoding.stop=["{stop}"]',)) for name, stop in (("a", "\n"), ("b", "\t"))]
    print_sweep(cells, tmp_path)
    assert rows(capsys.readouterr().out) == [["cell"], [r'decoding.stop=["\n"]'], [r'decoding.stop=["\t"]']]
