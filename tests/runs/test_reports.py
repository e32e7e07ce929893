import json
import re
from dataclasses import asdict, replace
from importlib.resources import files

import jsonschema
import pytest
from sample_runs import REPORT

from icl_eval.errors import DataError
from icl_eval.runs.reports import (
    MetricResult,
    read_report,
    report_schema,
    write_json,
    write_report,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "report.json"


def test_a_report_reads_back_as_it_was_written(path):
    write_report(REPORT, path)
    assert read_report(path) == REPORT


def test_a_report_from_before_empty_predictions_were_counted_reads(path):
    document = asdict(REPORT)
    del document["results"]["qa"]["counts"]["empty"], document["results"]["qa"]["counts"]["stopped_empty"]
    write_json(document, path)
    counts = read_report(path).results["qa"].counts
    assert (counts.empty, counts.stopped_empty) == (0, {})


def test_a_report_is_indented_utf_8_in_the_order_of_its_fields(path):
    write_report(REPORT, path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith('{\n  "schema_version": 2,\n  "run": {\n    "model": "tiny-gpt2",\n')
    assert '      "cpu": "é"\n    },\n    "overrides": [\n      "num_fewshot=2"\n    ],\n' in text
    assert text.endswith('  "groups": {}\n}\n')
    assert list(json.loads(text)) == ["schema_version", "run", "results", "timing", "provenance", "groups"]


def test_a_report_that_cannot_be_written_leaves_the_old_one(path):
    write_report(REPORT, path)
    unwritable = replace(REPORT, provenance=replace(REPORT.provenance, host={"cpu": object()}))
    with pytest.raises(TypeError):
        write_report(unwritable, path)
    assert read_report(path) == REPORT
    assert list(path.parent.iterdir()) == [path]


def test_a_report_of_another_schema_is_refused(path):
    write_json({**asdict(REPORT), "schema_version": 99}, path)
    with pytest.raises(DataError) as error:
        read_report(path)
    assert str(error.value) == f"{path}: not a report (schema_version: Input should be 2)"


def test_the_published_schema_is_the_one_of_the_code():
    published = files("icl_eval").joinpath("report.schema.json").read_text(encoding="utf-8")
    assert published == json.dumps(report_schema(), indent=2, ensure_ascii=False) + "\n"


def test_a_written_report_is_what_its_schema_describes(path):
    jsonschema.Draft202012Validator.check_schema(report_schema())
    write_report(REPORT, path)
    jsonschema.validate(json.loads(path.read_text(encoding="utf-8")), report_schema())


@pytest.mark.parametrize(
    "place", ["", "run", "results.qa", "results.qa.metrics.hub", "results.qa.counts", "timing", "provenance"]
)
def test_every_field_of_a_report_is_required(place, path):
    write_report(REPORT, path)
    names = list(part(json.loads(path.read_text(encoding="utf-8")), place))
    assert names
    for name in names:
        document = json.loads(path.read_text(encoding="utf-8"))
        del part(document, place)[name]
        with pytest.raises(jsonschema.ValidationError, match=f"'{name}' is a required property"):
            jsonschema.validate(document, report_schema())


def part(document, place):
    for name in filter(None, place.split(".")):
        document = document[name]
    return document


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_no_file_gets_a_number_that_json_has_no_word_for(path, value):
    broken = {"qa": replace(REPORT.results["qa"], metrics={"bleu": MetricResult(value, None, None, "", True)})}
    message = f"{path}: cannot be written (results.qa.metrics.bleu.score is {value}, which is not a finite number)"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        write_report(replace(REPORT, results=broken), path)
    assert not path.exists()
