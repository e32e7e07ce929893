import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from icl_eval.cli import main as cli
from icl_eval.errors import ConfigError
from icl_eval.reporting.terminal import print_sweep
from icl_eval.runs.cells import Cell
from icl_eval.runs.folders import locking
from icl_eval.runs.records import RecordLog

QUICK = ("task=qa", "limit=3", "max_new_tokens=4")


@pytest.fixture
def sweep(icl_eval_command, gpt2):
    """Sweep with the tiny decoder-only model into the folder `sweep`."""
    return lambda *arguments: icl_eval_command(
        f"model.source={gpt2}", *QUICK, "-m", *arguments, "hydra.sweep.dir=sweep"
    )


def read_sweep(tmp_path):
    content = json.loads((tmp_path / "sweep" / "sweep.json").read_text(encoding="utf-8"))
    assert list(content) == ["schema_version", "cells", "analysis"]
    return content


def read_cells(tmp_path):
    return read_sweep(tmp_path)["cells"]


def shots(cell):
    return next(override for override in cell["overrides"] if override.startswith("num_fewshot="))


@pytest.mark.slow
def test_a_sweep_leaves_a_folder_for_each_cell_and_one_table_of_what_single_runs_find(
    sweep, icl_eval_command, gpt2, tmp_path
):
    outcome = sweep("num_fewshot=0,1,2")

    assert outcome.exit_code == 0
    cells = read_cells(tmp_path)
    assert [shots(cell) for cell in cells] == ["num_fewshot=0", "num_fewshot=1", "num_fewshot=2"]
    for number, cell in enumerate(cells):
        assert list(cell) == ["cell", "overrides", "run", "results"]
        single = f"single{number}"
        icl_eval_command(f"model.source={gpt2}", *QUICK, f"num_fewshot={number}", f"hydra.run.dir={single}")
        for folder in (tmp_path / single, tmp_path / "sweep" / cell["cell"]):
            report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
            assert (report["run"], report["results"]) == (cell["run"], cell["results"])
        samples = [path / "samples_qa.jsonl" for path in (tmp_path / single, tmp_path / "sweep" / cell["cell"])]
        assert samples[0].read_bytes() == samples[1].read_bytes()
    assert len({cell["results"]["qa"]["counts"]["prompt_tokens"] for cell in cells}) == 3
    pages = [tmp_path / "sweep" / "sweep.html", *(tmp_path / "sweep" / cell["cell"] / "report.html" for cell in cells)]
    assert all(page.is_file() for page in pages)
    assert "page: sweep/sweep.html\n" in outcome.out


def test_the_table_of_a_sweep_names_each_cell_by_what_sets_it_apart(sweep):
    lines = sweep("num_fewshot=0,1").out.splitlines()
    table = lines[lines.index(next(line for line in lines if line.startswith("2 cells"))) :]
    assert [line.split("│")[1].strip() for line in table if line.startswith("│")] == ["num_fewshot=0", "num_fewshot=1"]


