import json
import sys

import pytest
import tiny_models
from started_servers import serve_with_transformers

pytestmark = pytest.mark.slow

QUICK = ("task=qa", "limit=6", "num_fewshot=1", "max_new_tokens=6")


def read_records(folder):
    return [json.loads(line) for line in (folder / "samples_qa.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "tiny"
    return tiny_models.save_llama(folder, chat_template=tiny_models.CHAT_TEMPLATE)


@pytest.fixture(scope="module")
def url(model, tmp_path_factory):
    with serve_with_transformers(sys.executable, model, tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.mark.parametrize("options", [(), ("template=chat", "engine.api=chat")], ids=["text", "turns"])
def test_the_texts_are_those_of_the_network_in_this_process(model, url, icl_eval_command, tmp_path, options):
    here, there = tmp_path / "here", tmp_path / "there"
    shared = (*QUICK, f"model.source={model}", *options[:1])
    assert icl_eval_command(*shared, f"hydra.run.dir={here}").exit_code == 0
    server = ("engine=openai", f"engine.base_url={url}", f"engine.model={model}", *options[1:])
    outcome = icl_eval_command(*shared, *server, f"hydra.run.dir={there}")
    assert outcome.exit_code == 0, outcome.err

    own, others = read_records(here), read_records(there)
    for key in ("completion", "prediction", "metrics", "prompt_tokens", "completion_tokens", "prompt_hash"):
        assert [record[key] for record in others] == [record[key] for record in own]
    assert {record["finish_reason"] for record in others} <= {"length", "stop", "unknown"}
    probe = json.loads((there / "engine.json").read_text())["sessions"][0]["probe"]
    assert probe["token_ids_taken"] is False
    assert probe["stop_strings"] == "kept"


def test_likelihoods_are_refused(model, url, icl_eval_command, tmp_path):
    outcome = icl_eval_command(
        *(*QUICK, f"model.source={model}", "engine=openai", f"engine.base_url={url}", f"engine.model={model}"),
        *("likelihood=references", f"hydra.run.dir={tmp_path}/run"),
    )
    assert outcome.exit_code == 2
    assert "takes no token ids, without which answers cannot be scored by likelihood" in outcome.err
