"""Runs in the formats of other programs, read back by their own tools."""

import json
import shutil
import subprocess
from dataclasses import replace

import pytest
from sample_runs import SECOND
from sample_sweeps import record, write_run

from icl_eval.harnesses.every_eval_ever.results import find_metric_range, list_results
from icl_eval.harnesses.every_eval_ever.rows import list_rows
from icl_eval.harnesses.lm_eval.results import write_results
from icl_eval.harnesses.lm_eval.samples import list_samples
from icl_eval.metrics.intervals import share_interval
from icl_eval.runs.folders import read_run
from icl_eval.runs.reports import GroupResult, MetricResult

PUBLISHER = ("model_id=org/tiny", "organization=Us", "relationship=other")


@pytest.fixture
def run(evaluate_tiny):
    """Return the folder of a run with a score that is a share and one of the corpus."""
    options = ("num_fewshot=0", "limit=4", "max_new_tokens=4", "device=cpu")
    return evaluate_tiny("run", "task=qa", "metrics=[exact_match,chrf]", *options)


@pytest.fixture
def ranked(evaluate_tiny):
    """Return the folder of a run in which nothing is decoded and choices are ranked."""
    return evaluate_tiny(
        "ranked", "task=commonsense", "likelihood=choices", "num_fewshot=0", "limit=4", "max_new_tokens=0"
    )


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def find(folder, pattern):
    [path] = folder.rglob(pattern)
    return path


