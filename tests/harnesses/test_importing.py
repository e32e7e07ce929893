"""Runs of lm-evaluation-harness as runs of this package: what it logged itself, read and compared here."""

import json
import re
import shutil
from dataclasses import replace

import logged_runs
import pytest
import scipy.stats
from sample_runs import FIRST, REPORT

import icl_eval
from icl_eval.analysis.comparison import compare_runs
from icl_eval.harnesses.lm_eval.documents import find_versions, split_target
from icl_eval.harnesses.lm_eval.groups import score_group
from icl_eval.harnesses.lm_eval.logged_answers import make_records
from icl_eval.harnesses.lm_eval.logged_metrics import LoggedResults, find_corpus_metrics, find_groups
from icl_eval.harnesses.lm_eval.logged_runs import LoggedDocument
from icl_eval.metrics.intervals import share_interval
from icl_eval.runs.folders import read_run
from icl_eval.runs.reports import MetricResult

STRICT, FLEXIBLE = "exact_match,strict-match", "exact_match,flexible-extract"


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """Return the folders in which the harness logged its runs of two models."""
    folder = tmp_path_factory.mktemp("lm_eval")
    return {model: logged_runs.log_run(folder, model) for model in ("first", "second")}


@pytest.fixture
def copied(logged, tmp_path):
    """Return a copy of the files of the first model."""
    return shutil.copytree(logged["first"], tmp_path / "copy")


def edit(path, change):
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def find(folder, pattern):
    [path] = folder.glob(pattern)
    return path


def test_an_import_has_the_scores_of_the_harness_with_intervals_and_can_be_repeated(logged, icl_eval_command, tmp_path):
    outcome = icl_eval_command("import", str(logged["first"]), "output=run")
    assert (outcome.exit_code, outcome.err) == (0, "")
    report = read_run(tmp_path / "run").report
    theirs = json.loads(find(logged["first"], "results_*.json").read_text(encoding="utf-8"))
    scores = {task: result.metrics for task, result in report.results.items()}
    assert (report.run.model, report.run.num_fewshot) == ("org/first", None)
    assert {task: result.num_fewshot for task, result in report.results.items()} == theirs["n-shot"]
    for task, metrics in scores.items():
        for name in metrics.keys() & theirs["results"][task].keys():
            assert metrics[name].score == pytest.approx(theirs["results"][task][name], rel=1e-12)
    assert scores["sums"][STRICT].ci95 == share_interval(4 / 6, 6)
    version = theirs["lm_eval_version"]
    assert scores["sums"][STRICT].signature == f"exact_match|filter:strict-match|task:sums@2.0|lm_eval:{version}"
    group = report.groups["arithmetic"]
    assert (group.tasks, group.n, group.metrics["acc,none"].score) == (("sums", "ranking"), 12, 0.5)
    stderr = theirs["groups"]["arithmetic"]["acc_stderr,none"]
    assert group.metrics["acc,none"].stderr == stderr
    assert group.metrics["acc,none"].ci95 == share_interval(0.5, 0.5 * 0.5 / stderr**2)
    assert (scores["ranking"]["brier_score,none"].ci95, scores["last"]["perplexity,none"].ci95) == (None, None)
    assert scores["ranking"]["choice_accuracy"].score == scores["ranking"]["acc,none"].score == 3 / 6
    assert scores["words"]["chrf"].score == pytest.approx(theirs["results"]["words"]["chrf,none"])
    assert scores["words"]["chrf"].ci95[0] < scores["words"]["chrf"].score
    before = (tmp_path / "run/report.json").read_bytes()
    assert icl_eval_command("import", str(logged["first"]), "output=run").exit_code == 0
    assert (tmp_path / "run/report.json").read_bytes() == before


def test_a_group_of_which_a_task_is_missing_has_no_score():
    groups = {"groups": {"sky": {"acc,none": 0.5}}, "group_subtasks": {"sky": ["sums", "words"]}}
    assert find_groups(LoggedResults(None, groups), {"sums": REPORT.results["qa"]}) == {}


def test_the_interval_of_a_group_is_wilsons_if_all_of_its_tasks_have_shares():
    share = MetricResult(0.5, 0.1, (0.3, 0.7), "acc", True)
    for last, method in {share: "wilson", replace(share, ci95=(0.3, 1.7)): "normal"}.items():
        results = {
            name: replace(REPORT.results["qa"], metrics={"acc,none": each})
            for name, each in (("a", share), ("b", last))
        }
        group = score_group("sky", {"acc,none": 0.5, "acc_stderr,none": 0.1}, results)
        assert (group.metrics["acc,none"].method, group.n) == (method, 6)


