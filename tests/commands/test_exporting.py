import csv
import io
import re
from dataclasses import asdict, replace
from xml.etree import ElementTree

import pytest
import sample_runs
from matplotlib.collections import PolyCollection
from parsed_pages import HOSTILE
from sample_sweeps import BEYOND, CURVE, INFLUENCE, LEAVE_ONE_OUT, VARIANCE

from icl_eval.analysis import SweepAnalysis
from icl_eval.analysis.tables import PlainTable
from icl_eval.commands.export import export_folder
from icl_eval.commands.export.figures import draw_curves, draw_influences
from icl_eval.commands.export.tables import to_csv, to_latex, to_markdown
from icl_eval.errors import DataError
from icl_eval.runs.reports import GroupResult, MetricResult, write_json, write_report

TABLE = PlainTable(
    "scores",
    ("task", "exact_match", "ter ↓"),
    (("a|b & 50 %", 0.453125, 12), ("[x]", None, 107.94), ("two\nlines, \u202eone", -1.0, 0)),
)


def test_a_table_in_markdown_is_aligned_and_says_where_a_number_is_missing():
    assert to_markdown(TABLE) == (
        "| task           | exact\\_match | ter ↓ |\n"
        "| :------------- | -----------: | ----: |\n"
        "| a\\|b \\& 50 %   |        0.453 |    12 |\n"
        "| \\[x\\]          |            – | 107.9 |\n"
        "| two lines, one |       -1.000 |     0 |\n"
    )


