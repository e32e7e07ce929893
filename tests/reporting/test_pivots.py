from dataclasses import replace

import pytest
import sample_runs
from parsed_pages import Parsed
from sample_sweeps import BEYOND, record, write_sweep

from icl_eval.analysis import SweepAnalysis
from icl_eval.analysis.draws import ScoreOverDraws
from icl_eval.analysis.sweeps import Sweep
from icl_eval.reporting.pages.charts import stack_points, strip_x
from icl_eval.reporting.pages.pivots import build_pivots, choose_axes
from icl_eval.reporting.pages.scales import metric_scale
from icl_eval.runs.cells import Cell
from icl_eval.runs.reports import MetricResult


def cell(overrides, score, num_fewshot=2, num_clusters=None, ci95=(0.1, 0.9)):
    """Return a finished cell, or a failed one without a score."""
    if score is None:
        return Cell(overrides, tuple(overrides.split()))
    found = {"exact_match": MetricResult(score, 0.1, ci95, "exact_match", True)}
    result = replace(
        sample_runs.REPORT.results["qa"], metrics=found, num_fewshot=num_fewshot, n=24, num_clusters=num_clusters
    )
    return Cell(overrides, tuple(overrides.split()), sample_runs.REPORT.run, {"qa": result})


def draws(conditions, scores, ci95, new_draw=None):
    mean = sum(scores.values()) / len(scores)
    return ScoreOverDraws(
        "qa", "exact_match", True, conditions, "seed", scores, 24, mean, 0.1, 3.0, ci95, 0.1, new_draw, 0.5
    )


def build(cells, found=()):
    return build_pivots(Sweep(1, tuple(cells), SweepAnalysis((), (), (), draws=tuple(found))))


def read(row):
    return row.label, [score and (round(score.score, 3), score.ci95, score.over) for score in row.scores]


def test_a_mean_over_draws_of_cells_that_set_fewer_options_stands_at_no_other_place():
    cells = [cell(f"seed={seed}", 0.1) for seed in range(2)]
    cells += [cell(f"num_fewshot={shots} seed={seed}", shots / 10) for shots in (4, 8) for seed in range(2)]
    found = [draws({}, {"0": 0.1, "1": 0.1}, (0.0, 0.2))]
    found += [draws({"num_fewshot": f"{shots}"}, dict.fromkeys("01", shots / 10), (0.3, 0.9)) for shots in (4, 8)]
    [pivot] = build(cells, found)
    assert pivot.columns == ("4", "8")
    over = "draws and questions"
    assert read(pivot.groups[0].summary) == ("mean of 2 draws", [(0.4, (0.3, 0.9), over), (0.8, (0.3, 0.9), over)])


@pytest.mark.parametrize(
    ("options", "axes"),
    [
        (["seed", "num_fewshot"], ("seed", "num_fewshot")),
        (["template", "order.seed", "control", "demonstrations.seed"], ("demonstrations.seed", "control")),
        (["model", "num_fewshot"], ("model", "num_fewshot")),
        (["template.variant", "order.seed"], ("order.seed", "template.variant")),
        (["model"], (None, "model")),
        (["seed"], ("seed", None)),
    ],
)
def test_draws_go_down_and_numbers_of_demonstrations_across(options, axes):
    assert choose_axes(options) == axes


def test_a_table_has_draws_down_shots_across_and_a_group_for_each_value_of_another_option():
    cells = [
        cell(f"control={control} num_fewshot={shots} seed={seed}", score)
        for control, base in (("none", 0.5), ("no_targets", 0.1))
        for shots in (2, 16, 4)
        for seed, score in (("0", base), ("1", base + shots / 100))
    ]
    found = [
        draws({"control": control, "num_fewshot": shots}, {"0": 0.2, "1": 0.4}, (0.15, 0.45), new_draw)
        for control, shots, new_draw in (("none", "2", (0.0, 0.6)), ("no_targets", "16", None))
    ]
    (pivot,) = build(cells, found)
    assert (pivot.down, pivot.across, pivot.columns, pivot.averaged) == ("seed", "num_fewshot", ("2", "4", "16"), ())
    none, other = pivot.groups
    assert (none.label, other.label) == ("control=none", "control=no_targets")
    over = "draws and questions"
    # a mean over draws has its interval; where the analysis has none, the mean of the scores stands alone
    assert read(none.summary) == (
        "mean of 2 draws",
        [(0.3, (0.15, 0.45), over), (0.52, None, ""), (0.58, None, "")],
    )
    assert [score.ci95 for score in other.summary.scores] == [None, None, (0.15, 0.45)]
    assert none.summary.scores[0].draws == (0.2, 0.4)
    assert (none.has_new_draws, other.has_new_draws) == (True, False)
    assert [read(row) for row in none.rows] == [
        (seed, [(score, (0.1, 0.9), "questions") for score in scores])
        for seed, scores in (("0", (0.5, 0.5, 0.5)), ("1", (0.52, 0.54, 0.66)))
    ]
    assert none.rows[1].scores[2].cells == ("control=none num_fewshot=16 seed=1",)
    assert pivot.kinds == [over]
    assert [name for name, _ in pivot.shown] == [
        f"control={control} num_fewshot={shots}" for control in ("none", "no_targets") for shots in (2, 4, 16)
    ]
    assert (pivot.scale.low, pivot.scale.high) == (0.0, 1.0)


