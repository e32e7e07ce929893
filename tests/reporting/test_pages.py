import json
import math
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
from jinja2 import UndefinedError
from parsed_pages import HOSTILE, Parsed, assert_self_contained
from sample_pages import REPORT, write_run
from sample_runs import FIRST, SECOND

from icl_eval.errors import DataError
from icl_eval.formatting import format_score
from icl_eval.reporting.pages import packing, rendering
from icl_eval.reporting.pages.run_page import RecordBlocks, write_run_page
from icl_eval.reporting.pages.scales import metric_scale, nice_scale
from icl_eval.runs.folders import Run, read_run
from icl_eval.runs.records import ShownDemonstration


def render(template, **values):
    """Render a page whose template is given as text."""
    return rendering._environment().from_string('{% extends "base.html.j2" %}' + template).render(values)


@pytest.mark.parametrize("text", HOSTILE)
def test_data_reads_back_whatever_it_looks_like(text):
    value = {"text": text, text: [None, True, 0.1, {"deep": text}]}
    page = assert_self_contained(render("{% block scripts %}{{ data('d', value) }}{% endblock %}", value=value))
    assert page.data("d") == value
    assert [tag for tag, _ in page.elements] == [
        tag for tag, _ in assert_self_contained(render("{% block scripts %}{{ data('d', 1) }}{% endblock %}")).elements
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_in_a_template_stays_text(text):
    shown = "{% block main %}<p id='p' title='{{ text }}'>{{ text }}</p>{% endblock %}"
    page = assert_self_contained(render(shown, text=text))
    index = next(index for index, (_, attributes) in enumerate(page.elements) if attributes.get("id") == "p")
    assert page.elements[index][1]["title"] == text
    assert page.texts[index] == text
    assert len(page.elements) == len(assert_self_contained(render(shown, text="")).elements)


def test_a_number_that_json_does_not_have_is_null():
    html = render("{% block scripts %}{{ data('d', value) }}{% endblock %}", value={"a": [math.nan, (math.inf, 1.5)]})
    assert Parsed(html).data("d") == {"a": [None, [None, 1.5]]}


def test_a_name_that_a_page_does_not_get_is_an_error():
    with pytest.raises(UndefinedError, match="'missing' is undefined"):
        render("{% block main %}{{ missing }}{% endblock %}")


def hostile_records():
    """Return records with a hostile text in each of their fields."""
    for number in range(len(HOSTILE)):
        one, two, *_ = HOSTILE[number:] + HOSTILE
        shown = ShownDemonstration(one, two, None)
        demonstrations = (shown, replace(shown, target=None, similarity=0.5))
        yield replace(
            FIRST, example_id=one, doc={one: two}, targets=(one, two), encoder=one, decoder=two, completion=one,
            demonstration_ids=(two,), demonstrations=demonstrations, prediction=two, metrics={one: None},
            finish_reason=one, prompt_hash=two,
        )  # fmt: skip


def read_back(packed):
    """Return the records that a page holds, as `asdict` gives them."""
    records = []
    for record, texts in packed:
        for side in ("encoder", "decoder"):
            if record[side] is not None:
                record[side] = "".join(texts[number] for number in record[side])
        record["demonstration_ids"] = [texts[number] for number in record["demonstration_ids"]]
        record["demonstrations"] = [
            {"id": texts[shown], "target": target if target is None else texts[target], "similarity": similarity}
            for shown, target, similarity in record["demonstrations"]
        ]
        records.append(record)
    return records


def test_a_run_page_holds_every_record_whole(tmp_path):
    records = [FIRST, SECOND, *hostile_records()]
    page = write_run(tmp_path, *records)
    assert page.data("tasks") == [
        {
            "name": "qa", "metrics": ["exact_match", "hub"], "blocks": [["records-0-0", len(records)]],
            "reasons": sorted({record.finish_reason for record in records}), "clusters": [],
        }
    ]  # fmt: skip
    read = read_back(page.packed(page.data("tasks")[0]["blocks"]))
    assert read == json.loads(json.dumps([asdict(record) for record in records]))


@pytest.mark.parametrize(("max_plain", "kind"), [(10**9, "application/json"), (0, "application/gzip")])
def test_many_records_are_in_several_elements_each_once_and_compressed_if_they_are_many_bytes(
    max_plain, kind, tmp_path, monkeypatch
):
    monkeypatch.setattr(packing, "MAX_PLAIN_BYTES", max_plain)
    monkeypatch.setattr(packing, "BLOCK_ROWS", 20)
    monkeypatch.setattr(packing, "BLOCK_CHARS", 50_000)
    records = [*hostile_records()] * 5 + [replace(FIRST, completion="long" * 5000, doc={"n": str(n)}) for n in range(3)]
    page = write_run(tmp_path, *records)
    (task,) = page.data("tasks")
    # texts of 5,000 and 20,000 characters fill an element before its rows do
    assert [identifier for identifier, _ in task["blocks"]] == [f"records-0-{n}" for n in range(len(task["blocks"]))]
    assert max(count for _, count in task["blocks"]) <= 20
    assert len(task["blocks"]) > 3
    kinds = [
        attributes["type"] for _, attributes in page.elements if str(attributes.get("id")).startswith("records-0-")
    ]
    assert kinds == [kind] * len(task["blocks"])
    assert read_back(page.packed(task["blocks"])) == json.loads(json.dumps([asdict(record) for record in records]))


def test_a_page_is_written_row_by_row(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "BLOCK_ROWS", 10)
    write_run(tmp_path, *[FIRST] * 95)
    given, seen = [], []
    read = Run.stream_records

    def count(run, task):
        for record in read(run, task):
            given.append(record)
            yield record

    monkeypatch.setattr(Run, "stream_records", count)
    for element in RecordBlocks(read_run(tmp_path)):
        seen.append((len(given), element.count("qa-test-001")))
    assert seen == [(number, 10) for number in range(10, 100, 10)] + [(95, 5)]


def test_records_that_are_missing_leave_the_page_as_it_was(tmp_path):
    write_run(tmp_path, FIRST, SECOND)
    before = (tmp_path / "report.html").read_bytes()
    lines = (tmp_path / "samples_qa.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "samples_qa.jsonl").write_bytes(lines[0])
    with pytest.raises(DataError, match=r"has 1 records, but .* reports 2"):
        write_run_page(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
    assert [path.name for path in tmp_path.glob("*.tmp")] == []


def test_hostile_text_adds_no_element_to_a_run_page(tmp_path):
    harmless = write_run(tmp_path / "harmless", FIRST)
    for text in HOSTILE:
        run = replace(
            REPORT.run, model=text, template=text, fingerprint=text, decoding={**REPORT.run.decoding, text: text}
        )
        provenance = replace(REPORT.provenance, weights=text, config={text: text}, host={text: [text]})
        report = replace(REPORT, run=run, provenance=provenance)
        page = write_run(tmp_path / "hostile", *hostile_records(), report=report)
        assert page.elements == harmless.elements
        assert page.text("h1") == text


def test_a_run_page_shows_scores_with_their_intervals_and_a_dash_where_there_is_none(tmp_path):
    page = write_run(tmp_path, FIRST)
    assert page.rows("scores")[1:] == [
        ["qa", "1", "exact_match", "0.333", "0.27", "0.000 to 1.000 over questions", "0.0 to 1.0"],
        ["", "", "hub ↓", "12.5", "–", "–", "0 to 15"],
    ]
    labels = [attributes["aria-label"] for tag, attributes in page.elements if tag == "svg"]
    assert labels == [
        "0.333, 95 % interval 0.000 to 1.000, on a scale from 0.0 to 1.0",
        "12.5, on a scale from 0 to 15",
    ]


def test_a_run_page_shows_how_often_outputs_repeat_what_their_prompts_show(tmp_path):
    page = write_run(tmp_path, FIRST)
    assert page.rows("behaviour")[1:] == [["qa", "33 % (0 %) of 3", "–", "33 % (67 %) of 3"]]


def test_a_page_grows_with_the_text_of_its_prompts_and_not_with_their_number(tmp_path):
    block = "".join(f"Q: question {number}, which is as long as questions are?\nA: {number}\n\n" for number in range(8))
    records = [replace(FIRST, example_id=str(number), decoder=f"{block}Q: {number}\nA:") for number in range(500)]
    one = write_run(tmp_path, records[0])
    many = write_run(tmp_path, *records)
    made = [[tag for tag, at in page.elements if "records-" not in at.get("id", "")] for page in (one, many)]
    assert made[0] == made[1]  # rows are made when they are looked at
    assert (tmp_path / "report.html").stat().st_size < (tmp_path / "samples_qa.jsonl").stat().st_size
    blocks = many.data("tasks")[0]["blocks"]
    ((_, texts), *_) = many.packed(blocks)
    assert len(texts) == len(set(block.splitlines())) + blocks[0][1] + len(["A:", "qa-pool-007", "Rom"])


def test_a_run_page_needs_no_drawing_library_and_no_model(tmp_path):
    write_run(tmp_path, FIRST)
    program = (
        "import sys, pathlib; from icl_eval.reporting.pages.run_page import write_run_page; "
        "write_run_page(pathlib.Path(sys.argv[1])); print(*{'matplotlib', 'torch', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ((0.0, 1.0), ("0.0", "0.2", "0.4", "0.6", "0.8", "1.0")),
        ((0.0, 100.0), ("0", "20", "40", "60", "80", "100")),
        ((0.31, 0.47), ("0.30", "0.35", "0.40", "0.45", "0.50")),
        ((-3.0, 12.5), ("-5", "0", "5", "10", "15")),
        ((7.0, 7.0), ("6.4", "6.6", "6.8", "7.0", "7.2", "7.4", "7.6")),
        ((0.3, 0.1 + 0.2), ("-0.2", "0.0", "0.2", "0.4", "0.6", "0.8")),
        ((3e6, 3e6), ("2.8e+06", "2.9e+06", "3e+06", "3.1e+06", "3.2e+06")),
        ((), ("0.0", "0.2", "0.4", "0.6", "0.8", "1.0")),
        ((math.nan, math.inf), ("0.0", "0.2", "0.4", "0.6", "0.8", "1.0")),
    ],
)
def test_a_scale_ends_at_round_numbers(values, ticks):
    assert nice_scale(values).ticks == ticks


@pytest.mark.parametrize(
    ("score", "text"),
    [(0.0625, "0.062"), (-1.5, "-1.500"), (2.0, "2.000"), (2.04, "2.0"), (99.96, "100.0"), (317239765.9, "3.17e+08")],
)
def test_a_score_has_the_digits_that_it_deserves(score, text):
    assert format_score(score) == text


@pytest.mark.parametrize(
    ("metric", "scores", "reached", "ends", "whole_ends"),
    [
        ("exact_match", (0.0, 0.0), (), ("0.0", "0.5"), ("0.0", "1.0")),
        ("exact_match", (0.9, 1.0), (0.8, 1.1), ("0.80", "1.00"), ("0.0", "1.0")),
        ("bleu", (0.3,), (-0.2, 0.8), ("0.0", "0.8"), ("0", "100")),
        ("chrf", (100.00000000000003,), (90.0, 110.0), ("90", "100"), ("0", "100")),
        ("ter", (107.9,), (95.0, 120.0), ("95", "120"), ("0", "150")),
        ("reference_logprob", (-0.5,), (-2.0, 1.0), ("-2.0", "0.0"), ("-2.0", "0.0")),
        ("reference_perplexity", (3e6,), (-1e6, 1e7), ("0", "1e+07"), ("0", "1e+07")),
        ("hub/rouge", (0.3,), (-0.1, 0.5), ("0.0", "0.5"), ("0.0", "1.0")),
        ("hub/other", (12.5, -7.5), (), ("-10", "15"), ("-10", "15")),
    ],
)
def test_the_scale_of_a_metric_holds_its_scores_and_ends_where_the_metric_does(
    metric, scores, reached, ends, whole_ends
):
    found = [metric_scale(metric, scores, reached, whole=whole).ticks for whole in (False, True)]
    assert [(ticks[0], ticks[-1]) for ticks in found] == [ends, whole_ends]


def test_a_run_page_says_that_its_score_is_of_one_draw_and_leads_to_the_sweep(tmp_path):
    report = replace(REPORT, run=replace(REPORT.run, one_draw=True))
    alone = write_run(tmp_path, FIRST, report=report)
    assert alone.rows("scores")[1][3] == "0.333 of one draw"
    assert [attributes for tag, attributes in alone.elements if tag == "a"] == []
    (tmp_path / ".hydra").mkdir()
    for mode, links in (("RUN", []), ("MULTIRUN", [{"href": "../sweep.html"}])):
        (tmp_path / ".hydra" / "hydra.yaml").write_text(f"hydra:\n  mode: {mode}\n", encoding="utf-8")
        page = write_run(tmp_path, FIRST, report=report)
        assert [attributes for tag, attributes in page.elements if tag == "a"] == links
    many = write_run(tmp_path, FIRST)
    assert many.rows("scores")[1][3] == "0.333"


def test_a_run_page_shows_the_clusters_that_its_intervals_are_over(tmp_path):
    records = [
        replace(FIRST, example_id=str(number), cluster=cluster, metrics={"exact_match": score, "hub": None})
        for number, (cluster, score) in enumerate((("b", 1.0), ("a", 0.5), ("b", 0.0), ("a", None)))
    ]
    result = replace(REPORT.results["qa"], num_clusters=2)
    page = write_run(tmp_path, *records, report=replace(REPORT, results={"qa": result}))
    assert page.rows("scores")[1][1] == "4 in 2 clusters"
    assert page.rows("scores")[1][5] == "0.000 to 1.000 over 2 clusters"
    assert page.data("tasks")[0]["clusters"] == [["b", 2, 0.5, None], ["a", 2, 0.5, None]]
    alone = replace(result, num_clusters=4)
    page = write_run(tmp_path, *records, report=replace(REPORT, results={"qa": alone}))
    assert page.rows("scores")[1][1] == "4"
    assert page.data("tasks")[0]["clusters"] == []
