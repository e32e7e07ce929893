import html
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import test_pages
import test_sweep_pages
from parsed_pages import Parsed
from test_records import FIRST

from icl_eval.analysis import SweepAnalysis
from icl_eval.comparison import Comparison
from icl_eval.pages.comparison_page import write_comparison_page
from icl_eval.reports import MetricResult

WIDTHS = (400, 1000, 1400)
METRICS = (
    "exact_match", "token_f1", "reference_logprob", "reference_perplexity", "reference_rank", "choice_accuracy",
    "choice_accuracy_per_token", "choice_accuracy_per_byte", "choice_accuracy_calibrated",
)  # fmt: skip
LONG = "demonstrations=random,likelihood=references,limit=4,num_fewshot=0,seed=0"
MEASURE = """
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map((frame) => {
    const page = frame.contentDocument;
    const width = (element) => element.getBoundingClientRect().width;
    const heads = [...page.querySelectorAll("table.rows th:not(.toggle)")].filter((head) => width(head) > 0);
    page.querySelector("table.rows .toggle button")?.click();
    return {
      width: page.documentElement.scrollWidth,
      columns: Object.fromEntries(heads.map((head) => [head.textContent.replaceAll("\\u200b", ""), width(head)])),
      score: page.querySelector("#scores + .scroll td:nth-child(4)")?.getBoundingClientRect().right ?? 0,
      details: width(page.querySelector("tr.details > td > *")),
      notes: [...page.querySelectorAll("output, #answers .note")].map((note) => note.textContent),
    };
  });
  document.body.replaceChildren(JSON.stringify(found));
});
"""


@pytest.fixture
def measure(tmp_path):
    """Open a page in a browser at each of `WIDTHS`, with the first question unfolded; return what was measured."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("needs chromium")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []

    def measure(page):
        frames = [f'<iframe width="{width}" height="900" srcdoc="{html.escape(page)}"></iframe>' for width in WIDTHS]
        path = tmp_path / "frames.html"
        path.write_text(f"<body>{''.join(frames)}<script>{MEASURE}</script>", encoding="utf-8")
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        command = [browser, "--headless", *sandbox, "--disable-gpu", profile, "--dump-dom", path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return dict(zip(WIDTHS, json.loads(Parsed(done.stdout).text("body")), strict=True))

    return measure


def written(path):
    return Path(path).read_text(encoding="utf-8")


def test_a_run_with_many_metrics_can_be_read_at_every_width(measure, tmp_path):
    found = MetricResult(0.5, 0.2, (0.1, 0.9), "x", True)
    result = replace(test_pages.REPORT.results["qa"], metrics=dict.fromkeys(METRICS, found))
    record = replace(FIRST, metrics=dict.fromkeys(METRICS, 0.5))
    test_pages.write_run(tmp_path, record, report=replace(test_pages.REPORT, results={"qa": result}))

    measured = measure(written(tmp_path / "report.html"))

    for width, page in measured.items():
        assert page["width"] <= width
        assert page["score"] <= width
        assert page["details"] <= width
        assert page["notes"] == ["1 question"]
        assert min(page["columns"][title] for title in ("question", "prediction")) >= 100
        assert min(page["columns"].values()) >= 70
    assert list(measured[400]["columns"]) == ["question", "prediction", "exact_match"]
    assert list(measured[1400]["columns"]) == ["question", "references", "prediction", *METRICS]


def test_runs_with_long_names_stand_side_by_side_at_every_width(measure, tmp_path):
    question = test_sweep_pages.record(1, "1", 1.0)
    runs = [test_sweep_pages.write_run(tmp_path / name / LONG, question) for name in "ab"]
    names = tuple(str(run.folder) for run in runs)
    found = test_sweep_pages.difference(names[1])
    write_comparison_page(Comparison(1, names[0], names[1:], 0, 1000, (), (found,)), runs, tmp_path / "page.html")

    for width, page in measure(written(tmp_path / "page.html")).items():
        assert page["width"] <= width
        assert page["details"] <= width
        assert min(page["columns"][title] for title in ("question", "A predicts", "B predicts")) >= 70
        sentence = "By exact_match, B is better on 0 questions, A on 0 questions; the same score on 1 question."
        assert page["notes"] == [sentence, "1 question"]


def test_a_sweep_with_long_names_can_be_read_at_every_width(measure, tmp_path):
    analysis = SweepAnalysis((test_sweep_pages.CURVE,), (test_sweep_pages.VARIANCE,), (), (test_sweep_pages.INFLUENCE,))
    cells = [([f"seed={seed}", LONG], [test_sweep_pages.record(1, "1", 1.0)]) for seed in (0, 1)]
    test_sweep_pages.write_sweep(tmp_path, cells, analysis)

    for width, page in measure(written(tmp_path / "sweep.html")).items():
        assert page["width"] <= width
        assert page["details"] <= width