def test_a_second_seed_is_averaged_within_the_first():
    cells = [cell(f"demonstrations.seed={d} order.seed={o}", d / 2 + o / 10) for d in (0, 1) for o in (0, 1)]
    (pivot,) = build(cells)
    assert (pivot.down, pivot.across, pivot.averaged) == ("demonstrations.seed", None, ("order.seed",))
    (group,) = pivot.groups
    assert [read(row) for row in group.rows] == [("0", [(0.05, None, "")]), ("1", [(0.55, None, "")])]
    assert group.rows[0].scores[0].cells == tuple(each.cell for each in cells[:2])


def test_without_demonstrations_all_draws_are_one_prompt_with_an_interval_over_questions():
    cells = [cell(f"num_fewshot={k} seed={seed}", 0.25, num_fewshot=k) for k in (0, 2) for seed in (0, 1)]
    (pivot,) = build(cells, [draws({"num_fewshot": "2"}, {"0": 0.25, "1": 0.25}, (0.1, 0.4))])
    assert read(pivot.groups[0].summary)[1] == [
        (0.25, (0.1, 0.9), "questions"), (0.25, (0.1, 0.4), "draws and questions"),
    ]  # fmt: skip
    assert pivot.key == [
        "large points: means over draws", "small points: single draws",
        "thick bars: 95 % over questions or over draws and questions",
    ]  # fmt: skip


def test_rows_that_are_not_draws_have_no_mean_and_say_what_their_intervals_are_over():
    cells = [cell(f"model={m} num_fewshot={k}", 0.5, num_clusters=6) for m in ("a", "b") for k in (1, 2)]
    (pivot,) = build(cells)
    assert pivot.groups[0].summary is None
    assert pivot.kinds == ["6 clusters"]
    assert [name for name, _ in pivot.shown][:2] == ["model=a num_fewshot=1", "model=a num_fewshot=2"]
    assert pivot.key == ["thick bars: 95 % over 6 clusters"]


def test_a_place_without_a_cell_is_empty_and_failed_cells_make_no_table():
    (pivot,) = build([cell("model=a seed=0", 0.5), cell("model=b seed=0", 0.5), cell("model=a seed=1", 0.1)])
    assert [[score and score.score for score in row.scores] for row in pivot.groups[0].rows] == [
        [0.5, 0.5],
        [0.1, None],
    ]
    assert build([cell("seed=0", 0.5), cell("seed=1", None)]) == []


def test_points_of_equal_draws_are_stacked_and_none_lies_beyond_the_ends():
    scale = metric_scale("exact_match", (0.0, 1.0))
    assert stack_points(scale, (1.0, 0.5, 0.5, 2.0)) == [(122.0, 13.0), (122.0, 16.0), (240.0, 13.0), (240.0, 16.0)]
    assert strip_x(scale, -1.0) == 4


def test_a_sweep_page_opens_with_its_figure_and_its_table(tmp_path):
    cells = [
        ([f"num_fewshot={shots}", f"seed={seed}"], [record(1, "1", 1.0), record(2, "x", 0.0)])
        for shots in (0, 1, 2)
        for seed in (0, 1)
    ]
    page = write_sweep(tmp_path, cells, SweepAnalysis((BEYOND,), (), ("a note",)))
    headings = [attributes["id"] for tag, attributes in page.elements if tag == "h2"]
    assert headings == ["scores", "cells", "side-by-side"]
    tags = [tag for tag, _ in page.elements]
    assert tags.index("svg") < tags.index("table") < tags.index("p", tags.index("table"))
    assert page.rows("scores")[:3] == [
        ["seed ↓num_fewshot →", "0", "1", "2"],
        ["mean of 2 draws", *3 * ["0.333"]],
        ["0", *3 * ["0.333"]],
    ]
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert links == 2 * [f"cell%20{number}%23%3F/report.html" for number in (0, 2, 4, 1, 3, 5)]  # of two metrics
    assert "lines: means over draws; small points: single draws; bands: 95 % over draws, for these questions; " in (
        "".join(page.texts)
    )


def test_nothing_in_a_figure_lies_beyond_the_ends_of_its_axis(tmp_path):
    cells = [([f"num_fewshot={shots}"], [record(1, "1", 1.0)]) for shots in (0, 1)]
    write_sweep(tmp_path, cells, SweepAnalysis((BEYOND,), (), ()))
    page = Parsed((tmp_path / "sweep.html").read_text(encoding="utf-8"))
    start = next(i for i, (_, attributes) in enumerate(page.elements) if attributes.get("class") == "chart")
    found = page.elements[start:]
    ends = [float(at["y1"]) for tag, at in found if at.get("class") == "grid"]
    drawn = [
        float(y)
        for tag, at in found
        for y in (
            *([at["y1"], at["y2"]] if at.get("class") == "whisker" else []),
            *([at["cy"]] if at.get("class") in ("draw", "mark") else []),
            *([point.split(",")[1] for point in at.get("points", "").split()]),
        )
    ]
    assert len(drawn) == 3 * 2 + 3 + 2 + 4 + 3  # bars, means, draws, the band, the line
    assert min(ends) <= min(drawn) <= max(drawn) <= max(ends)
    assert [text for (tag, _), text in zip(found, page.texts[start:], strict=True) if tag == "text"][:6] == [
        "0.0", "0.2", "0.4", "0.6", "0.8", "1.0",
    ]  # fmt: skip