@pytest.mark.slow
def test_a_sweep_loads_a_model_once(sweep, gpt2, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    shutil.copytree(gpt2, tmp_path / "fresh")  # no earlier test has loaded it
    loaded = []
    load = AutoModelForCausalLM.from_pretrained

    def listen(folder, **options):
        loaded.append(folder.name)
        return load(folder, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", listen)
    assert sweep("model.source=./fresh", "num_fewshot=0,1,2").exit_code == 0
    assert loaded == ["fresh"]


@pytest.mark.slow
def test_a_cell_that_fails_is_reported_and_the_others_finish(sweep, tmp_path):
    outcome = sweep("num_fewshot=0,41,1")

    sentence = (
        "num_fewshot=41: task 'qa' has only 40 demonstrations for question 'qa-test-001' "
        "(demonstrations=random, a pool of 40)"
    )
    cells = {shots(cell): cell for cell in read_cells(tmp_path)}
    failed = cells["num_fewshot=41"]
    assert outcome.exit_code == 2
    assert f"\nicl-eval: {failed['cell']} failed: {sentence}\n" in outcome.err
    assert outcome.err.endswith("\nicl-eval: 1 of 3 cells failed\n")
    assert "Traceback" not in outcome.err
    assert list(cells) == ["num_fewshot=0", "num_fewshot=1", "num_fewshot=41"]
    assert failed["error"] == {"error": "ConfigError", "message": sentence, "exit_code": 2}
    assert [cells[name]["results"]["qa"]["n"] for name in ("num_fewshot=0", "num_fewshot=1")] == [3, 3]


@pytest.mark.slow
def test_a_cell_that_breaks_down_shows_where_and_the_next_sweep_gives_it_another_chance(sweep, tmp_path, monkeypatch):
    from icl_eval.decoding.engines import in_process

    attempts = iter([RuntimeError("out of luck"), None])
    load = in_process.load_model

    def fail_at_first(*arguments):
        if error := next(attempts, None):
            raise error
        return load(*arguments)

    monkeypatch.setattr(in_process, "load_model", fail_at_first)
    outcome = sweep("num_fewshot=0,1")

    broken, whole = read_cells(tmp_path)
    assert outcome.exit_code == 1
    assert "in fail_at_first" in outcome.err
    assert broken["error"] == {"error": "RuntimeError", "message": "RuntimeError: out of luck", "exit_code": 1}
    assert whole["results"]["qa"]["n"] == 3

    assert sweep("num_fewshot=0,1").exit_code == 0
    assert [cell["results"]["qa"]["n"] for cell in read_cells(tmp_path)] == [3, 3]


@pytest.mark.slow
def test_a_failed_cell_of_another_sweep_in_the_same_folder_does_not_count(sweep, tmp_path):
    assert sweep("num_fewshot=0,41").exit_code == 2

    outcome = sweep("num_fewshot=0,1")

    assert (outcome.exit_code, "failed" in outcome.err) == (0, False)
    assert [shots(cell) for cell in read_cells(tmp_path)] == ["num_fewshot=0", "num_fewshot=1"]


@pytest.mark.slow
def test_a_sweep_run_again_computes_only_what_is_missing(sweep, decoded, tmp_path):
    assert sweep("num_fewshot=0,1,2").exit_code == 0
    before = read_cells(tmp_path)
    assert decoded == ["qa-test-001", "qa-test-002", "qa-test-003"] * 3
    _, lost, torn = [tmp_path / "sweep" / cell["cell"] for cell in before]
    shutil.rmtree(lost)
    os.truncate(torn / "samples_qa.jsonl", (torn / "samples_qa.jsonl").stat().st_size - 10)
    decoded.clear()

    assert sweep("num_fewshot=0,1,2").exit_code == 0

    assert decoded == ["qa-test-001", "qa-test-002", "qa-test-003", "qa-test-003"]
    assert read_cells(tmp_path) == before


@pytest.mark.slow
def test_a_sweep_over_seeds_is_analysed_from_its_cells_records(sweep, tmp_path):
    outcome = sweep("seed=0,1", "num_fewshot=1,2")

    analysis = read_sweep(tmp_path)["analysis"]
    assert list(analysis) == [
        "shot_curves",
        "variance",
        "notes",
        "influence",
        "leave_one_out",
        "draws",
        "prompts",
        "order_probing",
    ]
    found = {
        (cell["run"]["num_fewshot"], cell["run"]["seed"]): cell["results"]["qa"]["metrics"]["token_f1"]["score"]
        for cell in read_cells(tmp_path)
    }
    curve = next(curve for curve in analysis["shot_curves"] if curve["metric"] == "token_f1")
    scores = {point["num_fewshot"]: list(point["scores"].values()) for point in curve["points"]}
    assert scores == {k: [found[k, 0], found[k, 1]] for k in (1, 2)}
    by_seed = [one for one in analysis["variance"] if one["metric"] == "token_f1"]
    assert [one["conditions"] for one in by_seed] == [{"num_fewshot": "1"}, {"num_fewshot": "2"}]
    over_draws = [each for each in analysis["draws"] if each["metric"] == "token_f1"]
    assert [each["conditions"] for each in over_draws] == [{"num_fewshot": "1"}, {"num_fewshot": "2"}]
    assert [list(each["scores"].values()) for each in over_draws] == list(scores.values())
    assert "shot curves" in outcome.out
    assert "scores over draws" in outcome.out
    assert "scores of one draw of demonstrations" in outcome.out
    assert "Scores over draws of demonstrations" in (tmp_path / "sweep" / "sweep.html").read_text(encoding="utf-8")


def test_without_demonstrations_one_cell_is_decoded_and_the_others_take_over_its_records(sweep, decoded, tmp_path):
    outcome = sweep("num_fewshot=0", "demonstrations.seed=0,1,2")

    assert outcome.exit_code == 0
    assert decoded == ["qa-test-001", "qa-test-002", "qa-test-003"]
    cells = read_cells(tmp_path)
    records = {(tmp_path / "sweep" / cell["cell"] / "samples_qa.jsonl").read_bytes() for cell in cells}
    assert (len(cells), len(records)) == (3, 1)
    assert "all completions are from an earlier run: nothing was decoded" in outcome.out
    assert sweep("num_fewshot=0", "demonstrations.seed=0", "max_new_tokens=5").exit_code == 0
    assert len(decoded) == 6  # another limit makes other completions


@pytest.mark.slow
def test_another_sweep_in_the_same_folder_need_not_set_the_same_options(sweep, tmp_path):
    assert sweep("seed=0,1", "num_fewshot=1").exit_code == 0

    outcome = sweep("num_fewshot=1")

    assert (outcome.exit_code, "icl-eval:" in outcome.err) == (0, False)
    content = read_sweep(tmp_path)
    assert len(content["cells"]) == 3
    assert content["analysis"]["notes"] == ["variance, qa: 1 of 3 cells left out because they do not set seed"]
    assert [found["factors"] for found in content["analysis"]["variance"]] == [{"seed": ["0", "1"]}] * 2
    assert content["analysis"]["notes"][0] in outcome.out


def own_words(outcome):
    """Return what stands on stderr behind Hydra's list of jobs."""
    return [line for line in outcome.err.splitlines() if not re.match(r"Launching|\t#", line)]


def test_an_analysis_that_breaks_down_is_one_line_and_keeps_the_cells(sweep, tmp_path, monkeypatch):
    def break_down(cells):
        raise KeyError("no such\nfactor")

    monkeypatch.setattr("icl_eval.analysis.sweeps.variance_analyses", break_down)
    outcome = sweep("num_fewshot=0,1")

    assert outcome.exit_code == 1
    content = read_sweep(tmp_path)
    assert [cell["results"]["qa"]["n"] for cell in content["cells"]] == [3, 3]
    [note] = content["analysis"]["notes"]
    assert note.startswith("no analysis: KeyError: 'no such\\nfactor' (test_sweeps.py:")
    assert own_words(outcome) == [f"icl-eval: {note}"]
    assert (tmp_path / "sweep" / "sweep.html").is_file()


def test_a_sweep_that_cannot_be_summed_up_does_not_end_as_if_it_were(sweep, tmp_path, monkeypatch):
    def break_down(folder):
        raise RuntimeError("no room")

    monkeypatch.setattr("icl_eval.reporting.pages.sweep_page.write_sweep_page", break_down)
    outcome = sweep("num_fewshot=0")

    assert outcome.exit_code == 1
    [line] = own_words(outcome)
    assert re.fullmatch(r"icl-eval: the sweep cannot be summarized: RuntimeError: no room \(test_sweeps.py:\d+\)", line)
    assert len(read_cells(tmp_path)) == 1


def sweep_and_be_killed(arguments, num_records):
    """Start a sweep that is killed when it has this many records; in a process of its own."""
    append = RecordLog.append
    left = iter(range(num_records))

    def append_and_die(log, record):
        append(log, record)
        next(left)
        if left.__length_hint__() == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    RecordLog.append = append_and_die
    sys.argv = ["icl-eval", *arguments]
    cli.main()


@pytest.mark.slow
def test_a_sweep_killed_within_a_cell_goes_on_from_there_and_finds_the_same(sweep, gpt2, decoded, tmp_path):
    arguments = (f"model.source={gpt2}", *QUICK, "-m", "num_fewshot=0,1,2", "hydra.sweep.dir=sweep")
    process = multiprocessing.get_context("spawn").Process(target=sweep_and_be_killed, args=(arguments, 5))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "sweep" / "sweep.json").exists()

    assert sweep("num_fewshot=0,1,2").exit_code == 0
    resumed = read_sweep(tmp_path)
    assert len(decoded) == 4  # one question of the second cell, three of the third

    shutil.rmtree(tmp_path / "sweep")
    assert sweep("num_fewshot=0,1,2").exit_code == 0
    assert read_sweep(tmp_path) == resumed


@pytest.mark.slow
def test_an_experiment_can_be_a_sweep(icl_eval_command, gpt2, tmp_path):
    outcome = icl_eval_command(
        "experiment=shot_curve",
        f"model.source={gpt2}",
        *QUICK,
        "overflow=drop",
        "demonstrations.seed=0,1",
        "hydra.sweep.dir=sweep",
    )
    assert outcome.exit_code == 0
    numbers = [f"num_fewshot={number}" for number in (0, 1, 2, 4, 8)]
    assert sorted(shots(cell) for cell in read_cells(tmp_path)) == sorted(numbers * 2)


@pytest.mark.parametrize(
    ("experiment", "overrides", "factors"),
    [
        (
            "variance",
            ["template.variant=0", "demonstrations.seed=0,1", "order.seed=0,1"],
            {"demonstrations.seed": ["0", "1"], "order.seed": ["0", "1"]},
        ),
        ("templates", ["template.variant=0,2"], {"template.variant": ["0", "2"]}),
        ("draws", ["demonstrations.seed=0,1"], {"demonstrations.seed": ["0", "1"]}),
    ],
)
def test_an_experiment_says_where_the_variance_comes_from(
    experiment, overrides, factors, icl_eval_command, gpt2, tmp_path
):
    outcome = icl_eval_command(
        f"experiment={experiment}", f"model.source={gpt2}", *QUICK, "num_fewshot=2", *overrides, "hydra.sweep.dir=sweep"
    )
    assert outcome.exit_code == 0
    analysis = read_sweep(tmp_path)["analysis"]
    assert [found["factors"] for found in analysis["variance"]] == [factors] * 2
    assert "variance of a score by source" in outcome.out


def test_a_cell_is_called_by_its_overrides_whatever_they_look_like(capsys, tmp_path):
    cells = [Cell(f"{n}", (f"template.separator={text}",)) for n, text in enumerate(("[qa]", "[/b] :+1:"))]
    print_sweep(cells, tmp_path)
    assert capsys.readouterr().out.splitlines()[4:6] == [
        "│ template.separator=[qa]      │",
        "│ template.separator=[/b] :+1: │",
    ]


def notes(tmp_path):
    return [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("error.json")]


def test_a_failed_cell_that_is_mended_and_run_alone_has_not_failed(
    sweep, icl_eval_command, gpt2, tmp_path, monkeypatch
):
    def fail(*_):
        raise ConfigError("not today")

    with monkeypatch.context() as patched:
        patched.setattr("icl_eval.decoding.engines.in_process.load_model", fail)
        assert sweep("num_fewshot=0").exit_code == 2
    [failed] = read_cells(tmp_path)
    assert notes(tmp_path) == [f"sweep/{failed['cell']}/error.json"]

    icl_eval_command(f"model.source={gpt2}", *QUICK, "num_fewshot=0", f"hydra.run.dir='sweep/{failed['cell']}'")

    assert notes(tmp_path) == []
    assert sweep("num_fewshot=1").exit_code == 0
    assert [cell["results"]["qa"]["n"] for cell in read_cells(tmp_path)] == [3, 3]


@pytest.mark.slow
def test_a_cell_that_another_run_is_writing_is_left_to_it(sweep, tmp_path):
    assert sweep("num_fewshot=0,1").exit_code == 0
    first, second = (cell["cell"] for cell in read_cells(tmp_path))
    (tmp_path / "sweep" / first / "report.json").unlink()

    with locking(tmp_path / "sweep" / first):
        outcome = sweep("num_fewshot=0,1")

    assert outcome.exit_code == 2
    assert own_words(outcome) == [
        f"icl-eval: {first} is in use by another run; skipped",
        "icl-eval: 1 cell in use by another run",
    ]
    assert ([cell["cell"] for cell in read_cells(tmp_path)], notes(tmp_path)) == ([second], [])


@pytest.mark.slow
def test_a_finished_cell_that_is_started_again_in_vain_keeps_its_scores(sweep, tmp_path, monkeypatch):
    def fail(*_):
        raise ConfigError("not today")

    assert sweep("num_fewshot=0,1").exit_code == 0
    before = read_cells(tmp_path)
    for page in tmp_path.glob("sweep/*/report.html"):
        page.unlink()  # or nothing would be left to do
    with monkeypatch.context() as patched:
        patched.setattr("icl_eval.evaluation.pipeline.prepare", fail)
        outcome = sweep("num_fewshot=0,1")

    assert outcome.exit_code == 2
    assert own_words(outcome)[-1] == "icl-eval: 2 of 2 cells failed; for 2 of them, an earlier run is shown"
    assert read_cells(tmp_path) == before


@pytest.mark.slow
def test_a_finished_run_of_other_data_is_no_result_of_a_cell(sweep, tmp_path):
    rows = [json.dumps({"id": f"{n}", "question": f"Is {n} even?", "references": ["no"]}) for n in (1, 3, 5)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    assert sweep("num_fewshot=0,1", "task.qa.test.path=rows.jsonl").exit_code == 0
    (tmp_path / "rows.jsonl").write_text("\n".join([*rows[:2], rows[2].replace("5", "7")]))

    outcome = sweep("num_fewshot=0,1", "task.qa.test.path=rows.jsonl")

    assert outcome.exit_code == 2
    assert own_words(outcome)[-1] == "icl-eval: 2 of 2 cells failed"
    assert [cell["error"]["error"] for cell in read_cells(tmp_path)] == ["FingerprintMismatchError"] * 2


def full():
    return Path("/dev/full").open("w")


def closed():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


@pytest.mark.parametrize(
    ("output", "exit_code", "words"),
    [(full, 1, ["icl-eval: output cannot be written (No space left on device)"]), (closed, 0, [])],
)
def test_a_sweep_that_cannot_be_printed_is_whole(output, exit_code, words, sweep, tmp_path, monkeypatch):
    with output() as stdout, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stdout)
        outcome = sweep("num_fewshot=0,1")

    assert (outcome.exit_code, own_words(outcome)) == (exit_code, words)
    assert [cell["results"]["qa"]["n"] for cell in read_cells(tmp_path)] == [3, 3]
    assert (tmp_path / "sweep" / "sweep.html").is_file()
    assert notes(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["num_fewshot=range(3,3)"], "num_fewshot=range(3,3): the sweep has no values"),
        (["template=glob(nothing*)"], "sweep: the sweep has no cells"),
        (
            ["num_fewshot=0,1", "hydra.sweep.subdir=below/${hydra.job.num}"],
            "hydra.sweep.subdir: must put each cell directly into sweep, not into {folder}/sweep/below/0",
        ),
    ],
)
def test_a_sweep_without_cells_is_refused(words, sentence, sweep, tmp_path):
    outcome = sweep(*words)
    assert (outcome.exit_code, own_words(outcome)) == (2, [f"icl-eval: {sentence.format(folder=tmp_path)}"])


