import json
import math
from dataclasses import replace

import pytest
from parsed_pages import HOSTILE, Parsed, assert_self_contained
from sample_runs import FIRST
from sample_sweeps import (
    BEYOND,
    CURVE,
    INFLUENCE,
    LEAVE_ONE_OUT,
    NOTHING,
    ORDER_PROBING,
    PROMPTS,
    VARIANCE,
    curve,
    difference,
    record,
    write_run,
    write_sweep,
)

from icl_eval.analysis import SweepAnalysis
from icl_eval.analysis.comparison import Comparison
from icl_eval.analysis.sweeps import read_sweep
from icl_eval.errors import DataError
from icl_eval.reporting.pages.answers import AnswerBlocks
from icl_eval.reporting.pages.charts import curve_charts, variance_segments
from icl_eval.reporting.pages.comparison_page import write_comparison_page
from icl_eval.reporting.pages.scales import log_places
from icl_eval.reporting.pages.sweep_page import write_sweep_page
from icl_eval.reporting.sweep_tables import print_analysis
from icl_eval.runs.folders import Run
from icl_eval.runs.reports import write_json


def test_a_sweep_page_shows_what_each_demonstration_adds(tmp_path):
    analysis = SweepAnalysis((), (), (), (INFLUENCE,), (LEAVE_ONE_OUT,))
    page = write_sweep(tmp_path, [(["seed=0"], [record(1, "1", 1.0)])], analysis)
    assert page.rows("influence") == [
        ["demonstration", "answer", "sets with / without", "exact_match−0.5 to 1.0"],
        ["pool-1", "Paris", "16 / 24", "+0.250 coefficient +0.125"],
        ["pool-2", "–", "5 / 35", "−0.500 coefficient −0.250"],
    ]
    assert page.rows("leave-one-out") == [
        ["demonstration", "answer", "exact_match−0.4 to 0.8", "logprob−2.5 to 0.0"],
        ["pool-1", "Paris", "+0.250 2 helped, 0 hurt of 24", "–"],
        ["pool-2", "–", "–", "−2.5 0 helped, 1 hurt of 24"],
    ]
    assert page.rows("behaviour")[1:] == [["qa · control=none", "50 % (25 %) of 24", "–", "–"]]


def test_a_sweep_page_shows_which_order_to_use_and_how_far_to_trust_it(tmp_path):
    analysis = replace(NOTHING, order_probing=(ORDER_PROBING,))
    page = write_sweep(tmp_path, [(["order.seed=0"], [record(1, "1", 1.0)])], analysis)
    assert page.rows("order-probing") == [
        ["order", "demonstrations", "GlobalE", "LocalE", "choice_accuracy"],
        ["order.seed=1", "pool-2, pool-1", "0.690", "0.500", "0.750"],
        ["order.seed=0", "pool-1, pool-2", "0.000", "0.250", "0.500"],
        ["rank correlation with the score", "", "+1.00", "–", ""],
        ["mean of all orders", "", "", "", "0.625"],
    ]
    assert read_sweep(tmp_path).analysis == analysis


def test_a_sweep_page_shows_every_cell_by_what_sets_it_apart(tmp_path):
    cells = [
        (["limit=2", "num_fewshot=0"], [record(1, "1", 1.0), record(2, "x", 0.0)]),
        (["limit=2", "num_fewshot=99"], "the pool is too small"),
    ]
    page = write_sweep(tmp_path, cells)
    listed = page.data("cells-data")
    assert listed["columns"] == [{"title": "qa exact_match", "higher": True}, {"title": "qa hub", "higher": False}]
    assert [list(cell.values()) for cell in listed["cells"]] == [
        ["num_fewshot=0", "cell 0#?", cells[0][0], {"num_fewshot": "0"}, None, [[1 / 3, 0.0, 1.0], [12.5, None, None]]],
        ["num_fewshot=99", "cell 1#?", cells[1][0], {"num_fewshot": "99"}, "the pool is too small", [None, None]],
    ]
    assert "1 of 2 cells failed; num_fewshot=99: the pool is too small" in page.texts
    assert page.data("answers-data")["runs"] == ["num_fewshot=0"]


