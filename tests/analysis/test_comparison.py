import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import scipy.stats
from sample_runs import REPORT

import icl_eval
from icl_eval.analysis.comparison import compare_runs
from icl_eval.config.setup import conf_dir
from icl_eval.errors import DataError
from icl_eval.runs.folders import Run, find_runs, read_run
from icl_eval.runs.reports import write_report

QUICK = ("task=qa", "limit=6", "max_new_tokens=4", "num_fewshot=1")
RIGHT = {"one": "110010", "other": "111101"}  # of each question, whether the run of this name has it right


@pytest.fixture
def evaluate(evaluate_tiny):
    return lambda name, *overrides: evaluate_tiny(name, *QUICK, *overrides)


PROMPTING = {f"icl_eval.{name}" for name in ("prompts", "demonstrations", "evaluation")}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("runs.records", {"jinja2", "torch"} | PROMPTING),
        ("metrics.likelihood", PROMPTING),
        ("analysis.comparison", {"hydra", "omegaconf", "icl_eval.config"} | PROMPTING),
        ("evaluation.pipeline", {"hydra", "omegaconf", "icl_eval.config", "icl_eval.reporting", "torch"}),
    ],
)
def test_a_module_does_not_load_what_it_has_no_use_for(module, unwanted):
    code = f"import sys, icl_eval.{module}; print(*{unwanted!r} & {{*sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "\n"


@pytest.fixture
def judged(evaluate):
    """Return the folders of two runs whose completions were written by hand, and scored."""
    return [judge(evaluate, name) for name in RIGHT]


def judge(evaluate, name, *overrides):
    """Evaluate, put the right answer or one with more words into the records, and score them again."""
    path = evaluate(name, *overrides) / "samples_qa.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for record, hit in zip(records, RIGHT[name], strict=True):
        record["completion"] = record["targets"][0] + ("" if hit == "1" else " or so")
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return evaluate(name, *overrides)


@pytest.mark.slow
def test_a_comparison_says_by_how_much_how_sure_and_which_questions_flipped(judged, icl_eval_command, tmp_path):
    outcome = icl_eval_command("compare", "one", "other", "num_resamples=500")

    assert (outcome.exit_code, outcome.err) == (0, "")
    found = json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))
    exact = next(one for one in found["differences"] if one["metric"] == "exact_match")
    assert (exact["baseline_score"], exact["score"], exact["difference"]) == pytest.approx((3 / 6, 5 / 6, 2 / 6))
    assert exact["better"] == ["qa-test-003", "qa-test-004", "qa-test-006"]
    assert exact["worse"] == ["qa-test-005"]
    assert (exact["test"], exact["draws"]) == ("bonett_price", 1)
    assert exact["others"]["mcnemar"] == scipy.stats.binomtest(3, 4).pvalue
    assert exact["p_value"] < exact["p_adjusted"]
    assert exact["ci95"][0] < exact["difference"] < exact["ci95"][1]
    row = next(line for line in outcome.out.splitlines() if "exact_match" in line)
    shown = [part.strip() for part in row.split("│")[1:7]]
    assert shown == ["other", "qa", "exact_match", "0.500", "0.833", "+0.333"]
    assert outcome.out.endswith("comparison: compare.json\npage: compare.html\n")


def test_bleus_that_are_smoothing_have_no_difference_to_be_sure_of(icl_eval_command, gpt2, tmp_path):
    for name, seed in (("one", 0), ("other", 1)):
        words = (f"model.source={gpt2}", *QUICK, "metrics=[bleu]", f"seed={seed}", f"hydra.run.dir={name}")
        outcome = icl_eval_command(*words)
        assert "qa: bleu is smoothing alone and has no interval" in outcome.out
    runs = [read_run(tmp_path / name) for name in ("one", "other")]
    for run in runs:
        result = run.report.results["qa"].metrics["bleu"]
        assert (result.smoothed, result.stderr, result.ci95, result.method) == (True, None, None, None)
    (found,) = compare_runs(runs, num_resamples=200).differences
    assert (found.ci95, found.test, found.p_value) == (None, None, None)


