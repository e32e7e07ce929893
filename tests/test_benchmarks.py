import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import tiny_models
import torch
from architectures import build
from parsed_pages import assert_self_contained

from icl_eval.prompts.building import EncodedPrompt, Prompt
from icl_eval.prompts.tokenization import Continuations

ROW = re.compile(r"\| [^|]+ \| \d+\.\d+ \| ")
"""A row of a table: a system, and its seconds."""


@pytest.fixture
def benchmark_command(monkeypatch, capsys):
    """Call `python -m benchmarks` in this process and return what it prints."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent))
    from benchmarks.__main__ import main

    def call(*arguments):
        main(arguments)
        return capsys.readouterr().out

    return call


@pytest.mark.slow
def test_every_system_gets_a_row_and_writes_the_same_text(benchmark_command, tmp_path):
    folder = tiny_models.save_llama(tmp_path / "tiny")

    out = benchmark_command("--model", str(folder), "--workloads", "k1", "--questions", "2", "--rounds", "1",
                            "--systems", "generate", "naive")  # fmt: skip

    rows = [line.split(" | ") for line in out.splitlines() if ROW.match(line)]
    agreement = {row[0].removeprefix("| "): row[5] for row in rows}
    assert agreement == {
        "icl_eval": "1.000 of 2",
        "generate, one by one": "reference",
        "generate, batch 16": "1.000 of 2",
        "generate, batch 32": "1.000 of 2",
        "naive loop": "1.000 of 2",
    }


@pytest.mark.slow
def test_every_chooser_gets_a_row_and_chooses_the_same(benchmark_command, tmp_path):
    folder = tiny_models.save_llama(tmp_path / "tiny")

    out = benchmark_command("--model", str(folder), "--workloads", "choices8", "--questions", "2", "6", "--rounds", "1",
                            "--systems", "generate")  # fmt: skip

    rows = [line.split(" | ")[0:6:5] for line in out.splitlines() if ROW.match(line)]
    assert rows == [
        ["| icl_eval", "1.000 of 2"],
        ["| forward pass, one by one", "reference"],
        ["| icl_eval", "1.000 of 6"],
        ["| forward pass, one by one", "reference"],
    ]


@pytest.mark.slow
def test_both_models_of_the_harness_get_a_row_and_give_the_same_answers(benchmark_command, tmp_path):
    folder = tiny_models.save_llama(tmp_path / "tiny")

    out = benchmark_command("lm_eval", "--model", str(folder), "--tasks", "arc_first", "--questions", "3",
                            "--batch-sizes", "2", "--json", str(tmp_path / "measured.json"))  # fmt: skip

    assert "### arc_first, 3 questions, 12 requests: " in out
    rows = [line.split(" | ") for line in out.splitlines() if ROW.match(line)]
    assert [(row[0], row[4]) for row in rows] == [("| icl_eval", "12 of 12"), ("| hf, batch 2", "12 of 12")]
    ours, theirs = json.loads((tmp_path / "measured.json").read_text())["arc_first"]
    for own, other in zip(ours["answers"], theirs["answers"], strict=True):
        assert own == [pytest.approx(other[0], abs=2e-4), other[1]]
    assert min(each["seconds"] for each in (ours, theirs)) > 0


def test_tasks_of_the_harness_have_questions_with_one_right_choice(benchmark_command, tmp_path):
    from benchmarks.lm_eval_tasks import MOST_QUESTIONS, write_tasks

    write_tasks(tmp_path, seed=0)

    def read(name):
        return [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]

    assert (len(read("arc/test")), len(read("gsm8k/test")), len(read("arc/train"))) == (
        MOST_QUESTIONS,
        MOST_QUESTIONS,
        40,
    )
    assert len(read("mmlu/test")) >= 100  # those with four choices
    for row in (*read("mmlu/dev"), *read("mmlu/test")):
        assert (len(row["choices"]), len(set(row["choices"]))) == (4, 4)
    assert {row["answer"] for row in read("mmlu/test")} == {0, 1, 2, 3}
    by_question = {row["question"]: row["choices"][row["answer"]] for row in read("mmlu/test")}
    assert by_question["Which color do you get by mixing blue and yellow paint?"] == "green"
    assert all(re.search(r"#### \d+$", row["answer"]) for row in read("gsm8k/test"))


def test_a_gpu_that_is_not_there_is_told_in_one_line(benchmark_command, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        benchmark_command("--device", "cuda")
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "python -m benchmarks: error: --device cuda: torch finds no GPU here"
    )


def test_vllm_gets_the_same_weights_and_ids_and_an_empty_prefix_cache(benchmark_command, monkeypatch):
    from benchmarks import systems
    from benchmarks.native import Vllm
    from benchmarks.workloads import Workload
    from icl_eval.prompts.building import EncodedPrompt, Prompt

    calls = []

    class Engine:
        def __init__(self, model, **options):
            calls.append((sorted(path.name for path in Path(model).iterdir()), options))

        def reset_prefix_cache(self):
            calls.append("reset")

        def generate(self, prompts, options, use_tqdm):
            calls.append((prompts, vars(options)))
            texts = [SimpleNamespace(text=f" {each['prompt_token_ids'][-1]}", token_ids=(1, 2)) for each in prompts]
            return [SimpleNamespace(outputs=[each]) for each in texts]

    stand_in = ModuleType("vllm")
    stand_in.LLM, stand_in.SamplingParams = Engine, SimpleNamespace
    monkeypatch.setitem(sys.modules, "vllm", stand_in)
    prompts = tuple(EncodedPrompt(Prompt(f"p{n}", None, "x"), (), (5, 6, n)) for n in (7, 8))
    model = replace(build("llama", dtype=torch.float32), device="cuda")
    workload = Workload("own", model, prompts, 4, ("\n",))

    answers = Vllm(workload).answer(workload)

    assert [(answer.text, answer.num_tokens) for answer in answers] == [(" 7", 2), (" 8", 2)]
    (files, options), *rest = calls
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    assert (options["dtype"], options["enable_prefix_caching"], options["max_model_len"]) == ("float32", True, 7)
    asked = [{"prompt_token_ids": [5, 6, 7]}, {"prompt_token_ids": [5, 6, 8]}]
    assert rest == ["reset", (asked, {"temperature": 0, "max_tokens": 4, "stop": ["\n"]})]

    monkeypatch.setattr(systems, "find_spec", lambda package: package in ("vllm", "icl_eval", "llama_cpp"))
    families = ["icl_eval", "vLLM", "llama.cpp"]
    assert [each.name for each in systems.build_systems(families, workload)] == ["icl_eval", "vLLM"]


STAND_IN = """
import json, os, pathlib, types
SamplingParams = types.SimpleNamespace