def test_a_score_has_a_minus_sign_or_a_dash_where_a_cell_does_not_have_it(tmp_path):
    page = write_sweep(tmp_path, [(["seed=0"], [record(1, "1", 1.0)]), (["seed=1"], [record(1, "1", 1.0)])])
    assert "–" not in str(page.rows("scores"))
    sweep = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    sweep["cells"][0]["results"]["qa"]["metrics"]["exact_match"] |= {"score": -0.5, "ci95": [-7.5, -0.25]}
    del sweep["cells"][1]["results"]["qa"]["metrics"]["hub"]
    for number, cell in enumerate(sweep["cells"]):
        cell["overrides"] = [f"model={number}"]
    write_json(sweep, tmp_path / "sweep.json")
    write_sweep_page(tmp_path)
    page = assert_self_contained((tmp_path / "sweep.html").read_bytes().decode())
    figure, table = page.rows("scores")[:3], page.rows("scores")[3:]
    assert figure == [["exact_match", "−82"], ["model=0", ""], ["model=1", "thick bars: 95 % over questions."]]
    assert table == [
        ["model →", "0", "1"],
        ["score95 % over questions", "−0.500−7.5 to −0.250", "0.3330.000 to 1.000"],
    ]
    labels = [attributes["aria-label"] for tag, attributes in page.elements if tag == "svg"]
    assert labels[:2] == [
        "−0.500, 95 % interval −7.5 to −0.250 over questions", "0.333, 95 % interval 0.000 to 1.000 over questions",
    ]  # fmt: skip
    assert [cell["scores"][1] for cell in page.data("cells-data")["cells"]] == [[12.5, None, None], None]


def test_hostile_text_adds_no_element_to_a_sweep_page(tmp_path):
    def write(name, text):
        analysis = SweepAnalysis(
            (replace(CURVE, conditions={text: text}, metric=text), replace(CURVE, metric=text)),
            (replace(VARIANCE, conditions={text: text}, level_means={text: {text: 0.5}}),),
            (text,),
            (
                replace(
                    INFLUENCE,
                    conditions={text: text},
                    demonstrations=(replace(INFLUENCE.demonstrations[0], id=text, target=text),),
                ),
            ),
            (
                replace(
                    LEAVE_ONE_OUT,
                    conditions={text: text},
                    demonstrations=(replace(LEAVE_ONE_OUT.demonstrations[0], id=text, target=text),),
                ),
            ),
        )
        hostile = {"example_id": text, "doc": {text: text}, "targets": (text,), "completion": text, "prediction": text}
        cells = [([f"a={text}"], [replace(FIRST, **hostile)]), (["a=b"], text)]
        return write_sweep(tmp_path / name, cells, analysis)

    harmless = write("harmless", "harmless")
    for text in HOSTILE:
        page = write("hostile", text)
        assert [tag for tag, _ in page.elements] == [tag for tag, _ in harmless.elements]
        ((question, _),) = page.packed(page.data("answers-data")["tasks"][0]["questions"])
        assert question == {"id": text, "doc": {text: text}, "targets": [text]}
        assert any(note.endswith(f"a=b: {text}") for note in page.texts)
        assert page.data("cells-data")["cells"][1]["error"] == text


def test_a_sweep_whose_records_are_gone_still_has_its_scores(tmp_path):
    write_sweep(tmp_path, [(["seed=0"], [record(1, "1", 1.0)])])
    next(tmp_path.glob("*/samples_qa.jsonl")).unlink()
    write_sweep_page(tmp_path)
    page = assert_self_contained((tmp_path / "sweep.html").read_bytes().decode())
    assert page.data("cells-data")["cells"][0]["label"] == "cell 0#?"
    assert page.data("answers-data") == {"runs": [], "tasks": []}
    assert any(text.startswith("answers cannot be shown side by side: ") for text in page.texts)


def test_a_file_that_is_no_sweep_is_named(tmp_path):
    (tmp_path / "sweep.json").write_text('{"schema_version": 1, "cells": []}', encoding="utf-8")
    with pytest.raises(DataError, match=r"sweep\.json: not a sweep of this version \(analysis: Field required\)"):
        read_sweep(tmp_path)