def read_bytes(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_harness_reads_results_and_samples_that_look_like_its_own(run, ranked, icl_eval_command):
    from lm_eval import utils

    outcome = icl_eval_command("export", "run", "ranked", "format=lm_eval", "model_id=org/tiny")
    assert (outcome.exit_code, outcome.err) == (0, "")
    written = outcome.out.splitlines()
    assert [utils.get_results_filenames(written), utils.get_sample_results_filenames(written)] == [
        written[::2], written[1::2],
    ]  # fmt: skip
    assert [utils.get_file_task_name(path.rpartition("/")[2]) for path in written[1::2]] == ["qa", "commonsense"]
    assert all(path.split("/")[1:3] == ["lm_eval", utils.sanitize_model_name("org/tiny")] for path in written)

    results = json.loads(find(run, "results_*.json").read_text(encoding="utf-8"))
    scores = read_run(run).report.results["qa"].metrics
    assert results["results"]["qa"]["exact_match,none"] == scores["exact_match"].score
    assert results["results"]["qa"]["chrf_stderr,none"] == scores["chrf"].stderr
    assert results["results"]["qa"]["exact_match_stderr,none"] == 0.0  # 0 of 4
    assert results["icl_eval"]["scores"]["qa"]["exact_match"]["ci95"] == list(scores["exact_match"].ci95)
    aggregations = {each["metric"]: each["aggregation"] for each in results["configs"]["qa"]["metric_list"]}
    assert aggregations == {"exact_match": "mean", "chrf": "chrf"}
    table = [[cell.strip() for cell in row.split("|")[1:]] for row in utils.make_table(results).splitlines()[2:]]
    [row] = [row for row in table if row[4] == "exact_match"]
    assert (row[2:6], float(row[6])) == (["none", "0", "exact_match", "↑"], scores["exact_match"].score)

    record, line = read_run(run).records("qa")[1], read_lines(find(run, "samples_qa_*.jsonl"))[1]
    assert line["arguments"]["gen_args_0"] == {"arg_0": record.decoder, "arg_1": {"until": ["\n"], "max_gen_toks": 4}}
    assert (line["resps"], line["filtered_resps"]) == ([[record.completion]], [record.prediction])
    assert line["prompt_hash"] == utils.hash_string(record.decoder)
    assert line["doc_hash"] == utils.hash_string(json.dumps(line["doc"], indent=2, ensure_ascii=False))
    assert line["target_hash"] == utils.hash_string(line["target"])


def test_choices_are_requests_whose_responses_are_log_likelihoods(ranked, icl_eval_command):
    icl_eval_command("export", "ranked", "format=lm_eval")
    record, line = read_run(ranked).records("commonsense")[0], read_lines(find(ranked, "samples_*_*.jsonl"))[0]
    choices = record.likelihood.choices
    assert [each["arg_1"] for each in line["arguments"].values()] == [choice.text for choice in choices]
    assert line["resps"] == [[[str(choice.logprob), str(choice.is_greedy)]] for choice in choices]
    assert choices[int(line["target"])].text in record.targets
    assert line["choice_accuracy"] == record.metrics["choice_accuracy"]


def test_an_export_is_imported_with_the_same_scores_and_the_same_bytes_again(run, ranked, icl_eval_command, tmp_path):
    for name, task in {"run": "qa", "ranked": "commonsense"}.items():
        icl_eval_command("export", name, "format=lm_eval")
        before = read_bytes(tmp_path / name)
        icl_eval_command("export", name, "format=lm_eval")
        assert read_bytes(tmp_path / name) == before
        assert icl_eval_command("import", f"{name}/lm_eval", f"output={name}-again").exit_code == 0
        ours, theirs = (read_run(tmp_path / each).report.results[task].metrics for each in (name, f"{name}-again"))
        for metric, score in ours.items():
            assert theirs[f"{metric},none"].score == pytest.approx(score.score, rel=1e-12)
            if theirs[f"{metric},none"].stored:
                assert theirs[f"{metric},none"].stderr == score.stderr
        assert [each.ci95 for each in ours.values() if each.score == 0][:1] in ([], [share_interval(0.0, 4)])


@pytest.mark.parametrize(
    ("ids", "numbers"),
    [
        (("7", "0", "12"), [7, 0, 12]),
        (("1", "a", "b"), [0, 1, 2]),
        (("1", "01", "\u0661"), [0, 1, 2]),
        (("9" * 5000,), [0]),
    ],
)
def test_no_two_documents_have_the_same_number(ids, numbers, tmp_path):
    own = write_run(tmp_path / "own", *(record(0, "0", 1.0, example_id=each) for each in ids))
    lines = list_samples(own, "qa", own.records("qa"))
    assert [line["doc_id"] for line in lines] == numbers
    assert [line["example_id"] for line in lines] == list(ids)


def test_intervals_of_groups_are_kept(tmp_path):
    own = write_run(tmp_path / "own", record(0, "0", 1.0), record(1, "0", 0.0))
    score = MetricResult(0.5, 0.125, (0.25, 0.75), "acc,none|group:both|tasks:1", True, method="wilson")
    groups = {"both": GroupResult(("qa",), 2, {"acc,none": score})}
    [path, _] = write_results(replace(own, report=replace(own.report, groups=groups)), tmp_path, None)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["groups"]["both"]["acc_stderr,none"] == 0.125
    assert content["icl_eval"]["scores"]["both"] == {"acc,none": {"ci95": [0.25, 0.75], "signature": score.signature}}


def test_a_log_of_every_eval_ever_says_how_sure_a_score_is(run, icl_eval_command):
    outcome = icl_eval_command("export", "run", "format=every_eval_ever", *PUBLISHER)
    assert outcome.exit_code == 0
    assert outcome.err == "WARNING: run: no rows for chrf, which do not say whether an answer is right\n"
    report, (path, rows_path) = read_run(run).report, (run.parent / line for line in outcome.out.splitlines())
    log, rows = json.loads(path.read_text(encoding="utf-8")), read_lines(rows_path)
    scores = report.results["qa"].metrics
    exact, chrf = log["evaluation_results"]
    assert scores["exact_match"].stderr is None  # 0 of 4
    low, high = scores["exact_match"].ci95
    assert exact["score_details"] == {
        "score": scores["exact_match"].score,
        "uncertainty": {
            "num_samples": 4,
            "confidence_interval": {"lower": low, "upper": high, "confidence_level": 0.95, "method": "wilson"},
        },
    }
    uncertainty = chrf["score_details"]["uncertainty"]
    assert uncertainty["confidence_interval"]["method"] == "bootstrap percentile"
    assert uncertainty["standard_error"] == {"value": scores["chrf"].stderr, "method": "bootstrap"}
    assert uncertainty["num_bootstrap_samples"] == 1000
    assert [exact["metric_config"][key] for key in ("metric_unit", "min_score", "max_score")] == [
        "proportion",
        0.0,
        1.0,
    ]
    assert exact["generation_config"]["additional_details"]["num_fewshot"] == "0"
    assert log["model_info"]["id"] == "org/tiny"
    assert log["source_metadata"]["source_organization_name"] == "Us"
    assert log["detailed_evaluation_results"]["file_path"] == str(rows_path.relative_to(run / "every_eval_ever"))
    assert log["detailed_evaluation_results"]["total_rows"] == len(rows) == 4
    record = read_run(run).records("qa")[0]
    assert rows[0]["evaluation_result_id"] == exact["evaluation_result_id"]
    assert rows[0]["evaluation"] == {"score": record.metrics["exact_match"], "is_correct": False}
    assert (rows[0]["input"]["formatted"], rows[0]["output"]["raw"]) == (record.decoder, [record.completion])


def test_a_variant_of_exact_match_says_whether_an_answer_is_right_and_an_average_over_samples_does_not():
    for name, samples, says_right in (("strict", "", True), ("mean_of_samples", "|samples:mean_of_samples", None)):
        result = MetricResult(0.5, 0.1, (0.25, 0.75), f"exact_match_{name}{samples}", True, method="wilson")
        known = find_metric_range(f"exact_match_{name}", result, 8)
        assert (known and known.says_right) is says_right


def test_a_row_of_every_eval_ever_is_right_if_its_score_is_the_best(tmp_path):
    records = [record(number, "x", score, likelihood=SECOND.likelihood) for number, score in enumerate((0.0, 0.5, 1.0))]
    run = write_run(tmp_path / "run", *records)
    rows = list_rows(run)
    assert [row["evaluation"]["is_correct"] for row in rows] == [False, False, True]
    assert [row["output"]["raw"] for row in rows] == [[" x"]] * 3  # and not the most probable choice
    lower = {each["metric_config"]["metric_id"]: each["metric_config"]["lower_is_better"] for each in list_results(run)}
    assert lower == {"exact_match": False, "hub": True}
    share = MetricResult(0.5, 0.25, share_interval(0.5, 4), "judge", True, stored=True)
    assert find_metric_range("judge", share, 4).says_right
    assert find_metric_range("judge", replace(share, ci95=(0.1, 0.9)), 4) is None  # a mean of anything


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("every_eval_ever") is None, reason="needs the every_eval_ever command")
def test_every_eval_ever_finds_no_mistake_in_our_logs(run, ranked, icl_eval_command):
    icl_eval_command("export", "run", "ranked", "format=every_eval_ever", *PUBLISHER)
    for folder in (run, ranked):
        root = folder / "every_eval_ever"
        files = [str(path.relative_to(root)) for path in root.rglob("*.json*")]
        checked = subprocess.run(["every_eval_ever", "validate", *files], cwd=root, capture_output=True, text=True)
        assert (len(files), checked.returncode) == (2, 0), checked.stdout