def note(what):
    with open(os.environ["NOTES"], "a") as file:
        print(json.dumps(what), file=file)

class LLM:
    def __init__(self, model, **options):
        print("a library that prints")
        files = sorted(path.name for path in pathlib.Path(model).iterdir())
        note([files, options, os.environ["VLLM_CPU_OMP_THREADS_BIND"]])

    def reset_prefix_cache(self):
        note("reset")

    def generate(self, prompts, options, use_tqdm):
        note([prompts, vars(options)])
        texts = [types.SimpleNamespace(text=f" {each['prompt_token_ids'][-1]}", token_ids=(1, 2)) for each in prompts]
        return [types.SimpleNamespace(outputs=[each]) for each in texts]
"""


def test_vllm_of_another_environment_gets_the_same_in_a_process_of_its_own(benchmark_command, monkeypatch, tmp_path):
    from benchmarks.systems import build_systems
    from benchmarks.workloads import Workload

    (tmp_path / "vllm.py").write_text(STAND_IN)
    notes = tmp_path / "notes"
    for name, text in {"PYTHONPATH": tmp_path, "NOTES": notes, "ICL_EVAL_VLLM": sys.executable}.items():
        monkeypatch.setenv(name, str(text))
    prompts = tuple(EncodedPrompt(Prompt(f"p{n}", None, "x"), (), (5, 6, n)) for n in (7, 8))
    workload = Workload("own", build("llama", dtype=torch.float32), prompts, 4, ("\n",))

    ours, vllm = build_systems(["icl_eval", "vLLM"], workload)
    answers = [(answer.text, answer.num_tokens) for _ in range(2) for answer in vllm.answer(workload)]
    process = vllm._process
    del vllm

    assert process.returncode == 0
    assert (ours.name, answers) == ("icl_eval", [(" 7", 2), (" 8", 2)] * 2)
    (files, options, cores), *rest = map(json.loads, notes.read_text().splitlines())
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    assert (options["dtype"], options["enable_prefix_caching"], options["max_model_len"]) == ("float32", True, 7)
    assert len(set(cores.split(","))) == torch.get_num_threads()
    asked = [{"prompt_token_ids": [5, 6, 7]}, {"prompt_token_ids": [5, 6, 8]}]
    assert rest == ["reset", [asked, {"temperature": 0, "max_tokens": 4, "stop": ["\n"]}]] * 2


def test_another_seed_makes_up_other_prompts_and_more_questions_begin_with_the_fewer(benchmark_command):
    from benchmarks.workloads import make_problems

    few, more, others = (make_problems("questions", *asked) for asked in ((1, 3), (1, 5), (2, 3)))
    assert more[:3] == few != others
    assert all(problem.answer in problem.candidates for problem in more)


def test_an_exported_network_is_read_back_with_the_same_weights(benchmark_command, tmp_path):
    from transformers import AutoModelForCausalLM

    from benchmarks.gguf_export import write_gguf

    network = AutoModelForCausalLM.from_pretrained(tiny_models.save_llama(tmp_path / "tiny"))
    write_gguf(network, tmp_path / "tiny.gguf")

    read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf").state_dict()
    for name, weight in network.state_dict().items():
        assert torch.equal(read[name], weight), name


def test_every_strategy_selects_from_made_up_pools(benchmark_command):
    out = benchmark_command("selection", "--pools", "40", "50", "--shots", "2", "40", "--size", "8")

    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("|")][2:]
    strategies = ["random", "per_question", "bm25", "nearest", "diverse", "dpp"]
    assert [row[:3] for row in rows] == [
        [pool, kind, f"`{name}`"] for pool in ("40", "50") for kind in ("clusters", "any") for name in strategies
    ]
    assert all(float(cell) < 1000 for row in rows for cell in row[3:])


def test_made_up_vectors_lie_in_clusters_or_in_any_direction(benchmark_command):
    from benchmarks.selection import make_task

    for kind, nearest in {"clusters": 0.5, "any": 0.3}.items():
        task, encoder = make_task(2000, kind, 384, 1)
        cosines = encoder.embed(task.examples) @ encoder.embed(task.pool).T
        assert (cosines.max(axis=1) > nearest).all() == (kind == "clusters"), kind
        assert len(task.pool) == 2000
        assert abs(cosines.mean()) < 0.01


def test_tokens_fed_are_counted_beside_the_least_possible(benchmark_command):
    out = benchmark_command("tokens", "--kinds", "letters", "4 questions a passage", "--questions", "5")

    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines()[2:]]
    assert [row[1] for row in rows] == ["letters", "4 questions a passage"] * 5
    for row in rows:
        fed, least, ratio = (float(cell.replace(",", "")) for cell in row[3:6])
        assert 500 < least <= fed <= 1.05 * least
        assert ratio == pytest.approx(fed / least, abs=5e-4)
    assert [row[5] for row in rows if row[0] == "decoder (Llama)"] == ["1.000", "1.000"]


def test_the_least_possible_counts_each_token_once_and_no_last_ones(benchmark_command):
    from benchmarks.tokens import count_least

    def ask(encoder_ids, decoder_ids, *texts):
        return Continuations(EncodedPrompt(Prompt("", None, None), encoder_ids, decoder_ids), texts)

    first = ask((), (1, 2), (5, 6, 7), (5, 6, 8), (9,))  # run: 1, 2, 5, 6
    assert count_least([first]) == 4
    assert count_least([first, first, ask((), (1, 3), (9,))]) == 5  # and 3
    assert count_least([ask((7, 7, 7), (), (4,), (5,)), ask((7, 7), (), (4, 4))], start=(0,)) == (3 + 1) + (2 + 2)


def test_the_floor_counts_what_prompts_share_once(benchmark_command):
    from benchmarks.floor import Tokens, count_tokens

    assert count_tokens([((), (1, 2, 3)), ((), (1, 2, 4, 5))]) == Tokens(0, 0, 5, (1 + 2 + 3) + (3 + 4))
    assert count_tokens([((7, 8), (0,)), ((7, 8), (0,)), ((7, 9), (0,))]) == Tokens(4, 8, 2, 2 * (1 + 2))


def test_the_floor_is_limited_by_arithmetic_or_by_reading(benchmark_command):
    from benchmarks.floor import Rates

    rates = Rates(flops=100, bytes_read=10)
    assert rates.seconds(flops=200, num_bytes=10) == 2
    assert rates.seconds(flops=200, num_bytes=50) == 5
    assert rates.best(Rates(flops=50, bytes_read=20)) == Rates(100, 20)


@pytest.mark.parametrize("page", ["run", "compare", "sweep"])
def test_the_pages_that_are_measured_are_written_from_made_up_rows(page, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent))
    from benchmarks.pages import prepare, write

    target = prepare(page, 6, "unicode", tmp_path)
    write(target)
    parsed = assert_self_contained(target.read_text(encoding="utf-8"))
    if page == "run":
        assert len(parsed.packed(parsed.data("tasks")[0]["blocks"])) == 6
    else:
        (task,) = parsed.data("answers-data")["tasks"]
        assert [len(parsed.packed(own)) for own in task["answers"]] == ([6, 6] if page == "compare" else [64] * 6)


@pytest.mark.slow
def test_every_stage_of_a_run_is_measured(benchmark_command, tmp_path):
    from benchmarks.scale_stages import REST, STAGES

    out = benchmark_command("scale", "--questions", "20", "40", "--cells", "2", "3", "--runs", "3",
                            "--shape", "unicode", "--json", str(tmp_path / "m.json"), "num_fewshot=2")  # fmt: skip

    measured = json.loads((tmp_path / "m.json").read_text())
    assert [each["size"] for each in measured["run"]] == [20, 40]
    for each in measured["run"]:
        assert each["seconds"].keys() == {REST, *STAGES}
        assert min(each["seconds"].values()) > 0
        assert each["megabytes"][REST] == max(each["megabytes"].values()) > 100
    for each in measured["again"]:
        assert [each["seconds"][stage] for stage in ("model", "rows")] == [0, 0]
    assert [each["size"] for each in measured["sweep"]] == [2, 3]
    titles = [line for line in out.splitlines() if line.startswith("### ")]
    assert titles == [
        "### Runs: processor seconds by number of questions",
        "### A second start of a finished run",
        "### `compare` of two runs",
        "### `list`",
        "### `load_runs`",
        "### Sweeps: processor seconds by number of cells",
    ]


def test_a_stage_has_the_time_of_its_functions_without_the_stages_inside(benchmark_command, monkeypatch):
    from benchmarks import scale_stages

    now = iter((1.0, 3.0, 6.0, 10.0, 15.0))  # the rest, planning, decoding inside it, planning, the rest
    monkeypatch.setattr(scale_stages.time, "process_time", lambda: next(now))
    meter = scale_stages.Meter()
    inner = meter.measure("decoding", lambda: None)
    meter.measure("planning", inner)()
    seconds = meter.read()["seconds"]
    assert {stage: each for stage, each in seconds.items() if each} == {"start": 6.0, "planning": 6.0, "decoding": 3.0}


def test_a_table_says_what_one_more_question_costs_and_with_which_power_a_stage_grows(benchmark_command):
    from benchmarks.scale import Measured, growth_exponent, render_stages
    from benchmarks.scale_stages import REST, STAGES

    def measured(size, seconds, peak):
        return Measured(size, {**dict.fromkeys((REST, *STAGES), 0.0), **seconds}, {REST: peak})

    runs = [measured(1000, {"prompts": 1.0, "page": 0.01}, 100), measured(4000, {"prompts": 8.0, "page": 0.1}, 112)]
    lines = render_stages("Runs", runs).splitlines()
    assert lines[4:] == [
        "| prompts | 1.00 | 8.00 | 2.333 ms | 1.50 |",
        "| page | 0.01 | 0.10 | 0.030 ms | – |",
        "| **beside network and start** | 1.01 | 8.10 | 2.363 ms | 1.50 |",
        "| **all** | 1.01 | 8.10 | 2.363 ms | 1.50 |",
        "| peak memory, MB | 100 | 112 | 4.1 kB | |",
    ]
    assert growth_exponent([10], [1.0]) is None


@pytest.mark.parametrize("shape", ["short", "long", "passages", "references", "unicode"])
def test_a_task_of_any_size_has_rows_of_its_shape(benchmark_command, tmp_path, shape):
    from benchmarks.scale_data import SHAPES, write_task

    conf = write_task(tmp_path / "data", shape, 5)
    assert (conf / "task" / "scale.yaml").is_file()
    rows = [json.loads(line) for line in (tmp_path / "data" / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows == [SHAPES[shape](number) for number in range(100, 105)]
    assert len({row["question"] for row in rows}) == 5
    assert (len(rows[0]["question"]) > 1500, len(rows[0]["references"])) == (
        shape == "long",
        40 if shape == "references" else 1,
    )
    assert rows[0]["question"].isascii() == (shape != "unicode")