def test_answers_are_aligned_by_what_was_asked(tmp_path):
    runs = {
        "a": write_run(tmp_path / "a", record(1, "1", 1.0), record(2, "x", 0.0)),
        "b": write_run(tmp_path / "b", record(2, "2", 1.0), record(1, "x", 0.0)),
        "c": write_run(tmp_path / "c", record(1, "1", 1.0, doc={"question": "another one?"})),
    }
    task = read_answers(AnswerBlocks(runs))
    assert [(question["id"], question["doc"]["question"]) for question in task["questions"]] == [
        ("q1", "1?"), ("q2", "2?"), ("q1", "another one?"),
    ]  # fmt: skip
    # a run has a place for each question that was known when it was read
    assert task["answers"] == [
        [(" 1", "1"), (" x", "x")],
        [(" x", "x"), (" 2", "2")],
        [None, None, (" 1", "1")],
    ]
    assert task["values"] == [
        {"scores": [[1.0, 0.0], [None, None]], "missing": []},
        {"scores": [[0.0, 1.0], [None, None]], "missing": []},
        {"scores": [[None, None, 1.0], [None, None, None]], "missing": [0, 1]},
    ]
    assert task["metrics"] == [{"name": "exact_match", "higher": True}, {"name": "hub", "higher": False}]
    assert task["scores"][0] == [[pytest.approx(1 / 3), 0.0, 1.0], [12.5, None, None]]
    assert task["left_out"] == 0


def test_the_answers_of_a_run_are_given_away_before_the_next_run_is_read(tmp_path, monkeypatch):
    runs = {name: write_run(tmp_path / name, record(1, "1", 1.0), record(2, "x", 0.0)) for name in "abc"}
    read = Run.stream_records
    events = []

    def watch(run, task, **options):
        events.append(run.folder.name)
        return read(run, task, **options)

    monkeypatch.setattr(Run, "stream_records", watch)
    for element in AnswerBlocks(runs):
        events.append(element.split('id="')[1].split('"')[0].removeprefix("answers-0-"))
    assert events == [
        "a", "answers-0-0", "values-0", "b", "answers-1-0", "values-1", "c", "answers-2-0", "values-2", "questions-0",
    ]  # fmt: skip


def read_answers(blocks):
    """Return the first task of some answers with its elements read."""
    page = Parsed("".join(blocks))
    task = blocks.content["tasks"][0]
    return task | {
        "questions": [question for question, _ in page.packed(task["questions"])],
        "answers": [
            [answer and tuple(texts[number] for number in answer) for answer, texts in page.packed(own)]
            for own in task["answers"]
        ],
        "values": [page.data(identifier) for identifier in task["values"]],
    }


def test_a_page_says_how_many_questions_it_leaves_out(tmp_path):
    runs = {name: write_run(tmp_path / name, *(record(number, "x", 0.0) for number in range(10))) for name in "ab"}
    task = read_answers(AnswerBlocks(runs, max_answers=8))
    assert [len(task["questions"]), *map(len, task["answers"]), task["left_out"]] == [4, 4, 4, 6]


def test_a_shot_curve_goes_through_the_means_with_a_band_where_there_are_several_draws():
    chart, other = curve_charts([CURVE, replace(CURVE, metric="token_f1")])
    assert (chart.metric, other.metric) == ("exact_match", "token_f1")
    (line,) = chart.lines
    assert [tick for _, tick in chart.x_ticks] == ["0", "1", "8"]
    height = {float(tick): y for y, tick in chart.y_ticks}
    assert [mark.x for mark in line.marks] == [x for x, _ in chart.x_ticks]
    assert line.marks[0].y == height[0.0]
    assert line.marks[2].y == height[0.8]
    assert [mark.draws != () for mark in line.marks] == [False, True, True]
    corners = [tuple(map(float, corner.split(","))) for corner in line.band.split()]
    assert [x for x, _ in corners] == [line.marks[index].x for index in (1, 2, 2, 1)]
    assert corners[1][1] < line.marks[2].y < corners[2][1]


def test_numbers_of_demonstrations_have_their_places_on_a_logarithmic_axis():
    assert log_places([0, 1, 2, 4, 8]) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert log_places([0, 4, 16, 1024]) == [0.0, 0.2, 0.4, 1.0]
    assert log_places([3]) == [0.0]
    assert log_places([0, 3]) == [0.0, 1.0]
    many = curve(*((shots, {"": 0.5}, 0.5, None) for shots in (1, 256, 1000, 1024)))
    (chart,) = curve_charts([many])
    assert [tick for _, tick in chart.x_ticks] == ["1", "256", "1000"]  # the last would touch it
    (line,) = chart.lines
    assert [mark.x for mark in line.marks] == [chart.frame.x(math.log2(shots) / 10) for shots in (1, 256, 1000, 1024)]


