from dataclasses import replace

import pytest
import sample_pages
import sample_sweeps
from sample_runs import FIRST

from icl_eval.analysis import SweepAnalysis
from icl_eval.analysis.comparison import Comparison
from icl_eval.formatting import format_score, typeset
from icl_eval.reporting.pages.comparison_page import write_comparison_page
from icl_eval.runs.reports import MetricResult

pytestmark = pytest.mark.slow

WIDTHS = (400, 1000, 1400)
METRICS = (
    "exact_match", "token_f1", "reference_logprob", "reference_perplexity", "reference_rank", "choice_accuracy",
    "choice_accuracy_per_token", "choice_accuracy_per_byte", "choice_accuracy_calibrated", "choice_accuracy_batch",
)  # fmt: skip
LONG = "demonstrations=random,likelihood=references,limit=4,num_fewshot=0,seed=0"
MEASURE = """
() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const width = (element) => element.getBoundingClientRect().width;
  const heads = all("table.rows th:not(.toggle)").filter((head) => width(head) > 0);
  document.querySelector("table.rows .toggle button")?.click();
  return {
    width: document.documentElement.scrollWidth,
    columns: Object.fromEntries(heads.map((head) => [head.textContent.replaceAll("\\u200b", ""), width(head)])),
    score: document.querySelector("#scores + .scroll td:nth-child(4)")?.getBoundingClientRect().right ?? 0,
    details: width(document.querySelector("tr.details > td > *")),
    numbers: Math.min(...all(".chart text[text-anchor=end]").map((text) => text.getBBox().x)),
    notes: all("output, #answers .note").map((note) => note.textContent),
  };
}
"""


@pytest.fixture
def measure(browser):
    """Open a page at each of `WIDTHS`, unfold its first question, and return what was measured."""

    def measure(path):
        found = {}
        for width in WIDTHS:
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.goto(path.as_uri())
            found[width] = page.evaluate(MEASURE)
            page.close()
        return found

    return measure


@pytest.mark.slow
def test_a_run_with_many_metrics_can_be_read_at_every_width(measure, tmp_path):
    found = MetricResult(0.5, 0.2, (0.1, 0.9), "x", True)
    result = replace(sample_pages.REPORT.results["qa"], metrics=dict.fromkeys(METRICS, found))
    record = replace(FIRST, metrics=dict.fromkeys(METRICS, 0.5))
    sample_pages.write_run(tmp_path, record, report=replace(sample_pages.REPORT, results={"qa": result}))

    measured = measure(tmp_path / "report.html")

    for width, page in measured.items():
        assert page["width"] <= width
        assert page["score"] <= width
        assert page["details"] <= width
        assert page["notes"] == ["1 question"]
        assert min(page["columns"][title] for title in ("question", "prediction")) >= 100
        assert min(page["columns"].values()) >= 70
    assert list(measured[400]["columns"]) == ["question", "prediction", "exact_match"]
    assert list(measured[1400]["columns"]) == ["question", "references", "prediction", *METRICS]


@pytest.mark.slow
def test_runs_with_long_names_stand_side_by_side_at_every_width(measure, tmp_path):
    question = sample_sweeps.record(1, "1", 1.0)
    runs = [sample_sweeps.write_run(tmp_path / name / LONG, question) for name in "ab"]
    names = tuple(str(run.folder) for run in runs)
    found = sample_sweeps.difference(names[1])
    write_comparison_page(Comparison(1, names[0], names[1:], 0, 1000, (), (found,)), runs, tmp_path / "page.html")

    for width, page in measure(tmp_path / "page.html").items():
        assert page["width"] <= width
        assert page["details"] <= width
        assert min(page["columns"][title] for title in ("question", "A predicts", "B predicts")) >= 70
        sentence = (
            "By exact_match, B is better on 0 questions and A on 0 questions; the score is the same on 1 question."
        )
        assert page["notes"] == [sentence, "1 question"]


@pytest.mark.slow
def test_a_sweep_with_long_names_can_be_read_at_every_width(measure, tmp_path):
    curve = sample_sweeps.curve((0, {}, 0.0, None), (1, {"": 3e5}, 3e5, None), metric="reference_perplexity")
    analysis = SweepAnalysis(
        (sample_sweeps.CURVE, curve),
        (sample_sweeps.VARIANCE,),
        (),
        (sample_sweeps.INFLUENCE,),
        (sample_sweeps.LEAVE_ONE_OUT,),
    )
    cells = [([f"seed={seed}", LONG], [sample_sweeps.record(1, "1", 1.0)]) for seed in (0, 1)]
    sample_sweeps.write_sweep(tmp_path, cells, analysis)

    for width, page in measure(tmp_path / "sweep.html").items():
        assert page["width"] <= width
        assert page["details"] <= width
        assert page["numbers"] >= 18  # right of what the axis shows


@pytest.mark.parametrize("number", [0.0, 0.0625, -0.1875, 2.0, -2.25, 99.95, 999999.0, 1e6, -317239765.9, 2e12])
def test_a_score_reads_the_same_from_a_template_and_from_a_script(number, browser, tmp_path):
    sample_pages.write_run(tmp_path, FIRST)
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    assert page.evaluate("formatScore", number) == typeset(format_score(number))
    page.close()


def test_the_table_of_a_sweep_fits_at_every_width_and_its_cells_can_be_filtered(open_page, tmp_path):
    cells = [
        ([f"control={control}", f"num_fewshot={shots}", f"seed={seed}"], [sample_sweeps.record(1, "1", 1.0)])
        for control in ("none", "random_targets")
        for shots in (0, 1, 2, 4)
        for seed in range(3)
    ]
    sample_sweeps.write_sweep(tmp_path, [*cells, (["control=none", "num_fewshot=99", "seed=0"], "too few")])
    for width in WIDTHS:
        page = open_page(tmp_path / "sweep.html", width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("document.querySelector('.pivot table').scrollWidth") <= width
        assert page.inner_text("#cells-rows output") == "25 cells"
        page.select_option("#cells-rows label:has-text('control') select", label="random_targets")
        assert page.inner_text("#cells-rows output") == "12 of 25 cells"
        address = page.get_attribute("#cells-rows tbody tr:nth-child(2) a", "href")
        assert (tmp_path / address.replace("%20", " ").replace("%23", "#").replace("%3F", "?")).parent.is_dir()
        page.select_option("#cells-rows label:has-text('control') select", label="any")
        page.select_option("#cells-rows label:has-text('Result') select", label="failed")
        page.click("#cells-rows tbody .toggle button")
        assert "failed: too few" in page.inner_text("#cells-rows tr.details")


def test_a_cluster_leads_to_its_questions(open_page, tmp_path):
    records = [replace(FIRST, example_id=str(number), cluster="odd" if number % 2 else "even") for number in range(9)]
    result = replace(sample_pages.REPORT.results["qa"], num_clusters=2)
    sample_pages.write_run(tmp_path, *records, report=replace(sample_pages.REPORT, results={"qa": result}))
    page = open_page(tmp_path / "report.html")
    assert page.inner_text("#clusters-rows output") == "2 clusters"
    page.click("#clusters-rows tbody tr:nth-child(2) .toggle button")
    page.click("text=show its questions")
    assert page.inner_text("#rows output") == "4 of 9 questions"
    page.click("#rows tbody .toggle button")
    assert "odd" in page.inner_text("#rows tr.details")
