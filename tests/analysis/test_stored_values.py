"""Metrics whose values another program computed: all that is known of them stands in the records."""

import json
from dataclasses import asdict, replace

import pytest
import scipy.stats
from sample_runs import FIRST, REPORT

from icl_eval.analysis.comparison import compare_runs
from icl_eval.errors import DataError
from icl_eval.metrics.intervals import share_interval
from icl_eval.metrics.means import mean_statistics, stored_statistics
from icl_eval.metrics.measurements import Measurement, score_measurements
from icl_eval.runs.folders import read_run
from icl_eval.runs.reports import write_report

MATCH, LENGTH = "exact_match,strict-match", "length,none"
ONE = {MATCH: (1, 0, 0, 0, 0, 1), LENGTH: (2.5, 1.0, 4.0, 3.0, 0.5, 1.0)}
OTHER = {MATCH: (1, 1, 1, 1, 0, 0), LENGTH: (3.0, 2.0, 4.0, 5.0, 1.0, 1.5)}


@pytest.fixture
def store(tmp_path):
    """Write a run whose records store these values of these metrics, and return it."""

    def write(name, values):
        ids = tuple(f"{number}" for number in range(6))
        records = [replace(FIRST, example_id=each, metrics={}) for each in ids]
        measured = [
            Measurement("qa", metric, True, ids, stored_statistics(numbers, f"{metric}|by:another|version:{name}"))
            for metric, numbers in values.items()
        ]
        scored = score_measurements(records, measured, seed=0)
        result = replace(REPORT.results["qa"], n=6, metrics=scored.results)
        config = replace(REPORT.provenance, config={"task": {"qa": {"metrics": {}}}})
        (tmp_path / name).mkdir()
        write_report(replace(REPORT, results={"qa": result}, provenance=config), tmp_path / name / "report.json")
        lines = "".join(json.dumps(asdict(record)) + "\n" for record in scored.records)
        (tmp_path / name / "samples_qa.jsonl").write_text(lines, encoding="utf-8")
        return read_run(tmp_path / name)

    return write


def test_values_that_are_all_0_or_1_are_a_share_and_others_a_mean(store):
    match, length = store("one", ONE).report.results["qa"].metrics.values()
    assert (match.score, match.ci95, match.stored) == (2 / 6, share_interval(2 / 6, 6), True)
    assert (length.score, length.stored) == (2.0, True)
    assert length.ci95[0] < 2.0 < length.ci95[1]
    assert not mean_statistics([0.0, 1.0], "m").is_stored


def test_stored_values_are_compared_in_pairs_as_what_they_are(store):
    match, length = compare_runs([store("one", ONE), store("other", OTHER)], num_resamples=200).differences
    assert (match.test, match.others["mcnemar"]) == ("bonett_price", scipy.stats.binomtest(3, 4).pvalue)
    assert (match.better, match.worse) == (("1", "2", "3"), ("5",))
    assert (length.test, length.baseline_score, length.score) == ("bootstrap_t", 2.0, 2.75)
    assert length.better == ("0", "1", "3", "4", "5")


def test_values_that_happen_to_be_0_or_1_in_one_run_do_not_limit_a_difference(store):
    short, long = store("short", {LENGTH: (1, 0, 1, 1, 0, 1)}), store("long", {LENGTH: (7, 9, 8, 9, 6, 8)})
    for runs, sign in (((short, long), 1), ((long, short), -1)):
        [length] = compare_runs(runs, num_resamples=200).differences
        assert length.difference == pytest.approx(sign * 43 / 6)
        assert length.ci95[0] < length.difference < length.ci95[1]


def test_a_record_without_a_value_that_it_should_store_is_named(store):
    run = store("one", ONE)
    path = run.folder / "samples_qa.jsonl"
    path.write_text(
        path.read_text().replace('{"exact_match,strict-match": 0.0', '{"exact_match,strict-match": null', 1)
    )
    with pytest.raises(DataError) as refused:
        compare_runs([run, run])
    assert str(refused.value) == (
        f"task 'qa', question '1': the record has no value of {MATCH}, "
        "but the report says that records store its values"
    )
