"""Prompts that arrive one by one are decoded together, and come out as if each had been alone."""

import pytest
import torch
from architectures import build

from icl_eval.decoding import StreamDecoder
from icl_eval.errors import IclEvalError
from icl_eval.harnesses.gathering import CompletionRequest, Gatherer
from icl_eval.prompts.building import EncodedPrompt, Prompt

NUM_PROMPTS = 12


@pytest.fixture
def batches(monkeypatch):
    """Return a list that collects the number of prompts in each call of the decoder."""
    sizes = []
    stream = StreamDecoder.stream

    def listen(decoder, prompts, **options):
        sizes.append(len(prompts))
        return stream(decoder, prompts, **options)

    monkeypatch.setattr(StreamDecoder, "stream", listen)
    return sizes


def make_prompts():
    return [
        EncodedPrompt(Prompt("the same name", None, None), (), (*range(50, 80), 90 + n)) for n in range(NUM_PROMPTS)
    ]


def submit(gatherer, limits=lambda number: (8, ())):
    """Submit all prompts at once and return what holds their completions."""
    return [gatherer.submit(CompletionRequest(each, *limits(n))) for n, each in enumerate(make_prompts())]


def test_completions_are_those_of_each_prompt_alone_and_only_few_calls_are_needed(batches):
    model = build("llama", dtype=torch.float32)
    found = [future.result(60).token_ids for future in submit(Gatherer(model, None, 1000))]
    assert sum(batches) == NUM_PROMPTS
    assert len(batches) <= 2
    alone = [list(StreamDecoder(model, 8).stream([prompt]))[-1] for prompt in make_prompts()]
    assert found == [completion.token_ids for completion in alone]
    assert len(set(found)) > NUM_PROMPTS / 2


def test_each_prompt_keeps_its_own_limits(batches):
    model = build("llama", dtype=torch.float32)
    found = submit(Gatherer(model, None, 1000), limits=lambda number: (2 + number % 3, ()))
    assert [len(future.result(60).token_ids) for future in found] == [2 + number % 3 for number in range(NUM_PROMPTS)]
    assert len(batches) <= 6
    texts = [future.result(60).text for future in submit(Gatherer(model, None, 1000))]
    stopped = submit(Gatherer(model, None, 1000), limits=lambda number: (8, (texts[number][2],) * (number % 2)))
    for number, (text, future) in enumerate(zip(texts, stopped, strict=True)):
        assert future.result(60).text == (text.partition(text[2])[0] if number % 2 else text)


def test_the_end_of_a_turn_ends_a_completion():
    model = build("llama", dtype=torch.float32)
    whole = submit(Gatherer(model, None, 1000))[0].result(60).token_ids
    ended = submit(Gatherer(model, None, 1000, end_of_turn=whole[3]))[0].result(60)
    assert (ended.token_ids, ended.finish_reason) == (whole[: whole.index(whole[3]) + 1], "eos")


def test_an_error_reaches_everyone_who_waits_and_the_next_prompts_are_decoded():
    model = build("llama", dtype=torch.float32)
    gatherer = Gatherer(model, None, 1000)
    weights = model.network.get_input_embeddings().weight.data
    sound, weights[:] = weights.clone(), float("nan")
    errors = [future.exception(60) for future in submit(gatherer)]
    assert {type(error) for error in errors} == {IclEvalError}
    weights[:] = sound
    assert len(submit(gatherer)[0].result(60).token_ids) == 8
