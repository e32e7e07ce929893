from types import SimpleNamespace

import torch
from architectures import build

from icl_eval.commands import doctor
from icl_eval.commands.doctor import compare
from icl_eval.decoding import Completion, StreamDecoder
from icl_eval.decoding import stream as greedy
from icl_eval.prompts.building import EncodedPrompt, Prompt


def test_ways_are_compared_token_by_token():
    first = {"a": (1, 2, 3), "b": (4, 5), "c": (6, 7, 8)}
    second = {"a": (1, 2, 3), "b": (4, 5, 9), "c": (6, 0, 8)}
    found = compare("one, other", first, second)
    assert (found.same, found.total, found.first_difference) == (1, 3, "token 2 of c")
    assert compare("same", first, first).first_difference == ""


def test_what_a_generation_config_demands_is_no_difference():
    model = build("bart", dtype=torch.float32)
    model.network.generation_config.forced_bos_token_id = 7
    prompts = [EncodedPrompt(Prompt(f"p{n}", None, None), tuple(range(20, 25 + n)), ()) for n in range(3)]
    task = SimpleNamespace(prompts=prompts, plan=SimpleNamespace(max_new_tokens=5))
    settings = {"suppress_tokens": list(range(100, 200))}
    events = StreamDecoder(model, 5, settings=settings).stream(prompts)
    chosen = {event.example_id: event.token_ids for event in events if isinstance(event, Completion)}
    assert doctor._without_cache(model, task, settings, chosen) == chosen


def test_a_sound_model_agrees_with_itself_and_an_unsound_one_is_found_out(icl_eval_command, gpt2, monkeypatch):
    arguments = ("doctor", f"model.source={gpt2}", "limit=3", "max_new_tokens=4", "num_fewshot=1")
    shown = icl_eval_command(*arguments)
    assert shown.exit_code == 0
    assert shown.out.count("3 of 3") >= 5  # bfloat16 against float32 may differ

    choose = greedy.choose

    def choose_by_batch(rows, logits, pick):
        return choose(rows, -logits if len(rows) > 1 else logits, pick)

    monkeypatch.setattr(greedy, "choose", choose_by_batch)
    shown = icl_eval_command(*arguments)
    assert "float32: alone, batched" in shown.out
    assert "0 of 3" in shown.out
    assert "token 1 of" in shown.out


def test_a_second_task_is_refused(icl_eval_command, gpt2):
    outcome = icl_eval_command("doctor", f"model.source={gpt2}", "task=[qa,math]")
    assert outcome.exit_code == 2
    assert outcome.err == "icl-eval: doctor: needs a single task, such as task=qa (selected tasks: qa, math)\n"