def test_a_cell_is_found_without_the_files_of_hydra(sweep, tmp_path):
    assert sweep("num_fewshot=0,1", "hydra.output_subdir=null").exit_code == 0
    assert [shots(cell) for cell in read_cells(tmp_path)] == ["num_fewshot=0", "num_fewshot=1"]
    assert list(tmp_path.rglob(".hydra")) == []


def files(tmp_path):
    return {path.relative_to(tmp_path): path for path in tmp_path.rglob("sweep/**/*") if path.is_file()}


@pytest.mark.slow
def test_a_sweep_for_which_there_is_no_room_names_the_file_and_goes_on_when_there_is(sweep, files_of_at_most, tmp_path):
    assert sweep("num_fewshot=0").exit_code == 0
    whole = read_sweep(tmp_path)
    sizes = {path.name: path.stat().st_size for path in files(tmp_path).values()}
    shutil.rmtree(tmp_path / "sweep")
    for limit in sorted(sizes[name] * 9 // 10 for name in ("hydra.yaml", "report.html")):
        with files_of_at_most(limit):
            outcome = sweep("num_fewshot=0")

        named = re.findall(r"([\w.]+): cannot be read or written \(File too large\)", outcome.err)
        assert outcome.exit_code == 1
        assert named
        assert all(sizes[name] > limit for name in named)
        assert "Traceback" not in outcome.err
        assert not [path for path in files(tmp_path) if path.suffix == ".tmp"]

    assert sweep("num_fewshot=0").exit_code == 0
    assert read_sweep(tmp_path) == whole


@pytest.mark.slow
def test_an_interrupted_sweep_keeps_what_is_finished_and_calls_no_cell_failed(sweep, tmp_path, monkeypatch):
    from icl_eval.decoding.engines import in_process

    load, attempts = in_process.load_model, iter([None, KeyboardInterrupt()])

    def be_interrupted(*arguments):
        if error := next(attempts):
            raise error
        return load(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(in_process, "load_model", be_interrupted)
        outcome = sweep("num_fewshot=0,1")

    assert outcome.exit_code == 130
    assert own_words(outcome) == ["icl-eval: interrupted; repeat the command to resume"]
    assert len(list(tmp_path.rglob("report.json"))) == 1
    assert notes(tmp_path) == []
