import json
from pathlib import Path

import pytest

from icl_eval.cli.words import gather_folders, say
from icl_eval.formatting import escape_controls
from icl_eval.reporting.terminal import open_console

KNOWN = (
    "-h, --help, --hydra-help, --version, -r, --run, -i, --info, -c, --cfg, --config-dir, -sc, --shell-completion, -m, "
    "--multirun, -p, --package, --resolve"
)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--experimental-rerun", "x.pickle"], f"--experimental-rerun: unknown flag (known: {KNOWN})"),
        (["--exp=x.pickle"], f"--exp: unknown flag (known: {KNOWN})"),  # argparse takes the beginning of a flag
        (["--config-name", "evil"], f"--config-name: unknown flag (known: {KNOWN})"),
        (["-cn", "evil"], f"-cn: unknown flag (known: {KNOWN})"),
        (["--config-path=/tmp"], f"--config-path: unknown flag (known: {KNOWN})"),
        (["--package", "model"], "--package: has no effect without --cfg"),
        (["--resolve"], "--resolve: has no effect without --cfg"),
        (["--cfg", "nope"], "--cfg: must be followed by job or hydra or all"),
        (["--config-dir"], "--config-dir: must be followed by a folder"),
        (["-sc", "query=bash"], "-sc: must be followed by install=… or uninstall=…"),
        (["hydra={searchpath: [/tmp]}"], "hydra: Hydra's settings must be set one by one (hydra.run.dir=…)"),
        (["hydra.searchpath=[pkg://os]"], "hydra.searchpath: pkg://os: must be a folder"),
        # sweeps
        (["-m", "num_fewshot=1,1"], "num_fewshot=1,1: 1 is listed 2 times; the values of a sweep must be distinct"),
        (["-m", "num_fewshot=range(0)"], "num_fewshot=range(0): the sweep has no values"),
        (
            ["-m", "num_fewshot=range(0,1000000000)"],
            "num_fewshot: a sweep may have at most 10000 cells",
        ),
        (["-m", "seed=0,1", "seed=2,3"], "seed: given 2 times"),
        # numbers that nobody means
        (["limit=1e-300"], "limit=1e-300: a fraction must be 1e-06 or more (one example in a million)"),
        (["limit=nan"], "limit=nan: must be a number of examples (1 or more) or a fraction between 0 and 1"),
        ([f"seed={10**19}"], f"seed={10**19}: must be {2**63 - 1} or less"),
        (["order=random", f"order.seed={10**19}"], f"order.seed={10**19}: Input should be less than {2**63}"),
        (["demonstrations.seed=-1"], "demonstrations.seed=-1: Input should be greater than or equal to 0"),
        ([f"batch_size={10**12}"], f"batch_size={10**12}: must be 100000 or less"),
        ([f"prefix_cache_mb={10**15}"], f"prefix_cache_mb={10**15}: must be 100000000 or less"),
        ([f"max_new_tokens={10**9}"], f"max_new_tokens={10**9}: must be 1000000 or less"),
        ([f"task.qa.max_new_tokens={10**9}"], f"task.qa.max_new_tokens={10**9}: must be 1000000 or less"),
        ([f"task.qa.pool.max_rows={10**19}"], f"task.qa.pool.max_rows={10**19}: must be 1000000000 or less"),
        (["num_fewshot=true"], "num_fewshot=true: must be a whole number or null"),
        (["batch_size=true"], "batch_size=true: must be a whole number or a string"),
        (
            ["decoding=generate", "decoding.options.num_beams=1000000"],
            "decoding.options.num_beams=1000000: must be a whole number from 1 to 1024",
        ),
        (
            ["decoding=generate", "decoding.options.num_beams=true"],
            "decoding.options.num_beams=true: must be a number",
        ),
        (
            ["decoding=generate", "decoding.options.length_penalty=nan"],
            "decoding.options.length_penalty=nan: must be a number of 10000000 or less",
        ),
        (
            ["decoding=sample", "decoding.temperature=1e300"],
            "decoding.temperature=1e+300: must be 1e+30 or less",
        ),
        # options without effect
        (
            ["decoding=generate", "+decoding.options.num_assistant_tokens=3"],
            "decoding.options.num_assistant_tokens: has no effect without an assistant model, and a run has none",
        ),
        (
            ["decoding=generate", "+decoding.options.diversity_penalty=0.5"],
            "decoding.options.diversity_penalty: transformers has moved this search to its hub and would download code "
            "from there",
        ),
        (["task.qa.labels={}"], "task.qa.labels: an empty mapping has no effect; leave it out"),
        (
            ["task.qa.labels={question: 1.10}"],
            "task.qa.labels: 1.1 is not a string; quote strings like it: task.qa.labels='{question: \"1.10\"}'",
        ),
        (["num_fewshot=${num_fewshot}"], "num_fewshot: Recursive interpolation detected"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_can_only_be_a_mistake_is_refused_in_one_line(words, sentence, icl_eval_command, gpt2):
    outcome = icl_eval_command("task=qa", f"model.source={gpt2}", *words)
    assert (outcome.exit_code, outcome.out, outcome.err) == (2, "", f"icl-eval: {sentence}\n")


@pytest.mark.parametrize(
    ("typed", "texts"),
    [
        (r"a,b\[c\]", ["a", r"b\[c\]"]),
        ("1.10,1_000", ["1.10", "1_000"]),
        (r"f\,dx,g", [r"f\,dx", "g"]),
        ("'a, b',\"c\\n\"", ["a, b", "c\n"]),
        ("choice(a,b)", ["a", "b"]),
    ],
)
def test_each_string_of_a_sweep_is_what_was_typed(typed, texts, icl_eval_command, gpt2, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "icl_eval.commands.evaluate.evaluate_into",
        lambda evaluation, *_, **__: seen.append(evaluation.plans[0].template.separator),
    )
    monkeypatch.setattr("icl_eval.reporting.terminal.print_report", lambda run: None)
    icl_eval_command("-m", "task=qa", f"model.source={gpt2}", "num_fewshot=0", f"template.separator={typed}")
    assert seen == texts


def test_what_the_default_is_can_be_typed_also_in_a_sweep(icl_eval_command, gpt2, monkeypatch):
    seen = []

    def listen(evaluation, folder, cells):
        seen.append((evaluation.placement, evaluation.plans[0].likelihood and evaluation.plans[0].likelihood.name))

    monkeypatch.setattr("icl_eval.commands.evaluate.evaluate_into", listen)
    monkeypatch.setattr("icl_eval.reporting.terminal.print_report", lambda run: None)
    words = ("task=qa", f"model.source={gpt2}", "num_fewshot=0", "placement=null", "postprocessing=null")
    icl_eval_command(*words, "experiment=null", "likelihood=null")
    icl_eval_command("-m", *words, "likelihood=null,references")
    assert seen == [(None, None), (None, None), (None, "references")]


HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\rgone\u202e"
WRITTEN_OUT = r"\x1b]0;title\x07\x1b[2J\x9b31m\rgone\u202e"


def test_an_option_may_be_longer_than_the_name_of_a_file():
    draws = f"draws=[{','.join(map(str, range(1, 200)))}]"
    assert gather_folders("pilot", [draws, "/tmp/.."]) == [draws, "pilot=['/tmp/..']"]


@pytest.mark.parametrize("flag", ["-h", "--help", "--hydra-help"])
def test_help_needs_no_folder_that_exists(flag):
    assert gather_folders("runs", ["nowhere", flag]) == [flag, "runs=['nowhere']"]


def test_an_option_is_no_folder_although_a_file_has_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("seed=3").touch()
    assert gather_folders("runs", ["seed=3"]) == ["seed=3"]
    assert gather_folders("paths", ["seed=3"]) == ["paths=['seed=3']"]  # there, files are what is asked for


def test_what_a_flag_takes_is_no_folder(tmp_path):
    place = str(tmp_path)
    assert gather_folders("folders", [place, "--cfg", "job", "-p", "hydra"]) == [
        "--cfg",
        "job",
        "-p",
        "hydra",
        f"folders=['{place}']",
    ]


def test_control_characters_are_written_out_wherever_text_is_printed(capsys):
    assert escape_controls(f"a\tb\n{HOSTILE}") == f"a\tb\n{WRITTEN_OUT}"
    say(HOSTILE.replace("\r", ""))
    open_console().print(HOSTILE)
    out, err = capsys.readouterr()
    assert err == f"icl-eval: {WRITTEN_OUT.replace(chr(92) + 'r', '')}\n"
    assert out == f"{WRITTEN_OUT}\n"


WORDS = ("one thing", "something quite different", "nothing of that kind")


def test_preview_and_warnings_show_the_control_characters_of_data(icl_eval_command, gpt2, tmp_path):
    rows = [
        {"id": f"{HOSTILE}{number}", "question": f"{WORDS[number]} {HOSTILE}", "references": [f"a{number}"]}
        for number in range(3)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = [f"task.qa.{part}.path=rows.jsonl" for part in ("pool", "test")]
    outcome = icl_eval_command("preview", "task=qa", f"model.source={gpt2}", "num_fewshot=1", "limit=1", *words)
    assert outcome.exit_code == 0
    assert WRITTEN_OUT in outcome.out
    assert not set(HOSTILE) & {character for character in outcome.out + outcome.err if not character.isprintable()}