BY_LENGTH = "+task.qa.fields.cluster=question|length % 2"


def test_runs_are_scored_again_by_cluster_and_compared_by_cluster(judged, evaluate, capsys):
    plain = [read_run(folder) for folder in judged]
    (before, *_) = compare_runs(plain, num_resamples=200).differences
    runs = [read_run(evaluate(name, BY_LENGTH)) for name in RIGHT]  # the same folders: nothing is decoded again
    for run, earlier in zip(runs, plain, strict=True):
        assert run.report.run.fingerprint == earlier.report.run.fingerprint
        result = run.report.results["qa"]
        assert (result.num_clusters, earlier.report.results["qa"].num_clusters) == (2, None)
        assert result.metrics["exact_match"].score == earlier.report.results["qa"].metrics["exact_match"].score
        assert result.metrics["exact_match"].ci95 != earlier.report.results["qa"].metrics["exact_match"].ci95
        assert {record.cluster for record in run.records("qa")} == {"0", "1"}
    (after, *_) = compare_runs(runs, num_resamples=200).differences
    assert (before.test, before.num_clusters, after.test, after.num_clusters) == (
        "bonett_price",
        None,
        "bonett_price",
        2,
    )
    assert (after.difference, after.better) == (before.difference, before.better)
    assert after.ci95 != before.ci95
    (mixed, *_) = compare_runs([plain[0], runs[1]], num_resamples=200).differences
    assert (mixed.ci95, mixed.num_clusters) == (after.ci95, 2)
    evaluate("other", BY_LENGTH.replace("% 2", "% 3"))
    with pytest.raises(DataError, match=r"question 'qa-test-\d+' of task 'qa' is in cluster '\d', but in .*fields"):
        compare_runs([runs[0], read_run(judged[1])])
    assert list(icl_eval.load_records(judged[0])["cluster"]) == [each.cluster for each in runs[0].records("qa")]


