from dataclasses import replace

from sample_sweeps import CURVE, INFLUENCE, LEAVE_ONE_OUT, NOTHING, VARIANCE, difference

from icl_eval.analysis import SweepAnalysis
from icl_eval.analysis.comparison import Comparison

ANALYSIS = SweepAnalysis(
    (CURVE,), (VARIANCE,), ("qa, <b>: cells answered different questions",), (INFLUENCE,), (LEAVE_ONE_OUT,)
)


def test_an_analysis_gives_a_data_frame_for_each_kind_that_applies():
    tables = ANALYSIS.tables

    assert list(tables) == ["shot_curves", "variance", "spread", "influence", "leave_one_out"]
    curve = tables["shot_curves"].set_index("demonstrations")
    assert curve.loc[1].to_dict() == {
        "task": "qa", "metric": "exact_match", "draws": 2, "mean": 0.5, "ci95 low": 0.3, "ci95 high": 0.7,
        "worst draw": 0.4, "best draw": 0.6, "test set stderr": 0.05,
    }  # fmt: skip
    assert tables["variance"]["component"].tolist()[:3] == ["seed", "template", "seed × template"]
    assert tables["influence"]["influence"].tolist() == [0.25, -0.5]
    assert tables["leave_one_out"]["mean effect"].tolist() == [0.25, -2.5]
    assert NOTHING.tables == {}


def test_a_notebook_shows_an_analysis_rounded_with_its_notes_escaped():
    shown = ANALYSIS._repr_html_()

    assert shown.count("<table") == 5
    assert "<td>0.500</td>" in shown
    assert "<p>qa, &lt;b&gt;: cells answered different questions</p>" in shown
    assert repr(replace(ANALYSIS, notes=())) == (
        "<SweepAnalysis: shot_curves (3 rows); variance (6 rows); spread (1 row); influence (2 rows); "
        "leave_one_out (2 rows)>"
    )
    assert repr(NOTHING) == "<SweepAnalysis: no analysis applies>"


def test_a_comparison_gives_a_data_frame_and_says_in_a_line_what_it_holds():
    differences = (difference("runs/second"), difference("runs/third", ci95=None, p_value=None, p_adjusted=None))
    comparison = Comparison(1, "runs/first", ("runs/second", "runs/third"), 0, 1000, (), differences)

    assert comparison.table["run"].tolist() == ["second", "third"]
    row = comparison.table.iloc[0].to_dict()
    assert (row["difference"], row["ci95 low"], row["ci95 high"]) == (-0.5, -0.75, 0.25)
    assert (row["adjusted p"], row["better"], row["worse"]) == (0.0004, 1, 0)
    assert repr(comparison) == (
        "<Comparison with runs/first: second qa exact_match -0.500 (adjusted p 0.0004), third qa exact_match -0.500>"
    )
    assert "<td>-0.750</td>" in comparison._repr_html_()
