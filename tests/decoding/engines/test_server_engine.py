import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial

import pytest
import tiny_models
from completion_server import KEY, NAME, CompletionServer, serving
from fault_proxy import spoiling

import icl_eval

QUICK = ("task=qa", "limit=6", "num_fewshot=1", "max_new_tokens=6")
FAULTS = ("429", "429:1", "500", "reset", "truncated", "html", "unfinished")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_models.save_llama(tmp_path_factory.mktemp("served") / "tiny", chat_template=tiny_models.CHAT_TEMPLATE)


@pytest.fixture
def serve():
    with ExitStack() as stack:
        yield lambda served: stack.enter_context(serving(served))


@pytest.fixture
def spoil():
    with ExitStack() as stack:
        yield lambda url, fault_of: stack.enter_context(spoiling(url, fault_of))


def at(folder, url, *more):
    return (*QUICK, f"model.source={folder}", "engine=openai", f"engine.base_url={url}", f"engine.model={NAME}", *more)


def read_records(folder, task="qa"):
    return [json.loads(line) for line in (folder / f"samples_{task}.jsonl").read_text().splitlines()]


def read_session(folder):
    return json.loads((folder / "engine.json").read_text())["sessions"][-1]


@pytest.fixture(scope="module")
def expected(folder, tmp_path_factory):
    """The records of the network in this process, without and with likelihoods."""
    found = {}
    for likelihood in ("null", "references"):
        run = tmp_path_factory.mktemp("here") / likelihood
        icl_eval.evaluate(*QUICK, f"model.source={folder}", f"likelihood={likelihood}", folder=run)
        found[likelihood] = read_records(run)
    return found


@pytest.mark.parametrize("num_concurrent", [1, 8])
def test_a_server_that_takes_ids_gives_the_records_of_the_network_in_this_process(
    folder, serve, expected, icl_eval_command, tmp_path, num_concurrent
):
    served = CompletionServer(folder)
    outcome = icl_eval_command(
        *at(folder, serve(served), f"engine.num_concurrent={num_concurrent}", f"hydra.run.dir={tmp_path}/run")
    )
    assert outcome.exit_code == 0, outcome.err
    assert read_records(tmp_path / "run") == expected["null"]
    session = read_session(tmp_path / "run")
    assert session["probe"] == {
        "token_ids_taken": True,
        "token_ids_returned": True,
        "same_tokenizer": True,
        "takes_likeliest_token": True,
        "stop_strings": "cut",
        "echoed_log_probabilities_right": None,
        "notes": [],
    }
    assert session["counts"]["requests"] == len(served.bodies)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["provenance"]["engine"] == {"name": "openai", "sessions": [session]}
    assert report["run"]["decoding"]["dtype"] == "unknown"


def test_likelihoods_are_those_of_the_echoed_prompt(folder, serve, expected, icl_eval_command, tmp_path):
    url = serve(CompletionServer(folder))
    outcome = icl_eval_command(*at(folder, url, "likelihood=references", f"hydra.run.dir={tmp_path}/run"))
    assert outcome.exit_code == 0, outcome.err
    for own, other in zip(read_records(tmp_path / "run"), expected["references"], strict=True):
        pairs = list(zip(own["likelihood"]["references"], other["likelihood"]["references"], strict=True))
        assert [each["text"] for each, _ in pairs] == [each["text"] for _, each in pairs]
        assert [each["logprob"] for each, _ in pairs] == pytest.approx([each["logprob"] for _, each in pairs], abs=1e-4)
        assert [each["is_greedy"] for each, _ in pairs] == [each["is_greedy"] for _, each in pairs]