def test_a_chart_ends_where_its_metric_does():
    (chart,) = curve_charts([BEYOND])
    assert [tick for _, tick in chart.y_ticks] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    (line,) = chart.lines
    heights = [float(corner.split(",")[1]) for corner in line.band.split()]
    assert (max(heights), min(heights)) == (chart.y_ticks[0][0], chart.y_ticks[-1][0])
    assert line.marks[0].whisker == (chart.frame.y(0.0), chart.frame.y(0.098))


def test_a_sweep_page_says_the_numbers_of_its_charts(tmp_path):
    negative = curve((0, {"": -1.5}, -1.5, None), (1, {"": -0.5}, -0.5, (-0.75, -0.25)), metric="hub")
    cells = [([f"num_fewshot={shots}"], [record(1, "1", 1.0)]) for shots in (0, 1)]
    page = write_sweep(tmp_path, cells, SweepAnalysis((negative,), (), ()))
    texts = [text.strip() for (tag, _), text in zip(page.elements, page.texts, strict=True) if tag in ("text", "li")]
    assert texts == [
        "−2.0", "−1.5", "−1.0", "−0.5", "0.0", "0", "1", "demonstrations in the prompt (log scale)", "hub",
        "0 demonstrations: −1.500, ± 0.05 over questions",
        "1 demonstration: −0.500, 95 % interval −0.750 to −0.250 over draws, ± 0.05 over questions",
    ]  # fmt: skip


def test_curves_of_one_metric_share_a_chart_and_are_told_apart():
    names = [f"m{number}" for number in range(8)]
    (chart,) = curve_charts([replace(CURVE, conditions={"model": name}) for name in names])
    assert [line.label for line in chart.lines] == [f"model={name}" for name in names]
    assert len({(line.colour, line.dashed) for line in chart.lines}) == 8


def test_the_shares_of_a_variance_fill_its_bar():
    segments = variance_segments(VARIANCE)
    assert [(segment.label, segment.x, segment.width) for segment in segments] == [
        ("seed", 0.0, 25.0), ("template", 25.0, 0.0), ("seed × template", 25.0, 25.0), ("test set", 50.0, 50.0),
    ]  # fmt: skip
    assert [segment.colour for segment in segments] == [1, 2, 3, 0]


def test_a_sweep_page_shows_what_was_analysed(tmp_path):
    cells = [([f"num_fewshot={shots}"], [record(1, "1", 1.0)]) for shots in (0, 1)]
    page = write_sweep(tmp_path, cells, SweepAnalysis((CURVE,), (VARIANCE,), ("why",)))
    assert "qa · exact_match · control=none" in page.texts
    assert "0.500 ± 0.1 (mean and standard deviation of the cells’ scores)" in [text.strip() for text in page.texts]
    assert "why" in page.texts
    labels = [attributes["aria-label"] for _, attributes in page.elements if "aria-label" in attributes]
    assert "seed 25 %, template 0 %, seed × template 25 %, test set 50 %" in labels
    assert "exact_match on qa over the number of demonstrations" in labels


def test_a_sweep_page_says_how_sure_its_shares_and_its_best_cell_are(tmp_path):
    analysis = SweepAnalysis((), (VARIANCE,), (), prompts=(PROMPTS,))
    page = write_sweep(tmp_path, [(["seed=0"], [record(1, "1", 1.0)])], analysis)
    texts = [text.strip() for text in page.texts]
    assert "(0 to 75 %)" in texts
    assert "(at least 12 %)" in texts
    assert (
        "0.200; if no cell differed in truth, 0.22 on average by noise alone, and below 0.28 in 95 % of sweeps" in texts
    )
    assert "best − worst of 2: 0.125; with noise taken off 0.062 (95 % interval 0.000 to 0.250)" in texts
    assert any("n = 24 in 6 clusters, by cluster" in text for text in texts)
    assert page.rows("prompts")[1:] == [
        ["qa", "exact_match", "control=none", "12", "8", "as printed", "0.100", "0.200", "0.300", "0.400", "0.500"],
        ["", "", "", "", "", "on all questions", "0.150", "0.250", "0.350", "0.450", "0.550"],
        ["", "", "", "", "", "noise taken off", "0.200", "0.250", "0.300", "0.350", "0.400"],
    ]


