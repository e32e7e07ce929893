"""A finished run is recognised, and anything that could have changed its results is noticed."""

import copy
import json
import shutil
from datetime import date
from pathlib import Path

import pytest
import tiny_models

import icl_eval
from icl_eval import errors
from icl_eval.config.setup import conf_dir
from icl_eval.evaluation import pipeline
from icl_eval.prompts import chats
from icl_eval.runs import provenance

QUICK = ("task=qa", "limit=3", "num_fewshot=1", "max_new_tokens=4")


@pytest.fixture
def prepared(monkeypatch):
    """Return a list that grows each time that the prompts of a run are written."""
    calls = []
    prepare = pipeline.prepare

    def listen(evaluation):
        calls.append(evaluation)
        return prepare(evaluation)

    monkeypatch.setattr(pipeline, "prepare", listen)
    return calls


@pytest.fixture
def run(evaluate_tiny):
    return lambda *overrides: evaluate_tiny("run", *QUICK, *overrides)


def read_files(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file()}


def test_a_finished_run_is_left_as_it_is_and_printed_again(icl_eval_command, gpt2, prepared, tmp_path):
    command = (f"model.source={gpt2}", *QUICK, "hydra.run.dir=run")
    first = icl_eval_command(*command)
    files = read_files(tmp_path / "run")

    second = icl_eval_command(*command)

    assert len(prepared) == 1
    assert read_files(tmp_path / "run") == files
    remark = "all completions are from an earlier run: nothing was decoded\n"
    assert (second.exit_code, second.err, second.out.replace(remark, "")) == (0, "", first.out)
    assert second.out.count(remark) == 1


def change_a_completion(folder):
    path = folder / "samples_qa.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["completion"] = "another"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def change_a_count(folder):
    path = folder / "report.json"
    path.write_text(path.read_text().replace('"n": 3', '"n": 4'))


CHANGES = {
    "a completion": change_a_completion,
    "a score": change_a_count,
    "a page that is missing": lambda folder: (folder / "report.html").unlink(),
    "a page that is cut off": lambda folder: (folder / "report.html").write_text("<html>"),
    "records that are missing": lambda folder: (folder / "samples_qa.jsonl").unlink(),
    "a cell that failed later": lambda folder: (folder / "error.json").write_text("{}"),
    "no mark": lambda folder: (folder / "finished.json").unlink(),
    "a damaged mark": lambda folder: (folder / "finished.json").write_text('{"origin": 1'),
}


def test_a_run_whose_files_were_changed_is_checked_and_written_again(run, prepared):
    folder = run()
    files = sorted(path.name for path in folder.iterdir())
    for number, (name, change) in enumerate(CHANGES.items(), start=2):
        change(folder)
        run()
        assert len(prepared) == number, name
        assert json.loads((folder / "report.json").read_text())["results"]["qa"]["n"] == 3
        assert sorted(path.name for path in folder.iterdir()) == files, name
    run()
    assert len(prepared) == number


def test_a_run_with_other_options_is_scored_again(run, prepared):
    run()
    for number, override in enumerate(("metrics=[chrf]", "postprocessing=first_line", "batch_size=2"), start=2):
        run(override)
        assert len(prepared) == number
    run(override)
    assert len(prepared) == number


def test_a_run_whose_questions_belong_to_other_clusters_is_scored_again(run, prepared, tmp_path):
    rows = [json.loads(line) for line in (conf_dir().parent / "data/qa/test.jsonl").read_text().splitlines()[:3]]
    asked = ("task.qa.test.path=rows.jsonl", "+task.qa.fields.cluster=group")
    counts = []
    for groups in ("aab", "abc"):
        grouped = [row | {"group": group} for row, group in zip(rows, groups, strict=True)]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in grouped))
        folder = run(*asked)
        counts.append(json.loads((folder / "report.json").read_text())["results"]["qa"]["num_clusters"])
    assert counts == [2, 3]
    assert len(prepared) == 2


@pytest.mark.parametrize("name", ["digest_code", "read_versions"])
def test_a_run_of_another_version_is_scored_again(name, run, prepared, monkeypatch):
    run()
    before = getattr(provenance, name)()
    after = f"{before} edited" if isinstance(before, str) else before | {"icl_eval": "0.0.1"}
    monkeypatch.setattr(provenance, name, lambda *also: after)
    run()
    assert len(prepared) == 2