@pytest.mark.parametrize(
    ("quirks", "found"),
    [
        (["no_ids"], {"token_ids_taken": False, "token_ids_returned": False, "stop_strings": "cut"}),
        (["no_stop"], {"token_ids_taken": True, "stop_strings": "ignored"}),
        (["no_ids", "no_stop"], {"token_ids_taken": False, "stop_strings": "ignored"}),
    ],
)
def test_less_able_servers_give_the_same_completions(
    folder, serve, expected, icl_eval_command, tmp_path, quirks, found
):
    outcome = icl_eval_command(*at(folder, serve(CompletionServer(folder, quirks)), f"hydra.run.dir={tmp_path}/run"))
    assert outcome.exit_code == 0, outcome.err
    assert found.items() <= read_session(tmp_path / "run")["probe"].items()
    records = read_records(tmp_path / "run")
    assert [each["completion"] for each in records] == [each["completion"] for each in expected["null"]]
    if "no_stop" not in quirks:
        assert [each["completion_tokens"] for each in records] == [
            each["completion_tokens"] for each in expected["null"]
        ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quirks", "options", "sentence"),
    [
        (
            ["echo_off_by_one"],
            ["likelihood=references"],
            "its echoed log-probabilities are wrong: they differ by up to",
        ),
        (["penalty"], [], "does not take the likeliest token although temperature is 0"),
        (["no_ids"], ["likelihood=references"], "takes no token ids, without which answers cannot be scored"),
        (["no_ids"], ["engine.prompts=token_ids"], "engine.prompts=token_ids"),
        (["other_tokenizer"], [], "is not that of model.source: a text has other tokens there"),
        ([], ["engine.model=other"], "does not serve it (it has: tiny)"),
        ([], ["decoding=generate"], "engine=openai: cannot run decoding=generate (it has: greedy, sample)"),
        ([], ["engine.api=chat"], "engine.api=chat: sends the turns of a conversation; add template=chat"),
        ([], ["dtype=bfloat16"], "dtype: has no effect with engine=openai"),
        ([], ["engine.num_concurrent=0"], "engine.num_concurrent=0: must be 1 or more"),
        (
            [],
            ["engine.api_key_env=NO_SUCH_KEY"],
            "engine.api_key_env=NO_SUCH_KEY: this environment variable is not set",
        ),
        (["nan"], ["likelihood=references"], "does not take the likeliest token although temperature is 0"),
        (["zero"], ["likelihood=references"], "gives 0 as the log-probability of every token"),
        ([], ["engine.base_url=ftp://here"], "engine.base_url=ftp://here: must be an address"),
        ([], ["engine.base_url=http://here:port/v1"], "engine.base_url=http://here:port/v1: must be an address"),
        ([], ["engine.base_url=http://here:99999/v1"], "engine.base_url=http://here:99999/v1: must be an address"),
        ([], ["engine.base_url='http://[::1/v1'"], "engine.base_url=http://[::1/v1: must be an address"),
        ([], ["engine.base_url='http://he re/v1'"], "engine.base_url=http://he re/v1: must be an address"),
        ([], ["engine.prices=5"], "engine.prices=5: must be a mapping with the keys prompt, completion"),
        ([], ["engine.prices={prompt: -1.0}"], "engine.prices.prompt=-1.0: must be 0 or more"),
    ],
)
def test_what_would_give_wrong_numbers_is_refused_in_one_line(
    folder, serve, icl_eval_command, tmp_path, quirks, options, sentence
):
    url = serve(CompletionServer(folder, quirks))
    outcome = icl_eval_command(*at(folder, url, *options, f"hydra.run.dir={tmp_path}/run"))
    assert outcome.exit_code == 2
    assert outcome.err.count("\n") == 1
    assert sentence in outcome.err
    assert not any(path.stat().st_size for path in (tmp_path / "run").glob("samples_*"))


@pytest.mark.parametrize(
    ("quirks", "options", "sentence"),
    [
        (["no_text", "no_ids"], [], "an answer without text"),
        (["error"], [], "an error as an answer: quota exceeded"),
        (["strange_ids"], [], ", which the vocabulary of "),
    ],
)
def test_answers_that_are_none_end_the_run_in_one_line(
    folder, serve, icl_eval_command, tmp_path, quirks, options, sentence
):
    url = serve(CompletionServer(folder, quirks))
    arguments = ("engine.max_retries=0", "engine.num_concurrent=1", *options, f"hydra.run.dir={tmp_path}/run")
    outcome = icl_eval_command(*at(folder, url, *arguments))
    assert outcome.exit_code == 1
    assert outcome.err.count("\n") == 1
    assert sentence in outcome.err
    assert not any(path.stat().st_size for path in (tmp_path / "run").glob("samples_*"))


