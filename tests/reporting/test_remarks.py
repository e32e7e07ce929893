import json
from dataclasses import replace

import pytest
from sample_runs import REPORT

from icl_eval.decoding import Completion, StreamDecoder
from icl_eval.reporting.remarks import describe_draw, remarks
from icl_eval.runs.folders import read_run
from icl_eval.runs.reports import Counts, MetricResult

TRY = "before any text: try decoding.stop=[] with postprocessing=first_line"


@pytest.mark.parametrize(
    ("empty", "stopped_empty", "sentence"),
    [
        (17, {"\n": 17}, None),
        (
            18,
            {},
            "18 of 20 predictions are empty; inspect the completions: the template or the postprocessing may not suit",
        ),
        (
            20,
            {"\n": 3, "Q:": 12},
            f"20 of 20 predictions are empty; 12 completions ended at the stop string 'Q:' {TRY}",
        ),
    ],
)
def test_a_score_of_empty_predictions_has_a_remark(empty, stopped_empty, sentence):
    result = REPORT.results["qa"]
    counts = Counts(1, 1, 1, {"stop": 20}, {}, {"2": 20}, empty, stopped_empty)
    run = replace(REPORT.run, decoding={**REPORT.run.decoding, "batch_invariant": True})
    found = list(remarks(replace(REPORT, run=run, results={"qa": replace(result, n=20, counts=counts)})))
    assert len(found) == (sentence is not None)
    assert all(line.startswith(f"qa: {sentence}") for line in found)


def remarks_of(**changes):
    run = replace(REPORT.run, decoding={**REPORT.run.decoding, "batch_invariant": True})
    counts = Counts(1, 1, 1, {"stop": 20}, {}, {"2": 20}, 0, {})
    result = replace(REPORT.results["qa"], n=20, counts=counts, **changes)
    return list(remarks(replace(REPORT, run=run, results={"qa": result})))


def test_clusters_and_smoothing_are_said():
    assert remarks_of(num_clusters=20) == []
    assert remarks_of(num_clusters=4) == ["qa: errors and intervals are over 4 clusters of 20 questions"]
    (alone,) = remarks_of(num_clusters=1)
    assert alone.startswith("qa: all 20 questions are of one cluster, so no error can be estimated")
    for signature, order in (("nrefs:1|tok:13a", "4"), ("nrefs:1|tok:13a|ngram:3", "3")):
        (line,) = remarks_of(metrics={"bleu": MetricResult(0.5, None, None, signature, True, smoothed=True)})
        assert line == (
            f"qa: bleu is smoothing alone and has no interval: no prediction has a {order}-gram of its reference"
        )


SAID = {
    "qa-test-001": Completion("qa-test-001", "", (1,), "stop", "\n"),
    "qa-test-002": Completion("qa-test-002", " <think> ", (1,), "stop", "\n"),
    "qa-test-003": Completion("qa-test-003", "", (1,), "eos"),
    "qa-test-004": Completion("qa-test-004", "Paris", (1,), "stop", "\n"),
}


def test_what_left_predictions_empty_is_recorded_and_counted(icl_eval_command, gpt2, tmp_path, monkeypatch):
    monkeypatch.setattr(
        StreamDecoder, "stream", lambda _, prompts, **options: (SAID[prompt.prompt.example_id] for prompt in prompts)
    )
    run = [f"model.source={gpt2}", "task=[qa]", "num_fewshot=0", "hydra.run.dir=run"]
    outcome = icl_eval_command(*run, "limit=3")
    assert f"qa: 3 of 3 predictions are empty; 2 completions ended at the stop string '\\n' {TRY}" in outcome.out
    assert TRY in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    outcome = icl_eval_command(*run, "limit=4", "hydra.run.dir=other")
    assert "are empty" not in outcome.out
    counts = json.loads((tmp_path / "other" / "report.json").read_text(encoding="utf-8"))["results"]["qa"]["counts"]
    assert (counts["empty"], counts["stopped_empty"]) == (3, {"\n": 2})
    lines = (tmp_path / "other" / "samples_qa.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["stop_string"] for line in lines] == ["\n", "\n", None, "\n"]


@pytest.mark.parametrize(
    ("overrides", "is_one_draw"),
    [
        (["num_fewshot=2"], True),
        (["num_fewshot=0"], False),
        (["num_fewshot=2", "demonstrations.per_question=true"], False),
        (["num_fewshot=2", "demonstrations=first"], False),
        (["num_fewshot=2", "demonstrations=bm25"], False),
    ],
)
def test_a_run_of_one_draw_says_so_beside_its_scores(overrides, is_one_draw, evaluate_tiny):
    folder = evaluate_tiny("run", "task=qa", "limit=2", "max_new_tokens=2", "overflow=drop", *overrides)
    run = read_run(folder).report.run
    assert run.one_draw == is_one_draw
    assert describe_draw(run).startswith("scores of one draw of demonstrations") == is_one_draw
    assert ("scores of one draw" in (folder / "report.html").read_text(encoding="utf-8")) == is_one_draw
