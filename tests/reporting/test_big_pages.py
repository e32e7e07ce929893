from dataclasses import replace

import pytest
import sample_pages
import sample_sweeps
from playwright.sync_api import expect
from sample_runs import FIRST

from icl_eval.analysis.comparison import Comparison
from icl_eval.reporting.pages import packing
from icl_eval.reporting.pages.comparison_page import write_comparison_page

pytestmark = pytest.mark.slow

COUNT = 3000


@pytest.fixture(autouse=True)
def compressed(monkeypatch):
    """Make every page large enough to be compressed."""
    monkeypatch.setattr(packing, "MAX_PLAIN_BYTES", 0)


def settle(page, place, text):
    """Wait until a table says how many rows it shows."""
    expect(page.locator(f"{place} output")).to_have_text(text, timeout=20_000)


def settle_cell(page, text):
    """Wait until the first row of a run has a prediction."""
    expect(page.locator("#rows tbody tr:first-child td:nth-child(4)")).to_have_text(text, timeout=20_000)


def column(page, place, number):
    """Return the texts in a column of the page of rows that is shown."""
    return page.locator(f"{place} table.rows tbody tr td:nth-child({number})").all_inner_texts()


def shuffled(number):
    """Return another number below `COUNT`, a different one for each."""
    return number * 1009 % COUNT


def test_the_rows_of_a_big_run_are_read_searched_filtered_and_sorted_in_pieces(open_page, tmp_path):
    records = [
        replace(
            FIRST, example_id=f"id{number}", doc={"question": f"数{number}?😀"},
            prediction=f"answer {shuffled(number)}", metrics={"exact_match": shuffled(number) / COUNT, "hub": None},
        )
        for number in range(COUNT)
    ]  # fmt: skip
    sample_pages.write_run(tmp_path, *records)
    page = open_page(tmp_path / "report.html")
    settle(page, "#rows", "3,000 questions")
    read = "document.querySelectorAll('script[type=\"application/gzip\"]').length"
    assert page.evaluate(read) > 3
    page.evaluate("() => { BlockRows.maxKept = 2; }")  # the others are read again each time
    assert column(page, "#rows", 2) == [f"数{number}?😀" for number in range(50)]

    page.fill("#rows .search input", "数2999")
    settle(page, "#rows", "1 of 3,000 questions")
    page.click("#rows tbody .toggle button")
    assert "id2999" in page.inner_text("#rows tr.details")
    assert "Q: Où ?" in page.inner_text("#rows tr.details")

    page.fill("#rows .search input", "")
    settle(page, "#rows", "3,000 questions")
    page.fill("#rows input[placeholder='at least']", "0.5")
    settle(page, "#rows", "1,500 of 3,000 questions")
    page.click("#rows th button:has-text('prediction')")
    settle(page, "#rows", "1,500 of 3,000 questions")
    settle_cell(page, "answer 1500")
    assert column(page, "#rows", 4) == [f"answer {number}" for number in range(1500, 1550)]
    page.click("#rows [aria-label='next page']")
    settle_cell(page, "answer 1550")
    page.click("#rows th button:has-text('prediction')")
    settle_cell(page, "answer 2999")
    assert column(page, "#rows", 4) == [f"answer {number}" for number in range(2999, 2949, -1)]


def test_what_is_asked_last_is_what_a_big_table_shows(open_page, tmp_path):
    records = [replace(FIRST, example_id=f"id{number}", prediction=f"p{number}") for number in range(COUNT)]
    sample_pages.write_run(tmp_path, *records)
    page = open_page(tmp_path / "report.html")
    page.evaluate(
        """() => {
          const search = document.querySelector("#rows .search input");
          for (const text of ["id1", "id2998", ""]) { // the last one needs no search, so that it is shown first
            search.value = text;
            search.dispatchEvent(new Event("input", { bubbles: true }));
          }
        }"""
    )
    page.wait_for_timeout(1000)
    assert page.inner_text("#rows output") == "3,000 questions"
    assert column(page, "#rows", 4)[:2] == ["p0", "p1"]


def test_two_big_runs_stand_side_by_side_with_the_questions_that_both_have(open_page, tmp_path):
    def record(number, prefix, score):
        return sample_sweeps.record(number, f"{prefix}{number}", score)

    runs = [
        sample_sweeps.write_run(tmp_path / "a", *(record(n, "x", 0.0) for n in range(COUNT))),
        # another order, without the first hundred questions, and with some that the other run does not have
        sample_sweeps.write_run(
            tmp_path / "b", *(record(n, "y", float(n % 3 == 0)) for n in range(COUNT + 49, 99, -1))
        ),
    ]
    names = tuple(str(run.folder) for run in runs)
    found = sample_sweeps.difference(names[1])
    write_comparison_page(Comparison(1, names[0], names[1:], 0, 1000, (), (found,)), runs, tmp_path / "page.html")
    page = open_page(tmp_path / "page.html")
    settle(page, "#answers", "2,900 questions")
    assert "B is better on 966 questions and A on 0 questions; the score is the same on 1,934 questions" in (
        page.inner_text("#answers")
    )
    assert "150 of 3,050 questions are left out" in page.inner_text("#answers")
    shown = [column(page, "#answers", number) for number in (2, 4, 5, 8)]
    assert [texts[:3] for texts in shown] == [
        ["100?", "101?", "102?"], ["x100", "x101", "x102"], ["y100", "y101", "y102"], ["0.000", "0.000", "+1.000"],
    ]  # fmt: skip
    page.select_option("#answers label:has-text('Score') select", label="B is better")
    settle(page, "#answers", "966 of 2,900 questions")
    assert column(page, "#answers", 4)[:2] == ["x102", "x105"]


def test_a_browser_that_cannot_decompress_says_so(browser, tmp_path):
    sample_pages.write_run(tmp_path, FIRST)
    page = browser.new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto((tmp_path / "report.html").as_uri())
    assert "cannot be shown: it is compressed, and this browser is too old" in page.inner_text("main > .warning")
    page.close()