def test_a_server_that_counts_no_tokens_gives_the_same_texts(folder, serve, expected, icl_eval_command, tmp_path):
    url = serve(CompletionServer(folder, ["no_ids", "no_usage"]))
    outcome = icl_eval_command(*at(folder, url, f"hydra.run.dir={tmp_path}/run"))
    assert outcome.exit_code == 0, outcome.err
    records = read_records(tmp_path / "run")
    assert [each["completion"] for each in records] == [each["completion"] for each in expected["null"]]
    assert {each["completion_tokens"] for each in records} == {None}


def test_a_conversation_that_is_sent_as_text_begins_with_one_token_of_beginning(
    folder, serve, icl_eval_command, tmp_path
):
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    bos, number = tokenizer.bos_token, tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, number)])
    tokenizer.chat_template = "{{ bos_token }}" + tiny_models.CHAT_TEMPLATE
    model = tmp_path / "opened"
    shutil.copytree(folder, model)
    tokenizer.save_pretrained(model)
    (model / "chat_template.jinja").write_text(tokenizer.chat_template)
    here, there = tmp_path / "here", tmp_path / "there"
    assert icl_eval_command(*QUICK, f"model.source={model}", "template=chat", f"hydra.run.dir={here}").exit_code == 0

    url = serve(CompletionServer(model, ["no_ids"]))
    outcome = icl_eval_command(*at(model, url, "template=chat", f"hydra.run.dir={there}"))
    assert outcome.exit_code == 0, outcome.err
    assert read_records(here)[0]["decoder"].startswith(bos)
    assert [each["completion"] for each in read_records(there)] == [each["completion"] for each in read_records(here)]


@pytest.mark.slow
def test_a_list_of_models_that_fails_is_said_and_is_no_change(folder, serve, expected, icl_eval_command, tmp_path):
    served = CompletionServer(folder)
    url, run = serve(served), tmp_path / "run"
    assert icl_eval_command(*at(folder, url, "limit=3", f"hydra.run.dir={run}")).exit_code == 0
    served.quirks.add("no_models")
    (run / "samples_qa.jsonl").write_text("")
    outcome = icl_eval_command(*at(folder, url, "limit=3", f"hydra.run.dir={run}"))
    assert outcome.exit_code == 0, outcome.err
    assert "does not list its models: whether prompts fit is not known beforehand" in outcome.err
    assert "has changed" not in outcome.err
    assert read_records(run) == expected["null"][:3]


@pytest.mark.slow
def test_another_version_is_said(folder, serve, icl_eval_command, tmp_path):
    url, run = serve(CompletionServer(folder)), tmp_path / "run"
    assert icl_eval_command(*at(folder, url, f"hydra.run.dir={run}")).exit_code == 0
    path = run / "engine.json"
    path.write_text(path.read_text().replace("0.0.tiny", "0.1.tiny"))
    (run / "samples_qa.jsonl").write_text("")
    outcome = icl_eval_command(*at(folder, url, f"hydra.run.dir={run}"))
    changed = "the server has changed since the run began (version '0.1.tiny', now '0.0.tiny'): its records may differ"
    assert changed in outcome.err


def test_a_prompt_that_the_server_would_shorten_is_refused_before_any_is_sent(
    folder, serve, icl_eval_command, tmp_path
):
    served = CompletionServer(folder, max_model_len=100)
    outcome = icl_eval_command(*at(folder, serve(served), f"hydra.run.dir={tmp_path}/run"))
    assert outcome.exit_code == 2
    assert f"serves {NAME} with 100 tokens, and a prompt has" in outcome.err
    assert len(served.bodies) < 8, "only the probe was sent"


@pytest.mark.slow
def test_demonstrations_that_do_not_fit_the_server_are_dropped(folder, serve, icl_eval_command, tmp_path):
    url = serve(CompletionServer(folder, max_model_len=100))
    options = ("engine.max_length=100", "overflow=drop", f"hydra.run.dir={tmp_path}/run")
    outcome = icl_eval_command(*at(folder, url, *options))
    assert outcome.exit_code == 0, outcome.err
    records = read_records(tmp_path / "run")
    assert {record["shots_effective"] for record in records} == {0}
    assert max(record["prompt_tokens"] for record in records) <= 94