def test_a_table_in_latex_is_a_tabular_in_which_text_is_no_command():
    assert to_latex(TABLE) == (
        "% \\usepackage{booktabs,textcomp}\n"
        "\\begin{tabular}{lrr}\n"
        "\\toprule\n"
        "task & exact\\_match & ter $\\downarrow$ \\\\\n"
        "\\midrule\n"
        "a\\textbar{}b \\& 50 \\% & 0.453 & 12 \\\\\n"
        "{[}x{]} & -- & 107.9 \\\\\n"
        "two lines, one & -1.000 & 0 \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )


def test_a_table_in_csv_holds_numbers_and_texts_as_they_are():
    rows = list(csv.reader(io.StringIO(to_csv(TABLE), newline="")))
    assert rows == [
        ["task", "exact_match", "ter ↓"],
        ["a|b & 50 %", "0.453125", "12"],
        ["[x]", "", "107.94"],
        ["two\nlines, \u202eone", "-1.0", "0"],
    ]


def test_a_spreadsheet_finds_no_formula_in_a_text():
    table = PlainTable("t", ("=1+1",), (("=cmd()",), ("@x",), ("-1",), ("-x",), ("a=1",), (-1.5,)))
    assert to_csv(table).splitlines() == ["'=1+1", "'=cmd()", "'@x", "-1", "'-x", "a=1", "-1.5"]


@pytest.mark.parametrize("text", [*HOSTILE, "\\input{/etc/passwd}", "a & b \\\\ c", "~^{}", "`x`*y*"])
def test_hostile_text_stays_in_its_cell(text):
    table = PlainTable("t", (text, "b"), ((text, 1), (text, 2)))
    lines = to_markdown(table).splitlines()
    assert [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines] == [3, 3, 3, 3]
    assert not re.search(r"(?<!\\)[<>`*_]", lines[0])
    latex = to_latex(table).splitlines()
    assert len(latex) == 9
    for line in (latex[3], latex[5], latex[6]):
        content = line.removesuffix(r" \\")
        assert len(re.findall(r"(?<!\\)&", content)) == 1
        commands = set(re.findall(r"\\[a-zA-Z]+|\\.", content))
        assert all(re.fullmatch(r"\\(text[a-z]+|[{}&%$#_])", command) for command in commands)
    assert [row[1] for row in csv.reader(io.StringIO(to_csv(table), newline=""))] == ["b", "1", "2"]


def write_sweep(folder, analysis):
    report = asdict(sample_runs.REPORT)
    cells = [
        {"cell": "a", "overrides": ["num_fewshot=0"], "run": report["run"], "results": report["results"]},
        {"cell": "b", "overrides": ["num_fewshot=1"], "error": {"error": "E", "message": "no", "exit_code": 1}},
    ]
    write_json({"schema_version": 1, "cells": cells, "analysis": asdict(analysis)}, folder / "sweep.json")


def test_a_run_is_exported_as_tables(tmp_path):
    write_report(sample_runs.REPORT, tmp_path / "report.json")
    written = export_folder(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in written] == [
        f"tables/{name}.{extension}" for name in ("scores", "signatures") for extension in ("md", "tex", "csv")
    ]
    assert (tmp_path / "tables" / "scores.csv").read_text(encoding="utf-8").splitlines() == [
        "task,n,metric,score,stderr,ci95 low,ci95 high",
        "qa,3,exact_match,0.3333333333333333,0.27,0.0,1.0",
        "qa,3,hub,12.5,,,",
    ]


def test_the_groups_of_a_run_are_exported_with_its_tasks(tmp_path):
    score = MetricResult(0.5, 0.125, (0.25, 0.75), "acc,none|group:both|tasks:2", True, method="wilson")
    groups = {"both": GroupResult(("qa", "math"), 6, {"acc,none": score})}
    write_report(replace(sample_runs.REPORT, groups=groups), tmp_path / "report.json")
    export_folder(tmp_path)
    scores, signatures = ((tmp_path / "tables" / f"{name}.csv").read_text() for name in ("scores", "signatures"))
    assert scores.splitlines()[-1] == 'both (group),6,"acc,none",0.5,0.125,0.25,0.75'
    assert signatures.splitlines()[-1] == 'both (group),"acc,none","acc,none|group:both|tasks:2"'


def test_a_sweep_is_exported_as_tables_and_figures(tmp_path):
    write_sweep(tmp_path, SweepAnalysis((CURVE,), (VARIANCE,), (), (INFLUENCE,), (LEAVE_ONE_OUT,)))
    written = [str(path.relative_to(tmp_path)) for path in export_folder(tmp_path)]
    assert [name for name in written if not name.endswith((".md", ".tex"))] == [
        "tables/scores.csv",
        "tables/cells.csv",
        "tables/shot_curves.csv",
        "tables/variance.csv",
        "tables/spread.csv",
        "tables/influence.csv",
        "tables/leave_one_out.csv",
        "figures/shot_curve_qa_exact_match.svg",
        "figures/variance.svg",
        "figures/influence_qa_exact_match_control_none.svg",
        "figures/leave_one_out_qa_exact_match_control_none.svg",
        "figures/leave_one_out_qa_logprob_control_none.svg",
    ]
    tables = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in tmp_path.glob("tables/*.csv")}
    assert tables["cells"] == [
        "cell,qa exact_match,qa hub ↓",
        "num_fewshot=0,0.333 ± 0.27,12.5",
        "num_fewshot=1,failed,failed",
    ]
    assert tables["shot_curves"][2] == "qa,exact_match,1,2,0.5,0.3,0.7,0.4,0.6,0.05"
    assert tables["influence"][1:] == [
        "qa,none,pool-1,Paris,exact_match,16,24,0.25,-0.25,0.75,0.125",
        "qa,none,pool-2,,exact_match,5,35,-0.5,,,-0.25",
    ]
    assert tables["leave_one_out"][1:] == [
        "qa,none,pool-1,exact_match,24,0.25,-0.25,0.75,2,0",
        "qa,none,pool-2,logprob,24,-2.5,,,0,1",
    ]
    assert tables["variance"][0] == (
        "task,metric,control,component,stdev,stdev low,stdev high,share,share low,share high,p"
    )
    assert tables["variance"][1] == "qa,exact_match,none,seed,0.1,0.0,0.5,0.25,0.0,0.75,0.04"
    assert tables["variance"][-1] == "qa,exact_match,none,test set,0.1414213562373095,,,0.5,0.125,,"
    assert tables["spread"][1] == (
        "qa,exact_match,none,4,24,0.5,0.1,0.05,0.4,0.6,0.19999999999999996,0.22,0.28,2,0.125,0.0625,0.0,0.25"
    )