def test_another_order_of_metrics_or_another_name_of_the_model_is_another_report(run, prepared, gpt2, tmp_path):
    for name in ("one", "other"):
        shutil.copytree(gpt2, tmp_path / name)
    (tmp_path / "experiments" / "experiment").mkdir(parents=True)
    search = ("hydra.searchpath=[file://experiments]", "experiment=two", "model.source=./link")
    seen = []
    for model, metrics in (("one", "chrf, token_f1"), ("other", "chrf, token_f1"), ("other", "token_f1, chrf")):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(model)
        (tmp_path / "experiments" / "experiment" / "two.yaml").write_text(
            f"# @package _global_\ndefaults: [{{override /metrics: [{metrics}]}}]\n"
        )
        report = json.loads((run(*search) / "report.json").read_text())
        seen.append((report["run"]["model"], list(report["results"]["qa"]["metrics"])))
    assert seen == [("one", ["chrf", "token_f1"]), ("other", ["chrf", "token_f1"]), ("other", ["token_f1", "chrf"])]


def test_another_end_token_of_a_tokenizer_in_memory_is_noticed(gpt2, prepared, tmp_path):
    loaded = icl_eval.load_model(str(gpt2))
    model = icl_eval.LanguageModel.of(copy.deepcopy(loaded.network), copy.deepcopy(loaded.tokenizer))
    asked = {"model": model, "task": "qa", "limit": 2, "num_fewshot": 1, "max_new_tokens": 2, "progress": False}
    assert [icl_eval.evaluate(**asked, folder=tmp_path / "run").was_finished for _ in range(2)] == [False, True]
    model.tokenizer.eos_token = "a"
    assert not icl_eval.evaluate(**asked, folder=tmp_path / "run").was_finished
    assert len(prepared) == 2


def test_a_finished_run_that_becomes_a_cell_gets_a_page_that_leads_to_its_sweep(run, icl_eval_command, gpt2, tmp_path):
    assert "../sweep.html" not in (run() / "report.html").read_text()
    sweep = ("-m", f"model.source={gpt2}", *QUICK, "seed=0", "hydra.sweep.dir=.", "hydra.sweep.subdir=run")
    assert icl_eval_command(*sweep).exit_code == 0
    assert "../sweep.html" in (tmp_path / "run" / "report.html").read_text()


def test_the_digest_of_the_code_is_that_of_the_contents_of_the_files(monkeypatch, tmp_path):
    shutil.copytree(Path(provenance.icl_eval.__file__).parent, tmp_path / "icl_eval")
    digest = provenance.digest_code.__wrapped__
    expected = digest()
    monkeypatch.setattr(provenance.icl_eval, "__file__", str(tmp_path / "icl_eval" / "__init__.py"))
    assert digest() == expected
    edited = tmp_path / "icl_eval/metrics/exact_match.py"
    edited.write_text(edited.read_text().replace("a", "b", 1))
    assert digest() != expected


def test_scores_of_code_from_elsewhere_are_always_computed_again(run, prepared, script):
    path = script("judge", result='{"share": 0.5}')
    asked = ("metrics=[hub]", f"metrics.hub.name={path}", "metrics.hub.trust_remote_code=true")
    run()
    folder = run(*asked)
    run(*asked)
    assert len(prepared) == 3
    assert not (folder / "finished.json").exists()


def test_a_finished_run_repeats_its_warnings(icl_eval_command, gpt2, prepared, tmp_path):
    row = {"id": "q", "question": "Who wrote it?", "references": ["Li"]}
    for name, rows in {"pool": [row | {"id": "a"}, row | {"id": "b"}], "test": [row | {"question": "Where?"}]}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    paths = [f"task.qa.{name}.path={name}.jsonl" for name in ("pool", "test")]
    command = (f"model.source={gpt2}", *QUICK, *paths, "metrics=[bleu]", "hydra.run.dir=run")
    warnings = []
    for _ in range(2):
        errors.warn_once.cache_clear()  # as in another process
        warnings.append(icl_eval_command(*command).err)
    assert "1 of 2 rows of the pool are duplicates" in warnings[0]
    assert warnings[1] == warnings[0]
    assert len(prepared) == 1


def test_a_finished_run_whose_prompts_show_the_date_is_not_that_of_another_day(
    icl_eval_command, prepared, monkeypatch, tmp_path
):
    template = "<|system|>{{ strftime_now('%d %b') }}<|eos|>" + tiny_models.CHAT_TEMPLATE
    folder = tiny_models.save_gpt2(tmp_path / "dated", chat_template=template)
    command = (f"model.source={folder}", *QUICK, "template=chat", "hydra.run.dir=run")
    exit_codes = []
    for day in ("2025-01-31", "2025-01-31", "2025-02-01"):
        monkeypatch.setattr(chats, "today", lambda day=day: date.fromisoformat(day))
        exit_codes.append(icl_eval_command(*command).exit_code)
    assert exit_codes == [0, 0, 2]
    assert len(prepared) == 2