def test_a_completion_that_was_shortened_in_silence_ends_the_run(folder, serve, icl_eval_command, tmp_path):
    url = serve(CompletionServer(folder, ["short"]))
    outcome = icl_eval_command(*at(folder, url, f"hydra.run.dir={tmp_path}/run"))
    assert outcome.exit_code == 1
    assert "the server ended a completion after" in outcome.err


def test_an_encoder_decoder_model_is_refused(icl_eval_command, tmp_path):
    server = ("engine=openai", "engine.base_url=http://127.0.0.1:9/v1", f"engine.model={NAME}")
    outcome = icl_eval_command(*QUICK, "model=icl_t5", *server, f"hydra.run.dir={tmp_path}/run")
    assert outcome.exit_code == 2
    assert "is encoder-decoder, which this engine does not run; use engine=transformers" in outcome.err


@pytest.mark.slow
def test_turns_of_a_conversation_are_sent_as_messages(folder, serve, icl_eval_command, tmp_path):
    served = CompletionServer(folder)
    options = ("engine.api=chat", "template=chat", f"hydra.run.dir={tmp_path}/run")
    outcome = icl_eval_command(*at(folder, serve(served), *options))
    assert outcome.exit_code == 0, outcome.err
    here = tmp_path / "here"
    icl_eval_command(*QUICK, f"model.source={folder}", "template=chat", f"hydra.run.dir={here}")
    assert [each["completion"] for each in read_records(tmp_path / "run")] == [
        each["completion"] for each in read_records(here)
    ]
    turns = served.bodies[-1]["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]


@pytest.mark.slow
def test_samples_have_seeds_of_their_own(folder, serve, icl_eval_command, tmp_path):
    served = CompletionServer(folder)
    options = ("decoding=sample", "decoding.num_samples=2", "decoding.top_k=5", "decoding.temperature=0.5")
    outcome = icl_eval_command(*at(folder, serve(served), *options, f"hydra.run.dir={tmp_path}/run"))
    assert outcome.exit_code == 0, outcome.err
    sent = [body for body in served.bodies if body["temperature"] == 0.5]
    assert len(sent) == len({body["seed"] for body in sent}) == 12
    assert {(body["top_k"], body["top_p"]) for body in sent} == {(5, 1.0)}
    assert [len(record["samples"]) for record in read_records(tmp_path / "run")] == [2] * 6


@pytest.mark.parametrize("fault", [FAULTS[0], *(pytest.param(fault, marks=pytest.mark.slow) for fault in FAULTS[1:])])
def test_every_third_answer_is_spoiled_and_no_record_is_lost_or_wrong(
    folder, serve, spoil, expected, icl_eval_command, tmp_path, fault
):
    url = spoil(serve(CompletionServer(folder)), lambda number: fault if number % 3 == 2 else None)
    outcome = icl_eval_command(*at(folder, url, "engine.num_concurrent=3", f"hydra.run.dir={tmp_path}/run"))
    assert outcome.exit_code == 0, outcome.err
    assert read_records(tmp_path / "run") == expected["null"]
    counts = read_session(tmp_path / "run")["counts"]
    assert counts["retries"] == sum(counts["failures"].values()) > 0
    assert "asked again in" in outcome.err


@pytest.mark.slow
def test_a_server_that_hangs_is_asked_again(folder, serve, spoil, expected, icl_eval_command, tmp_path):
    url = spoil(serve(CompletionServer(folder)), lambda number: "hang" if number == 6 else None)
    outcome = icl_eval_command(*at(folder, url, "engine.timeout=2", f"hydra.run.dir={tmp_path}/run"))
    assert outcome.exit_code == 0, outcome.err
    assert read_records(tmp_path / "run") == expected["null"]
    assert "no answer in 2 s" in outcome.err


@pytest.mark.slow
def test_a_server_that_is_gone_ends_the_run_and_the_same_command_goes_on(
    folder, serve, spoil, expected, icl_eval_command, tmp_path
):
    served = CompletionServer(folder)
    url = serve(served)
    arguments = ("engine.max_retries=1", "engine.num_concurrent=2", f"hydra.run.dir={tmp_path}/run")
    gone = spoil(url, lambda number: "gone" if number >= 7 else None)
    outcome = icl_eval_command(*at(folder, gone, *arguments))
    assert outcome.exit_code == 1
    assert outcome.err.splitlines()[-1].startswith(f"icl-eval: {gone}: no answer after 2 attempts (")
    assert outcome.err.splitlines()[-1].endswith(
        "what is answered is recorded, and the same command goes on from there"
    )
    kept = read_records(tmp_path / "run")
    assert 0 < len(kept) < 6

    served.bodies.clear()
    assert icl_eval_command(*at(folder, url, *arguments)).exit_code == 0
    assert read_records(tmp_path / "run") == expected["null"]
    asked = [body for body in served.bodies if body["max_tokens"] == 6]
    assert len(asked) == 6 - len(kept), "another address is the same run"


def test_a_redirection_is_followed_only_if_it_keeps_the_request(folder, serve, spoil, icl_eval_command, tmp_path):
    url = serve(CompletionServer(folder))
    kept = icl_eval_command(*at(folder, spoil(url, lambda number: "308"), f"hydra.run.dir={tmp_path}/kept"))
    assert kept.exit_code == 0, kept.err
    moved = spoil(url, lambda number: "301")
    outcome = icl_eval_command(*at(folder, moved, f"hydra.run.dir={tmp_path}/moved"))
    assert outcome.exit_code == 2
    assert outcome.err.splitlines()[-1] == (
        f"icl-eval: engine.base_url={moved} redirects (301) to {url}/completions, where requests arrive without their "
        "content; set engine.base_url to the server's own address"
    )


@pytest.mark.slow
def test_what_the_server_asks_to_wait_is_said_and_waited(folder, serve, spoil, icl_eval_command, tmp_path):
    url = spoil(serve(CompletionServer(folder)), lambda number: "429:3" if number == 6 else None)
    begin = time.monotonic()
    outcome = icl_eval_command(*at(folder, url, f"hydra.run.dir={tmp_path}/run"))
    assert outcome.exit_code == 0, outcome.err
    assert time.monotonic() - begin > 3
    assert "429 not now; asked again in 3 s, as it asks" in outcome.err


def test_the_key_is_in_no_file_and_no_message(folder, serve, icl_eval_command, tmp_path, monkeypatch):
    url = serve(CompletionServer(folder, key=KEY))
    monkeypatch.setenv("MY_KEY", "wrong-" + KEY)
    options = ("engine.api_key_env=MY_KEY", f"hydra.run.dir={tmp_path}/run")
    outcome = icl_eval_command(*at(folder, url, *options))
    assert outcome.exit_code == 2
    assert "401 Incorrect API key: …" in outcome.err
    monkeypatch.setenv("MY_KEY", KEY)
    assert icl_eval_command(*at(folder, url, *options)).exit_code == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_a_password_in_the_address_is_refused_and_kept_nowhere(folder, icl_eval_command, tmp_path):
    outcome = icl_eval_command(*at(folder, f"http://me:{KEY}@127.0.0.1:9/v1", f"hydra.run.dir={tmp_path}/run"))
    assert outcome.exit_code == 2
    assert "engine.base_url: must hold no user, password or parameters" in outcome.err
    assert KEY not in outcome.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"sessions": null}', '{"sessions": [1]}', '{"sessions": [{"counts": {"prompt_tokens": "x"}}]}'],
)
def test_a_finished_run_is_scored_again_whatever_became_of_what_is_said_of_its_server(
    folder, icl_eval_command, tmp_path, content
):
    with serving(CompletionServer(folder)) as url:
        arguments = at(folder, url, "engine.prices={prompt: 1}", f"hydra.run.dir={tmp_path}/run")
        assert icl_eval_command(*arguments).exit_code == 0
    (tmp_path / "run" / "engine.json").write_text(content)
    outcome = icl_eval_command(*arguments)
    assert outcome.exit_code == 0, outcome.err