def test_an_older_sweep_without_intervals_still_has_its_page(tmp_path):
    older = replace(
        VARIANCE,
        components=tuple(replace(each, variance_ci95=None, share_ci95=None) for each in VARIANCE.components),
        num_clusters=None, test_set_at_least=None, noise_gap=None, wording=None,
    )  # fmt: skip
    page = write_sweep(tmp_path, [(["seed=0"], [record(1, "1", 1.0)])], SweepAnalysis((), (older,), ()))
    assert "0.200" in [text.strip() for text in page.texts]
    assert not any("noise" in text for text in page.texts if "taken off, their spread" not in text)
    content = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    content["analysis"].pop("prompts")
    (analysis,) = content["analysis"]["variance"]
    for name in ("num_clusters", "test_set_at_least", "noise_gap", "wording"):
        analysis.pop(name)
    for component in analysis["components"]:
        component.pop("variance_ci95"), component.pop("share_ci95")
    (tmp_path / "sweep.json").write_text(json.dumps(content), encoding="utf-8")
    assert read_sweep(tmp_path).analysis == SweepAnalysis((), (older,), ())


def test_a_comparison_page_shows_differences_around_zero_and_the_runs_side_by_side(tmp_path):
    runs = [write_run(tmp_path / name, record(1, "1", 1.0), record(2, "2", 1.0)) for name in ("one/a", "b", "two/a")]
    found = [
        difference(str(runs[1].folder), others={"mcnemar": 0.5}),
        difference(str(runs[2].folder), draws=5, ci95=None, test=None, p_value=None, p_adjusted=None),
    ]
    names = tuple(str(run.folder) for run in runs)
    comparison = Comparison(1, names[0], names[1:], 0, 1000, ("math",), tuple(found))

    write_comparison_page(comparison, runs, tmp_path / "compare.html")

    page = assert_self_contained((tmp_path / "compare.html").read_bytes().decode())
    assert any("Bonett and Price’s if questions are right or wrong" in text for text in page.texts)
    row = ["qa 2 questions", "exact_match", "0.500", "0.000", "−0.500"]
    assert page.rows("differences")[1:] == [
        ["b"],
        [*row, "−0.750 to +0.250 over questions these prompts", "", "1, 0", "0.250 mcnemar 0.500", "0.0004"],
        [names[2]],
        [*row, "– 5 draws", "", "1, 0", "–", "–"],
    ]
    assert page.data("answers-data")["runs"] == [names[0], "b", names[2]]
    assert "math: not compared, because not all of the runs have it" in page.texts


@pytest.mark.parametrize(
    ("draws", "num_clusters", "sample"),
    [
        (1, None, "questions"),
        (1, 9, "questions"),
        (1, 3, "3 clusters"),
        (4, None, "draws and questions"),
        (4, 3, "draws and 3 clusters"),
    ],
)
def test_a_comparison_page_says_what_its_intervals_are_over(tmp_path, draws, num_clusters, sample):
    runs = [write_run(tmp_path / name, record(1, "1", 1.0)) for name in "ab"]
    names = tuple(str(run.folder) for run in runs)
    found = difference(names[1], n=9, draws=draws, num_clusters=num_clusters)
    write_comparison_page(Comparison(1, names[0], names[1:], 0, 1000, (), (found,)), runs, tmp_path / "compare.html")
    page = assert_self_contained((tmp_path / "compare.html").read_bytes().decode())
    about = "these prompts" if draws == 1 else f"{draws} draws"
    assert page.rows("differences")[2][5] == f"−0.750 to +0.250 over {sample} {about}"


def test_the_terminal_shows_which_order_to_use_and_how_far_to_trust_it(capsys):
    print_analysis(replace(NOTHING, order_probing=(ORDER_PROBING,)))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in line.strip("│").split("│")] for line in lines] == [
        ["qa num_fewshot=2", "order.seed=1", "0.690", "0.500", "0.750"],
        ["", "order.seed=0", "0.000", "0.250", "0.500"],
        ["", "rank correlation with the score", "+1.00", "", ""],
        ["", "mean of all orders", "", "", "0.625"],
    ]