@pytest.mark.slow
def test_what_reads_runs_does_not_load_torch(judged, tmp_path):
    code = """
import contextlib, sys
from icl_eval.cli.main import main
for words in (["compare", "one", "other", "num_resamples=100"], ["list", "."]):
    sys.argv[1:] = words
    with contextlib.suppress(SystemExit):
        main()
print(*{"torch", "transformers", "evaluate", "datasets", "tokenizers"} & {*sys.modules})"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "page: compare.html" in run.stdout
    assert "2 runs, 2 finished" in run.stdout
    assert run.stdout.endswith("\n\n")


def test_a_comparison_reads_the_records_of_each_run_once(judged, monkeypatch):
    read = []
    stream = Run.stream_records

    def watch(run, task, **options):
        read.append(run.folder)
        return stream(run, task, **options)

    monkeypatch.setattr(Run, "stream_records", watch)
    compare_runs([read_run(folder) for folder in judged], num_resamples=100)
    assert read == judged


@pytest.mark.parametrize(
    ("metrics", "test"),
    [
        pytest.param("chrf", "paired_bootstrap", marks=pytest.mark.slow),
        ("token_f1", "bootstrap_t"),
    ],
)
def test_the_test_is_the_one_that_the_metric_calls_for(metrics, test, evaluate):
    runs = [read_run(judge(evaluate, name, f"metrics=[{metrics}]")) for name in RIGHT]
    (found,) = compare_runs(runs, num_resamples=200).differences
    assert (found.baseline_score, found.score) == tuple(run.report.results["qa"].metrics[metrics].score for run in runs)
    assert found.test == test
    assert 0 < found.p_value <= 1


def test_a_sweep_stands_for_its_cells_and_the_first_run_named_is_the_baseline(icl_eval_command, gpt2, tmp_path):
    icl_eval_command(f"model.source={gpt2}", *QUICK[:3], "-m", "num_fewshot=0,1,2", "hydra.sweep.dir=sweep")
    cells = {
        str(cell["run"]["num_fewshot"]): cell["cell"] for cell in read_json(tmp_path / "sweep/sweep.json")["cells"]
    }

    outcome = icl_eval_command("compare", f"sweep/{cells['1']}", "sweep", "num_resamples=100", "output=found.json")

    assert (outcome.exit_code, outcome.err) == (0, "")
    found = read_json(tmp_path / "found.json")
    assert found["baseline"] == f"sweep/{cells['1']}"
    assert found["runs"] == [f"sweep/{cells['0']}", f"sweep/{cells['2']}"]


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_run_that_another_version_scored_can_be_compared(judged, icl_eval_command):
    path = judged[1] / "report.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"version:[\d.]+", "version:0.0", text), encoding="utf-8")
    assert path.read_text(encoding="utf-8") != text
    outcome = icl_eval_command("compare", "one", "other", "num_resamples=100")
    assert (outcome.exit_code, outcome.err) == (0, "")


def test_reading_a_run_runs_no_metric_from_elsewhere(evaluate, icl_eval_command, tmp_path, script):
    path = script("length", result='{"length": sum(map(len, predictions))}')
    hub = ["metrics=[exact_match,hub]", f"metrics.hub.name={path}", "metrics.hub.trust_remote_code=true"]
    for name, tokens in (("short", 2), ("long", 4)):
        evaluate(name, *hub, f"max_new_tokens={tokens}")
    Path(path).unlink()

    outcome = icl_eval_command("compare", "short", "long", "num_resamples=100")

    assert (outcome.exit_code, outcome.err) == (0, "")
    exact, length = read_json(tmp_path / "compare.json")["differences"]
    scores = [read_json(tmp_path / run / "report.json")["results"]["qa"]["metrics"] for run in ("short", "long")]
    assert exact["metric"] == "exact_match"
    assert [length["baseline_score"], length["score"]] == [found["hub/length"]["score"] for found in scores]
    assert (length["ci95"], length["p_value"], length["better"]) == (None, None, [])


REFUSED = {
    "limit=5": "other: the questions of task 'qa' differ from those in one: "
    "5 and 6 questions, and 'qa-test-006' is in only one of the runs\n",
    "task=math": "one: has no task in common with the other runs, so nothing can be compared\n",
    "task.qa.metrics.exact_match.ignore_case=false": "other: the options of exact_match of task 'qa' differ from those "
    "in one: ",
    "task.qa.test.path=rows.jsonl": "other: the pool or the examples of task 'qa' differ from one",
    "task.qa.fields.references=\"'7'\"": "other: question 'qa-test-001' of task 'qa' differs from the one in one: "
    "references: ['7'] and ['diamond', 'a diamond', 'the diamond', 'diamonds']\n",
    'task.qa.fields.question="question[:5]"': "other: question 'qa-test-001' of task 'qa' differs from the one in one: "
    "question: 'Which' and 'Which precious stone is a form of pure carbon?'\n",
    "+task.qa.fields.hint=\"'none'\"": "other: question 'qa-test-001' of task 'qa' differs from the one in one: "
    "hint: 'none' and none\n",
}


@pytest.mark.slow
def test_runs_that_cannot_be_compared_are_refused_in_one_line(evaluate, icl_eval_command, tmp_path):
    rows = (conf_dir().parent / "data" / "qa" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "rows.jsonl").write_text("\n".join(rows[:6]), encoding="utf-8")
    evaluate("one")
    for override, sentence in REFUSED.items():
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        evaluate("other", override)
        outcome = icl_eval_command("compare", "one", "other", "num_resamples=100")
        assert outcome.exit_code == 2
        assert outcome.err.startswith(f"icl-eval: {sentence}")
        assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "compare: two or more runs are needed, found 0 (icl-eval compare RUN_A RUN_B)"),
        (
            ["./one", "other", "other/../one"],
            "compare: one and other/../one are the same folder; give different runs",
        ),
        (["nowhere", "there/k=1"], "nowhere: no such folder"),
        (["empty"], "empty: contains no finished run (report.json is missing)"),
        ([".", "num_resample=3"], "unknown key 'num_resample'; did you mean 'num_resamples'? "),
        (["num_resamples=10"], "num_resamples=10: must be 100 or more"),
        (["one", "other", "output=c.html"], "output=c.html: must end in .json (the page is written next to it, "),
        (["one", "other", "output=none/c.json"], "output=none/c.json: folder none does not exist"),
        (
            ["one", "other", "output=there.json"],
            "output=there.json: there.json exists and is not a comparison; choose ",
        ),
        (["one", "other", "output=page.json"], "output=page.json: page.html exists and is not a comparison; choose "),
        (
            ["one", "other", "output=one/report.json"],
            "output=one/report.json: one/report.json exists and is not a comparison",
        ),
        (["-m", "."], "-m: only evaluations can be swept"),
    ],
)
def test_a_mistake_in_a_comparison_is_one_line(words, sentence, icl_eval_command, tmp_path, monkeypatch):
    monkeypatch.setattr("icl_eval.commands.compare.compare_runs", None)  # nothing is computed before
    for name in ("one", "other", "there.json", "page.html"):
        (tmp_path / name).mkdir()
        write_report(REPORT, tmp_path / name / "report.json")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    outcome = icl_eval_command("compare", *words)
    assert outcome.exit_code == 2
    assert outcome.err.startswith(f"icl-eval: {sentence}")
    assert outcome.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_records_that_are_not_those_of_the_report_are_refused(evaluate):
    folder = evaluate("one")
    path = folder / "samples_qa.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    records[0]["prediction"] = records[0]["targets"][0]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    with pytest.raises(DataError) as refused:
        compare_runs([read_run(folder), read_run(folder)])
    assert str(refused.value).startswith(
        f"{folder}: the records of task 'qa' give exact_match=0.166667, but the report says 0"
    )


def test_runs_are_found_again_as_a_frame_with_a_row_a_score(evaluate, tmp_path):
    evaluate("outputs/a", "seed=0")
    evaluate("outputs/b/c", "seed=1", "template.separator='--'")

    frame = icl_eval.load_runs("outputs")

    assert list(frame["run"]) == ["outputs/a"] * 2 + ["outputs/b/c"] * 2
    assert list(frame["metric"]) == ["exact_match", "token_f1"] * 2
    assert list(frame["seed"]) == [0, 0, 1, 1]
    assert list(frame["template.separator"]) == ["\n\n", "\n\n", "--", "--"]
    assert "template.question" not in frame
    for row in frame.itertuples():
        found = read_run(tmp_path / row.run).report.results["qa"].metrics[row.metric]
        assert (row.score, row.stderr, row.ci_low, row.ci_high) == (found.score, found.stderr, *found.ci95)
    assert len(find_runs(tmp_path)) == 2


def test_records_are_found_again_as_a_frame_with_a_row_a_question(evaluate):
    evaluate("outputs/a")
    frame = icl_eval.load_records()
    assert list(frame["example_id"]) == [f"qa-test-00{number}" for number in range(1, 7)]
    assert frame["metrics.token_f1"].mean() == icl_eval.load_runs().set_index("metric")["score"]["token_f1"]


@pytest.mark.slow
def test_the_list_of_runs_shows_scores_and_what_is_not_finished(evaluate, icl_eval_command):
    (finished, started) = (evaluate("outputs/k=1"), evaluate("outputs/k=2", "num_fewshot=2"))
    (started / "report.json").unlink()
    outcome = icl_eval_command("list")
    assert (outcome.exit_code, outcome.err) == (0, "")
    rows = [[part.strip() for part in line.split("│")[1:-1]] for line in outcome.out.splitlines() if "outputs/" in line]
    score = read_run(finished).report.results["qa"].metrics["exact_match"].score
    shared = ["tiny-gpt2", "qa"]
    found = ["decoder", "labelled", "exact_match", f"{score:.3f}", "finished, n=6"]
    assert rows == [
        ["outputs/k=1", *shared, "1", "0", *found],
        ["outputs/k=2", *shared, "2", "0", "", "", "", "", "unfinished, 6 records"],
    ]
    assert icl_eval_command("list", "nowhere").err == "icl-eval: nowhere: no such folder\n"


BROKEN = {
    "report.json": "{path}: not a report (the file: Invalid JSON: ",
    "error.json": "{path}: not a failure report (the file: Invalid JSON: ",
    ".hydra/config.yaml": "{folder}: not a run (ParserError: ",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_run_that_cannot_be_read_is_named_and_the_others_are_listed(name, evaluate, icl_eval_command, tmp_path):
    evaluate("outputs/a")
    shutil.copytree(tmp_path / "outputs/a", tmp_path / "outputs/c")
    path = tmp_path / "outputs/b" / name
    path.parent.mkdir(parents=True)
    (tmp_path / "outputs/b/fingerprint.json").write_text("{}")
    path.write_text('{"a":')

    outcome = icl_eval_command("list")

    assert outcome.exit_code == 0
    assert outcome.out.startswith("2 runs, 2 finished")
    assert [run for run in "abc" if f"outputs/{run} " in outcome.out] == ["a", "c"]
    sentence = BROKEN[name].format(path=path.relative_to(tmp_path), folder="outputs/b")
    assert outcome.err.startswith(f"WARNING: {sentence}")
    assert outcome.err.endswith("; left out\n")
    assert outcome.err.count("\n") == 1
    shutil.rmtree(tmp_path / "outputs/a")
    shutil.rmtree(tmp_path / "outputs/c")
    assert icl_eval_command("list").err.endswith("\nicl-eval: outputs: no run found\n")


def test_frames_leave_out_what_cannot_be_read_and_name_it(evaluate, tmp_path, capsys):
    evaluate("outputs/a")  # which leaves logging as the command line sets it
    for name in "bc":
        shutil.copytree(tmp_path / "outputs/a", tmp_path / "outputs" / name)
    (tmp_path / "outputs/b/report.json").write_text("hi")
    (tmp_path / "outputs/c/samples_qa.jsonl").write_text("hi\n")

    assert list(icl_eval.load_runs()["run"].unique()) == ["outputs/a", "outputs/c"]
    assert list(icl_eval.load_records()["run"].unique()) == ["outputs/a"]

    report, again, records = capsys.readouterr().err.splitlines()
    assert again == report
    assert report.startswith("WARNING: outputs/b/report.json: not a report (the file: Invalid JSON: ")
    assert records.startswith("WARNING: outputs/c/samples_qa.jsonl:1: not a record (")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("report.json", "report"), ("error.json", "failure report")])
def test_a_cell_that_cannot_be_read_is_named_and_the_others_are_compared(
    name, kind, evaluate, icl_eval_command, tmp_path
):
    for cell in "abc":
        evaluate(f"sweep/{cell}")
    (tmp_path / "sweep/b" / name).write_text("{}")
    outcome = icl_eval_command("compare", "sweep", "num_resamples=100")
    assert outcome.exit_code == 0
    assert outcome.err.startswith(f"WARNING: sweep/b/{name}: not a {kind} (")
    assert outcome.err.count("\n") == 1
    assert read_json(tmp_path / "sweep/compare.json")["runs"] == ["sweep/c"]
    assert icl_eval_command("compare", "sweep", "num_resamples=100").exit_code == 0  # over its own result