@pytest.mark.parametrize("key", ["sk-Secret\nkey", "sk-Sécret", "sk secret"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(folder, icl_eval_command, tmp_path, monkeypatch, key):
    monkeypatch.setenv("MY_KEY", key)
    options = ("engine.api_key_env=MY_KEY", f"hydra.run.dir={tmp_path}/run")
    outcome = icl_eval_command(*at(folder, "http://127.0.0.1:9/v1", *options))
    assert outcome.exit_code == 2
    sentence = "icl-eval: engine.api_key_env=MY_KEY: this environment variable holds a character that no key has\n"
    assert outcome.err == sentence


@pytest.mark.slow
def test_an_interrupted_run_ends_although_its_server_hangs(folder, serve, tmp_path):
    served = CompletionServer(folder, ["hang"])
    command = [sys.executable, "-m", "icl_eval", *at(folder, serve(served), f"hydra.run.dir={tmp_path}/run")]
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a script's background jobs are told to ignore it
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=listen) as process:
        while not any(body["max_tokens"] == 6 for body in served.bodies):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        message = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert message.splitlines()[-1] == "icl-eval: interrupted; repeat the command to resume"
    assert "Traceback" not in message


@pytest.mark.slow
def test_a_preview_says_what_a_run_costs_at_most(folder, serve, icl_eval_command, tmp_path):
    url = serve(CompletionServer(folder))
    options = ("engine.prices={prompt: 1000000, completion: 1000000}", "likelihood=references")
    shown = icl_eval_command("preview", *at(folder, url, *options)).out.splitlines()[-1]
    assert icl_eval_command(*at(folder, url, *options, f"hydra.run.dir={tmp_path}/run")).exit_code == 0
    counts = read_session(tmp_path / "run")["counts"]
    words = re.fullmatch(
        r"in all (\d+) requests of ([\d,]+) tokens, and up to (\d+) new tokens, at most (\S+) at engine.prices, "
        r"beside a probe of some hundred tokens",
        shown,
    )
    requests, tokens, new, cost = (float(word.replace(",", "")) for word in words.groups())
    assert requests == counts["requests"] - 6, "the probe"
    assert cost == pytest.approx(tokens + new, rel=1e-3)
    assert 0 < counts["prompt_tokens"] - tokens < 300
    assert counts["completion_tokens"] <= new + 41


@pytest.mark.slow
def test_a_finished_run_is_scored_again_without_the_server(folder, serve, icl_eval_command, tmp_path):
    with serving(CompletionServer(folder)) as url:
        arguments = at(folder, url, f"hydra.run.dir={tmp_path}/run")
        assert icl_eval_command(*arguments).exit_code == 0
    first = json.loads((tmp_path / "run" / "report.json").read_text())
    assert icl_eval_command(*arguments).exit_code == 0
    again = json.loads((tmp_path / "run" / "report.json").read_text())
    assert again["results"] == first["results"]
    assert again["provenance"]["engine"] == first["provenance"]["engine"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pace", "seconds"), [("engine.requests_per_minute=600", 0.1 * 9), ("engine.tokens_per_minute=6000", 5)]
)
def test_prices_and_rates_are_followed(folder, serve, icl_eval_command, tmp_path, pace, seconds):
    served = CompletionServer(folder)
    options = ("engine.prices={prompt: 1000, completion: 2000}", pace)
    begin = time.monotonic()
    outcome = icl_eval_command(*at(folder, serve(served), *options, f"hydra.run.dir={tmp_path}/run"))
    assert outcome.exit_code == 0, outcome.err
    assert len(served.bodies) == 10
    assert time.monotonic() - begin > seconds
    engine = json.loads((tmp_path / "run" / "report.json").read_text())["provenance"]["engine"]
    counts = engine["sessions"][0]["counts"]
    assert engine["cost"] == pytest.approx((counts["prompt_tokens"] + 2 * counts["completion_tokens"]) / 1000)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_where_it_was(folder, serve, expected, tmp_path):
    served = CompletionServer(folder)
    url = serve(served)
    run = tmp_path / "run"
    command = [sys.executable, "-m", "icl_eval", *at(folder, url, "engine.num_concurrent=1", f"hydra.run.dir={run}")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        while sum(body["max_tokens"] == 6 for body in served.bodies) < 3:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    subprocess.run(command, check=True, capture_output=True)
    assert read_records(run) == expected["null"]
    assert len(json.loads((run / "engine.json").read_text())["sessions"]) == 2