@pytest.fixture
def sweep(icl_eval_command, gpt2, tmp_path):
    """Return the folder of a sweep with two cells."""
    options = ("task=qa", "limit=3", "max_new_tokens=4", "hydra.sweep.dir=sweep")
    assert icl_eval_command(f"model.source={gpt2}", *options, "-m", "num_fewshot=0,1").exit_code == 0
    return tmp_path / "sweep"


@pytest.mark.slow
def test_the_cells_of_a_sweep_are_a_group_of_wandb(sweep, icl_eval_command, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    outcome = icl_eval_command("export", "sweep", "format=wandb")
    assert outcome.exit_code == 0, outcome.err
    folders = [sweep.parent / line for line in outcome.out.splitlines()]
    assert [len(list(folder.glob("run-*.wandb"))) for folder in folders] == [1, 1]
    cells = [read_run(path.parent) for path in sorted(sweep.glob("*/report.json"))]
    assert {folder.name.rpartition("-")[2] for folder in folders} == {cell.report.run.fingerprint for cell in cells}
    [table] = folders[0].rglob("*.table.json")
    content = json.loads(table.read_text(encoding="utf-8"))
    assert content["columns"][:3] == ["example_id", "question", "references"]
    assert len(content["data"]) == 3


@pytest.mark.slow
def test_the_cells_of_a_sweep_are_runs_in_a_run_of_mlflow(sweep, icl_eval_command, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    outcome = icl_eval_command("export", "sweep", "format=mlflow", "project=mine")
    assert (outcome.exit_code, outcome.out) == (0, "sweep/mlflow.db\n")
    found = mlflow.search_runs(experiment_names=["mine"])
    cells = found[found["tags.mlflow.parentRunId"].notna()].sort_values("params.num_fewshot")
    assert list(cells["params.num_fewshot"]) == ["0", "1"]
    for run_id, path in zip(cells["run_id"], sorted(sweep.glob("*/report.json")), strict=True):
        score = read_run(path.parent).report.results["qa"].metrics["token_f1"]
        metrics = mlflow.get_run(run_id).data.metrics
        assert metrics["qa/token_f1"] == score.score
        assert metrics["qa/token_f1/ci95_high"] == score.ci95[1]
        assert len(mlflow.load_table("qa_records.json", run_ids=[run_id])) == 3


MISTAKES = {
    ("format=csv",): "format=csv: must be one of paper, lm_eval, every_eval_ever, wandb, mlflow",
    ("model_id=a/b",): "model_id=a/b: has no effect with format=paper",
    ("format=lm_eval", "project=a"): "project=a: has no effect with format=lm_eval",
    ("format=wandb", "organization=a"): "organization=a: has no effect with format=wandb",
    (
        "format=every_eval_ever",
        "model_id=a/b",
        "organization=c",
    ): "relationship: format=every_eval_ever needs it, and a run does not say it (relationship=…)",
    ("format=every_eval_ever", "model_id=b", *PUBLISHER[1:]): "model_id=b: must be ORGANIZATION/MODEL, as on the hub",
    (
        "format=every_eval_ever",
        *PUBLISHER[:2],
        "relationship=friend",
    ): "relationship=friend: must be one of first_party, third_party, collaborative, other",
    ("format=wandb",): "format=wandb: needs wandb; install it with pip install 'icl-eval[wandb]'",
    ("format=mlflow",): "format=mlflow: needs mlflow; install it with pip install 'icl-eval[mlflow]'",
}


@pytest.mark.slow
def test_a_mistake_in_an_export_is_one_line(run, icl_eval_command, monkeypatch):
    monkeypatch.setattr("icl_eval.harnesses.trackers.importlib.util.find_spec", lambda name: None)
    before = read_bytes(run)
    for words, sentence in MISTAKES.items():
        outcome = icl_eval_command("export", "run", *words)
        assert (outcome.exit_code, outcome.err) == (2, f"icl-eval: {sentence}\n")
    assert read_bytes(run) == before