def test_an_export_holds_the_variance_that_the_page_shows_and_no_other(tmp_path):
    beside_a_curve = replace(VARIANCE, conditions={"num_fewshot": "4"})
    for name in ("both", "curve"):
        (tmp_path / name).mkdir()
    write_sweep(tmp_path / "both", SweepAnalysis((CURVE,), (beside_a_curve, VARIANCE), ()))
    write_sweep(tmp_path / "curve", SweepAnalysis((CURVE,), (beside_a_curve,), ()))
    written = {name: [path.name for path in export_folder(tmp_path / name)] for name in ("both", "curve")}
    assert set(written["both"]) - set(written["curve"]) == {
        "variance.md", "variance.tex", "variance.csv", "variance.svg", "spread.md", "spread.tex", "spread.csv",
    }  # fmt: skip
    table = (tmp_path / "both" / "tables" / "variance.csv").read_text(encoding="utf-8").splitlines()
    assert table[0].startswith("task,metric,control,")
    assert len(table) == 1 + len(VARIANCE.components) + 1


def test_a_figure_is_the_same_bytes_each_time_and_holds_no_hostile_text(tmp_path):
    def draw(text):
        analysis = SweepAnalysis(
            (replace(CURVE, metric=text, conditions={text: text}), replace(CURVE, metric=text)),
            (replace(VARIANCE, metric=text, conditions={text: text}),),
            (),
            (replace(INFLUENCE, task=text, conditions={text: text}),),
            (replace(LEAVE_ONE_OUT, task=text, conditions={text: text}),),
        )
        write_sweep(tmp_path, analysis)
        return {path.name: path.read_bytes() for path in export_folder(tmp_path) if path.suffix == ".svg"}

    text = "</script><script>alert(1)</script> --> $\\frac{1}{0}$ \x00\u202e/../x"
    first = draw(text)
    assert len(first) == 5
    assert draw(text) == first
    for content in first.values():
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(content).iter()}
        assert "path" in tags
        assert not tags & {"script", "text", "image", "foreignObject", "date"}


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(DataError, match=r": holds neither a run \(report\.json\) nor a sweep \(sweep\.json\)$"):
        export_folder(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        export_folder(tmp_path / "missing")


def test_the_command_exports_every_folder_and_names_its_files(icl_eval_command, tmp_path):
    (tmp_path / "num_fewshot=1").mkdir()
    write_report(sample_runs.REPORT, tmp_path / "num_fewshot=1" / "report.json")
    outcome = icl_eval_command("export", "num_fewshot=1")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[0] == "num_fewshot=1/tables/scores.md"
    assert all((tmp_path / line).is_file() for line in outcome.out.splitlines())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "export: needs the folder of a run or a sweep (icl-eval export FOLDER)"),
        (["./none"], "none: no such folder"),
        (["folders=3"], "folders"),
    ],
)
def test_the_command_says_what_it_cannot_export(words, sentence, icl_eval_command):
    outcome = icl_eval_command("export", *words)
    assert outcome.exit_code == 2
    assert sentence in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_curve_is_drawn_as_far_as_its_metric_goes():
    (axes,) = draw_curves([BEYOND]).axes
    (band,) = [drawn for drawn in axes.collections if isinstance(drawn, PolyCollection)]
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == axes.get_ylim() == (0.0, 1.0)
    assert " ".join(axes.get_title(loc="left").split()) == (
        "lines: means over draws; small points: single draws; bands: 95 % over draws, for these questions; "
        "vertical bars: 95 % over questions, for these draws"
    )


def test_an_influence_is_drawn_where_it_is_with_its_interval():
    (axes,) = draw_influences(LEAVE_ONE_OUT, "exact_match").axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[-0.25, 0.75], [0.25], [0, 0]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["pool-1"]
    assert axes.get_title(loc="left") == "bars: 95 % over questions, for all demonstrations at once"
