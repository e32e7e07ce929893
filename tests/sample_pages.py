"""Write a run with its page, and parse the page as a browser does."""

import json
from dataclasses import asdict, replace

import sample_runs
from parsed_pages import assert_self_contained

from icl_eval.reporting.pages.run_page import write_run_page
from icl_eval.runs.reports import write_report

REPORT = replace(
    sample_runs.REPORT,
    run=replace(sample_runs.REPORT.run, decoding={"search": "greedy", "dtype": "float32", "batch_invariant": True}),
    provenance=replace(sample_runs.REPORT.provenance, versions={"icl_eval": "0.1.0"}),
)


def write_run(folder, *records, report=REPORT):
    """Write the files of a run of one task, with its page, and return the parsed page."""
    folder.mkdir(exist_ok=True)
    result = report.results["qa"]
    result = replace(result, n=len(records), counts=replace(result.counts, empty=0, stopped_empty={}))
    report = replace(report, results={"qa": result})
    write_report(report, folder / "report.json")
    lines = "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)
    (folder / "samples_qa.jsonl").write_text(lines, encoding="utf-8")
    write_run_page(folder)
    return assert_self_contained((folder / "report.html").read_bytes().decode())
