"""Logits that are not numbers stop a run in one line, wherever they come up."""

import re

import pytest
import torch
from architectures import build
from reference_decoding import NEW_TOKENS

from icl_eval.commands.trace.tracer import Limits, Tracer
from icl_eval.decoding import LikelihoodScorer, build_decoder
from icl_eval.decoding.networks import decoder_of
from icl_eval.decoding.searches import Generate, Greedy, Sample
from icl_eval.errors import IclEvalError
from icl_eval.prompts.building import EncodedPrompt, Prompt
from icl_eval.prompts.tokenization import Continuations

DAMAGED = "the weights are damaged, or a change has damaged them"
NARROW = f"the range of bfloat16 may be too small for this model (try dtype=float32), or {DAMAGED}"
CAUSES = {torch.float32: f"float32: {DAMAGED}", torch.bfloat16: f"bfloat16: {NARROW}"}


def make_prompt(name, last_id):
    return EncodedPrompt(Prompt(name, None, None), (), (*range(50, 60), last_id))


def score(model, prompts):
    return list(LikelihoodScorer(model).score([Continuations(prompt, ((7, 8),)) for prompt in prompts]))


def trace(model, prompts):
    return [Tracer(model, Limits(NEW_TOKENS, ()), Greedy(), 1).trace(prompt) for prompt in prompts]


def search(chosen):
    return lambda model, prompts: list(build_decoder(model, chosen, NEW_TOKENS).stream(prompts))


WAYS = {
    "greedy": (search(Greedy()), "the largest logit"),
    "sample": (search(Sample(top_k=5, top_p=0.9)), "the largest logit"),
    "generate": (search(Generate({"num_beams": 2})), "a logit"),
    "drawn by generate": (search(Generate({"do_sample": True})), "a logit"),
    "trace": (trace, "the largest logit"),
    "likelihood": (score, "the log-probability of an answer"),
}


@pytest.mark.parametrize("dtype", CAUSES, ids=str)
@pytest.mark.parametrize(("way", "number"), WAYS.values(), ids=WAYS)
def test_the_question_is_named_at_which_logits_are_no_numbers(way, number, dtype):
    model = build("llama", dtype=dtype)
    sound, damaged = make_prompt("q1", 60), make_prompt("q2", 190)
    decoder_of(model.network).get_input_embeddings().weight.data[190] = float("nan")
    model.network.generation_config.suppress_tokens = [190]  # minus infinity, which is a number
    way(model, [sound])
    with pytest.raises(IclEvalError, match=f"^q2: {number} is not a finite number in {re.escape(CAUSES[dtype])}$"):
        way(model, [sound, damaged])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("way", ["greedy", "trace", "likelihood"])
def test_a_network_whose_logits_are_never_numbers_is_not_blamed_on_its_cache(way, value):
    model = build("gpt2", dtype=torch.float32)
    model.network.lm_head.weight.data[9] = value
    message = f"gpt2: the largest logit is not a finite number in {CAUSES[torch.float32]}"
    with pytest.raises(IclEvalError, match=f"^{re.escape(message)}$"):
        WAYS[way][0](model, [make_prompt("q1", 60)])