def test_a_corpus_score_is_computed_again_if_the_harness_compared_what_records_have():
    document = LoggedDocument(0, {}, "Paris", ((("Q:",)),), ((" Paris",),), "")
    document.values["chrf", "none"] = ["Paris", "Paris"]
    record = replace(FIRST, targets=("Paris",))
    assert find_corpus_metrics([document], [record]) == {"chrf": {"name": "chrf"}}
    assert find_corpus_metrics([document], [replace(record, prediction="paris")]) == {}


def test_a_record_has_what_was_logged_of_a_document(logged, icl_eval_command, tmp_path):
    icl_eval_command("import", str(logged["first"]), "output=run")
    run = read_run(tmp_path / "run")

    record = run.records("sums")[1]
    assert (record.example_id, record.targets, record.shots_effective) == ("1", ("7",), 1)
    assert record.doc == {"question": "What is 3 + 4?", "answer": "7", "choices": '["7", "8", "27"]'}
    assert record.decoder.endswith("Q: What is 3 + 4?\nA:")
    assert (record.completion, record.prediction) == ("The sum is 7", "The sum is 7")  # what the first filter left
    assert record.metrics == {STRICT: 0.0, FLEXIBLE: 1.0}
    assert (record.prompt_tokens, record.completion_tokens, record.finish_reason) == (None, None, "unknown")
    assert run.report.results["sums"].counts.completion_tokens is None

    record = run.records("ranking")[1]
    assert [(each.text, each.logprob, each.bytes) for each in record.likelihood.choices] == [
        ("7", -2.5, 1), ("8", -1.0, 1), ("27", -2.5, 2),
    ]  # fmt: skip
    assert (record.targets, record.completion, record.finish_reason) == (("7",), "", "undecoded")
    assert "org/first" in (tmp_path / "run/report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_imported_runs_are_compared_in_pairs_and_found_like_others(logged, icl_eval_command, tmp_path):
    outcome = icl_eval_command("import", *(str(folder) for folder in logged.values()))
    assert outcome.exit_code == 0
    folders = sorted((tmp_path / "outputs/imported").iterdir())
    assert [folder.name.partition("_20")[0] for folder in folders] == ["org__first", "org__second"]

    found = compare_runs([read_run(folder) for folder in folders], num_resamples=200)
    by_name = {(each.task, each.metric): each for each in found.differences}
    strict = by_name["sums", STRICT]
    assert (strict.baseline_score, strict.score) == (4 / 6, 3 / 6)
    assert (strict.better, strict.worse) == (("1", "3"), ("0", "2", "5"))
    assert (strict.test, strict.others["mcnemar"]) == ("bonett_price", scipy.stats.binomtest(2, 5).pvalue)
    assert by_name["words", "chrf"].test == "paired_bootstrap"
    assert by_name["last", "perplexity,none"].p_value is None
    assert found.left_out == ()

    frame = icl_eval.load_runs()
    assert list(frame.loc[frame["metric"] == STRICT, "score"]) == [4 / 6, 3 / 6]
    assert set(icl_eval.load_records()["completion"]) >= {"The sum is 7", "I say 12"}
    assert icl_eval_command("export", *map(str, folders)).exit_code == 0


@pytest.mark.parametrize(
    ("signature", "versions"),
    [
        ("acc|filter:none|task:arc@1.0|lm_eval:0.4.13", ("1.0", "0.4.13")),
        ("exact_match|case:ignored|version:0.1.0", None),
    ],
)
def test_a_signature_of_the_harness_says_its_versions(signature, versions):
    assert find_versions(signature) == versions


@pytest.mark.slow
def test_an_import_is_compared_with_a_run_of_the_same_task_here(logged, icl_eval_command, gpt2, tmp_path):
    folder = logged["first"].parent
    icl_eval_command("import", str(logged["first"]), "output=theirs")
    tasks = ("task=lm_eval", "task.lm_eval.name=[sums,ranking]", f"task.lm_eval.include_path={folder}")
    outcome = icl_eval_command(f"model.source={gpt2}", *tasks, "hydra.run.dir=ours", "device=cpu")
    assert outcome.exit_code == 0, outcome.err
    found = compare_runs([read_run(tmp_path / name) for name in ("theirs", "ours")], num_resamples=200)
    strict = next(each for each in found.differences if each.metric == STRICT)
    assert (strict.test, strict.baseline_score, strict.n) == ("bonett_price", 4 / 6, 6)
    assert {each.metric for each in found.differences} >= {FLEXIBLE, "acc,none", "choice_accuracy", "reference_rank"}


def test_without_a_results_file_options_say_what_it_would_and_other_metrics_are_left_out(
    copied, icl_eval_command, tmp_path
):
    find(copied, "results_*.json").unlink()
    sums, ranking = find(copied, "samples_sums_*"), find(copied, "samples_ranking_*")

    refused = icl_eval_command("import", str(sums))
    assert (refused.exit_code, refused.err) == (
        2, f"icl-eval: model_name: {sums} does not say which model answered; add model_name=…\n",
    )  # fmt: skip
    refused = icl_eval_command("import", str(sums), "model_name=org/mine")
    assert refused.err == (
        f"icl-eval: num_fewshot: {sums} does not say how many demonstrations the prompts of task 'sums' show; add "
        "num_fewshot=…\n"
    )
    options = ("model_name=org/mine", "num_fewshot=0", "output=run")
    outcome = icl_eval_command("import", str(ranking), *options)
    assert outcome.err == (
        "WARNING: ranking: brier_score,none is left out; only the results file of the run says what its score is\n"
    )
    report = read_run(tmp_path / "run").report
    assert (report.run.model, report.results["ranking"].metrics["acc,none"].score) == ("org/mine", 0.5)
    assert report.results["ranking"].metrics["acc,none"].signature == (
        "acc|filter:none|task:ranking@unknown|lm_eval:unknown"
    )
    refused = icl_eval_command("import", str(ranking), "model_name=org/mine", "num_fewshot=1", "output=run")
    assert refused.err.endswith(
        "\nicl-eval: run contains a run with other options (task.ranking.num_fewshot: 0 there, 1 now); choose another "
        "folder with output=… or delete this one\n"
    )


def test_the_seed_is_that_of_the_bootstrap(logged, icl_eval_command, tmp_path):
    results = str(find(logged["first"], "results_*.json"))
    for seed in (0, 1):
        assert icl_eval_command("import", results, f"output={seed}", f"seed={seed}").exit_code == 0
    errors = [read_run(tmp_path / name).report.results["words"].metrics["chrf"].stderr for name in "01"]
    assert errors[0] != errors[1]


def drop_lines(number):
    return lambda text: "".join(text.splitlines(keepends=True)[:number])


def with_results(**changes):
    return lambda text: json.dumps({**json.loads(text), **changes})


DAMAGED = {
    "a line cut short": ("samples_sums_*", lambda text: text[:-9], "{path}:12: not whole JSON ("),
    "documents missing": (
        "samples_words_*", drop_lines(4),
        "{results}: says that task 'words' has 6 documents, but its samples file has 4\n",
    ),
    "a filter missing": (
        "samples_sums_*", drop_lines(9),
        "{path}: document 3 has no line for filter 'flexible-extract', as others have\n",
    ),
    "a line twice": (
        "samples_words_*", lambda text: text + text, "{path}:7: a second line of document 0 for filter 'none'\n",
    ),
    "a key missing": (
        "samples_sums_*", lambda text: text.replace('"filtered_resps"', '"filtered"', 1),
        "{path}:1: not a line of an lm-eval samples file (filtered_resps: ",
    ),
    "a value missing": (
        "samples_sums_*", lambda text: text.replace('"exact_match": 0.0', '"em": 0.0', 1),
        "{path}:2: has no value of exact_match, which its 'metrics' name\n",
    ),
    "another value": (
        "samples_sums_*", lambda text: text.replace('"exact_match": 0.0', '"exact_match": 1.0', 1),
        "{results}: says that exact_match,strict-match of task 'sums' is 0.666667, but the mean of the values in its "
        "samples file is 0.833333; the files do not belong together\n",
    ),
    "half a character": (
        "samples_sums_*", lambda text: text.replace("The sum", "\\ud800", 1),
        "{path}:2: contains a lone surrogate ('\\ud800')\n",
    ),
    "brackets without end": ("samples_sums_*", lambda text: "[" * 100_000, "{path}:1: not whole JSON ("),
    "nothing": ("samples_sums_*", lambda text: "", "{path}: has no line\n"),
    "results of something else": (
        "results_*", lambda text: '{"results": {}}',
        "{results}: not a results file of lm-eval ('configs' is missing or not an object)\n",
    ),
    "a date after all": (
        "results_*", with_results(date=1e30),
        "{results}: date is 1e+30, but must be a number from 0 to 100,000,000,000\n",
    ),
    "seconds in words": (
        "results_*", with_results(total_evaluation_time_seconds="ten"),
        "{results}: total_evaluation_time_seconds is 'ten', but must be a number from 0 to ",
    ),
    "shots in words": (
        "results_*", with_results(**{"n-shot": {"last": "one"}}),
        "{results}: n-shot.last is 'one', but must be a number from 0 to 1,000,000\n",
    ),
    "groups in a list": ("results_*", with_results(groups=[1]), "{results}: groups is not an object of objects\n"),
    "a group in itself": (
        "results_*", with_results(groups={"a": {"acc,none": 1.0}}, group_subtasks={"a": ["b"], "b": ["a"]}),
        "{results}: group 'a' is in itself (group_subtasks)\n",
    ),
    "a request of nothing": (
        "samples_sums_*", lambda text: re.sub(r'"gen_args_0": \{.*?\}\}', '"gen_args_0": {}', text, count=1),
        "{path}:1: arguments.gen_args_0 is empty\n",
    ),
    "results cut short": ("results_*", lambda text: text[:-9], "{results}: not whole JSON ("),
    "one of our records": (
        "samples_sums_*", lambda text: '{"example_id": "a"}\n',
        "{path}:1: a record of icl_eval, which needs no import\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", DAMAGED)
def test_a_damaged_file_is_one_line_that_says_where_and_nothing_is_written(mistake, copied, icl_eval_command, tmp_path):
    pattern, change, sentence = DAMAGED[mistake]
    path = find(copied, pattern)
    edit(path, change)
    outcome = icl_eval_command("import", "copy")
    names = {"path": path.relative_to(tmp_path), "results": find(copied, "results_*").relative_to(tmp_path)}
    assert outcome.exit_code == 2
    assert outcome.err.startswith(f"icl-eval: {sentence.format(**names)}")
    assert outcome.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


@pytest.mark.slow
def test_what_is_no_run_or_several_is_refused_by_name(logged, icl_eval_command, tmp_path):
    folder = logged["first"].parent
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    results = find(logged["first"], "results_*.json")
    mistakes = {
        (): "import: needs a samples file, a results file or a folder of lm-eval (icl-eval import PATH)",
        ("nowhere",): "nowhere: no such file or folder",
        ("empty",): "empty: no samples_TASK_DATE.jsonl in it, as lm-eval writes them with --log_samples",
        (
            "notes.txt",
        ): "notes.txt: must be a folder, or a samples_TASK_DATE.jsonl or results_DATE.json, as lm-eval names",
        (str(folder), "output=one"): "output=one: the folder of one run, but there are 2 (org__first 20",
        (str(results), "num_fewshot=4"): f"num_fewshot=4: {results} says 0 for task 'last'",
        (str(results), "num_fewshot=-1"): "num_fewshot=-1: must be 0 or more",
        (str(results), "seed=-1"): "seed=-1: must be 0 or more",
        (str(results), "output="): "output=: must be the name of a folder",
        (str(results), "modelname=a"): "unknown key 'modelname'; did you mean 'model_name'?",
    }
    for words, sentence in mistakes.items():
        outcome = icl_eval_command("import", *words)
        assert outcome.exit_code == 2
        assert outcome.err.startswith(f"icl-eval: {sentence}")
        assert outcome.err.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


def test_a_group_whose_score_has_an_end_of_its_range_and_an_error_has_an_interval():
    task = replace(REPORT.results["qa"], n=8, metrics={"acc,none": MetricResult(1.0, None, (0.5, 1.0), "acc", True)})
    group = score_group("both", {"acc,none": 1.0, "acc_stderr,none": 0.1, "f1,none": "N/A"}, {"qa": task})
    assert {name: score.ci95 for name, score in group.metrics.items()} == {"acc,none": share_interval(1.0, 8)}


@pytest.mark.parametrize(
    ("target", "right"),
    [
        ("red, white", ("red, white",)),
        (f"['red', '{'9' * 5000}']", ("red",)),
        ("0", ("red, white",)),
        ("[0, 2]", ("red, white", "red")),
        ("red, blue", ("red",)),
    ],
)
def test_a_right_choice_may_have_a_comma(target, right):
    requests = tuple(("Which?", f" {choice}") for choice in ("red, white", "blue, grey", "red"))
    responses = tuple([[f"-{number}.0", "False"]] for number in (1, 2, 3))
    [record] = make_records([LoggedDocument(0, {}, target, requests, responses, "hash", {"none": [""]})], 0)
    assert record.targets == right
    assert [each.text for each in record.likelihood.choices] == ["red, white", "blue, grey", "red"]


@pytest.mark.parametrize(
    ("target", "targets"),
    [
        ("Paris", ("Paris",)),
        ("['Paris', \"l'or\"]", ("Paris", "l'or")),
        ("[1, 2]", ("[1, 2]",)),
        ("[]", ("[]",)),
        ("['a", ("['a",)),
        ("[" * 10_000, ("[" * 10_000,)),
    ],
)
def test_a_list_of_targets_is_read_as_python_writes_it(target, targets):
    assert split_target(target) == targets
