"""A network is its caller's: what they change is seen by the next call, and what we change is never seen."""

from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

import pytest
import torch
from architectures import build
from reference_decoding import (
    NEW_TOKENS,
    assert_as_generate,
    decode,
    generate,
    make_prompts,
    make_questions,
    plain_scores,
)
from torch.nn.utils import prune

from icl_eval.commands.trace.attention import read_last_token
from icl_eval.commands.trace.repetition import draw_sequences, score_repetition
from icl_eval.commands.trace.tracer import Limits, Tracer
from icl_eval.decoding import Completion, LikelihoodScorer, StreamDecoder
from icl_eval.decoding.generate import GenerateDecoder
from icl_eval.decoding.preparing import capabilities_of, prepare
from icl_eval.decoding.rules import start_ids
from icl_eval.decoding.searches import Greedy
from icl_eval.errors import ConfigError
from icl_eval.models.switching import evaluating
from icl_eval.prompts.building import EncodedPrompt, Prompt

ATTENTION_OUT = {
    "gpt2": "transformer.h.0.attn.c_proj",
    "llama": "model.layers.0.self_attn.o_proj",
    "t5": "decoder.block.0.layer.0.SelfAttention.o",
}
FEED_FORWARD = {
    "gpt2": "transformer.h.1.mlp",
    "llama": "model.layers.1.mlp",
    "t5": "encoder.block.0.layer.1.DenseReluDense",
}


def build_callers(name):
    """A network as its owner may hand it in: partly in training mode, with gradients, in a dtype that is laid out."""
    model = build(name, seed=1, dtype=torch.float32)
    model.network.train().requires_grad_(True)
    if name in FEED_FORWARD:
        model.network.get_submodule(FEED_FORWARD[name]).eval()
    return model


@pytest.fixture(params=ATTENTION_OUT)
def model(request):
    return build_callers(request.param)


def heads(model, begin):
    """The weights by which two heads of the first attention layer reach what follows."""
    weight = model.network.get_submodule(ATTENTION_OUT[model.name]).weight
    return weight.narrow(0 if model.name == "gpt2" else 1, begin, 16)


def ablate(model):
    with torch.no_grad():
        heads(model, 0).zero_()


def ablate_through_data(model):
    heads(model, 16).data.zero_()


def permute_through_data(model):
    weight = model.network.get_submodule(FEED_FORWARD[model.name] + WIDENING[model.name]).weight
    weight.data[:] = weight.data.flip(0).flip(1)


WIDENING = {"gpt2": ".c_fc", "llama": ".up_proj", "t5": ".wi"}


def train_a_step(model):
    optimizer = torch.optim.SGD(model.network.parameters(), lr=0.3)
    ids = torch.arange(20, 32)[None]
    model.network(input_ids=ids, labels=ids).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.network.parameters(), 10.0)
    optimizer.step()
    optimizer.zero_grad()


def load_other_weights(model):
    model.network.load_state_dict(build(model.name, seed=5, dtype=torch.float32).network.state_dict())


def feed_forward(model):
    name, _, child = FEED_FORWARD[model.name].rpartition(".")
    return model.network.get_submodule(name), child


def swap_a_module(model):
    parent, child = feed_forward(model)
    setattr(parent, child, getattr(feed_forward(build(model.name, seed=6, dtype=torch.float32))[0], child))


GOES_BY = [0.0]
"""What code of the caller's goes by; nothing in the network shows it."""


class Scaled(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *inputs):
        return self.module(*inputs) * GOES_BY[-1]


def wrap_a_module(model):
    parent, child = feed_forward(model)
    setattr(parent, child, Scaled(getattr(parent, child)))
    GOES_BY[:] = [-1.0]


def change_what_the_module_goes_by(model):
    GOES_BY.append(3.0)


def steer(model):
    layer = model.network.get_submodule(ATTENTION_OUT[model.name])
    GOES_BY[:] = [20.0]
    direction = torch.linspace(-2, 2, 32)
    layer.handle = layer.register_forward_hook(lambda module, inputs, out: out + GOES_BY[-1] * direction)


def steer_the_other_way(model):
    GOES_BY.append(-30.0)


def stop_steering(model):
    model.network.get_submodule(ATTENTION_OUT[model.name]).handle.remove()


def override_a_forward(model):
    parent, child = feed_forward(model)
    forward = getattr(parent, child).forward
    getattr(parent, child).forward = lambda *inputs: -2 * forward(*inputs)


def give_the_forward_back(model):
    parent, child = feed_forward(model)
    del getattr(parent, child).forward


def prune_a_layer(model):
    prune.random_unstructured(model.network.lm_head, "weight", 0.5)


def prune_more_of_it(model):
    model.network.lm_head.weight_mask.data[:100] = 0


CHANGES = {
    "heads": (ablate, ablate_through_data, permute_through_data),
    "hooks": (steer, steer_the_other_way, stop_steering),
    "training": (train_a_step, train_a_step),
    "weights and modules": (load_other_weights, swap_a_module, ablate),
    "a module of the caller's": (wrap_a_module, change_what_the_module_goes_by),
    "forward": (override_a_forward, give_the_forward_back),
    "pruning": (prune_a_layer, prune_more_of_it),
}


@contextmanager
def at_rest(network):
    """Turn dropout off for the library's own run, as ours does for itself."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    with torch.no_grad():
        yield
    for module in training:
        module.training = True


def stream(model, prompts, asked):
    return {name: completion.token_ids for name, completion in decode(model, prompts).items()}


def trace(model, prompts, asked):
    tracer = Tracer(model, Limits(NEW_TOKENS, ()), Greedy(), 1)
    return {prompt.prompt.example_id: tracer.trace(prompt).completion.token_ids for prompt in prompts}


def generate_all(model, prompts, asked):
    decoder = GenerateDecoder(model, Greedy().settings, NEW_TOKENS)
    return {prompt.prompt.example_id: decoder.generate(prompt) for prompt in prompts}


def score(model, prompts, asked):
    return dict(LikelihoodScorer(model).score(asked))


def read_heads(model, prompts, asked):
    ids = (*start_ids(model), *prompts[0].decoder_ids)
    last = read_last_token(model, prompts[0].encoder_ids, ids, "self")
    return score_repetition(model, draw_sequences(model)[:1]), [layer.tolist() for layer in last]


WAYS = (stream, trace, generate_all, score, read_heads)


@pytest.mark.slow
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_what_the_caller_changes_is_seen_by_the_next_call(model, changes):
    prompts, asked = make_prompts(model, count=5), make_questions(model, count=4)
    prompts = [prompts[number] for number in (0, 1, 4)]  # those with a common beginning, which is kept
    for _ in range(2):  # what is kept of one call is used by the next
        before = stream(model, prompts, asked)
    for change in changes:
        change(model)
        with at_rest(model.network):
            expected = {prompt.prompt.example_id: generate(model, prompt) for prompt in prompts}
            logprobs = [plain_scores(model, each) for each in asked]
        assert expected != before, "the change makes a difference"
        for way in WAYS[:3]:
            assert way(model, prompts, asked) == expected, (change.__name__, way.__name__)
        found = score(model, prompts, asked)
        for number, texts in enumerate(logprobs):
            for values, ours in zip(texts, found[number], strict=True):
                assert ours.logprobs == pytest.approx(values.logprobs, abs=0.02), change.__name__
        before = expected


def snapshot(network):
    """Everything that we could have left in a network."""
    modules = [
        (module, module.training, vars(module).get("forward"), sorted(vars(module)), tuple(module._modules.values()))
        for module in network.modules()
    ]
    hooks = [(*module._forward_hooks.values(), *module._forward_pre_hooks.values()) for module in network.modules()]
    configs = [module.config._attn_implementation for module in network.modules() if hasattr(module, "config")]
    kinds = [getattr(module, "attention_type", None) for module in network.modules()]
    parameters = [(id(each), each.data_ptr(), each._version, each.requires_grad) for each in network.parameters()]
    return modules, hooks, configs, kinds, parameters


@pytest.mark.parametrize("name", [*ATTENTION_OUT, "bigbird_pegasus"])
@pytest.mark.parametrize("way", WAYS)
def test_a_network_is_what_it_was_after_every_call(way, name):
    model = build_callers(name)
    prompts, asked = make_prompts(model, count=5), make_questions(model, count=4)
    before = snapshot(model.network)
    way(model, prompts, asked)
    assert snapshot(model.network) == before


@pytest.mark.parametrize("way", WAYS)
def test_a_callers_autocast_changes_no_result_and_stays_on(model, way):
    prompts, asked = make_prompts(model, count=5), make_questions(model, count=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = way(model, prompts, asked)
        assert torch.is_autocast_enabled("cpu")
    assert found == way(build_callers(model.name), prompts, asked)


def test_a_network_that_showed_its_hidden_states_is_still_known():
    model = build_callers("llama")
    before = model.pin().identity
    model.network(input_ids=torch.arange(20, 25)[None], output_hidden_states=True)
    assert any(module._forward_hooks for module in model.network.modules()), "transformers leaves its hooks"
    assert model.pin().identity == before


class StopHereError(Exception):
    pass


@pytest.mark.parametrize("way", WAYS)
def test_a_network_is_what_it_was_when_a_call_fails(model, way):
    calls = []

    def fail_in_the_end(module, inputs):
        calls.append(1)
        if len(calls) == most:
            raise StopHereError

    prompts, asked = make_prompts(model, count=5), make_questions(model, count=4)
    model.network.get_submodule(ATTENTION_OUT[model.name]).register_forward_pre_hook(fail_in_the_end)
    before, most = snapshot(model.network), 0
    way(model, prompts, asked)
    most, calls[:] = len(calls), []
    with pytest.raises(StopHereError):
        way(model, prompts, asked)
    assert snapshot(model.network) == before


def test_a_network_is_its_callers_whenever_a_stream_waits(model):
    prompts = make_prompts(model, count=5)
    with at_rest(model.network):
        expected = {prompt.prompt.example_id: generate(model, prompt) for prompt in prompts}
    before = snapshot(model.network)
    completions = {}
    one, other = (StreamDecoder(model, NEW_TOKENS, batch_size=size).stream(prompts) for size in (2, 3))
    for event, _ in zip(one, other, strict=True):
        assert snapshot(model.network) == before
        if isinstance(event, Completion):
            completions[event.example_id] = event.token_ids
    assert completions == expected

    for leave in (lambda stream: stream.close(), lambda stream: None):
        stream = StreamDecoder(model, NEW_TOKENS).stream(prompts)
        next(stream)
        with at_rest(model.network):
            assert generate(model, prompts[0]) == expected["p0"]
        leave(stream)
        del stream
        assert snapshot(model.network) == before


@pytest.mark.parametrize("shared", [range(60, 70), ()], ids=["a prefix", "the encoder's input alone"])
def test_a_change_while_a_stream_waits_leaves_nothing_behind_when_it_is_taken_back(shared):
    model = build_callers("t5")
    own = [(n,) if shared else (70 + n, 80) for n in range(4)]
    prompts = [EncodedPrompt(Prompt(f"p{n}", None, None), (50 + n // 2,) * 8, (*shared, *own[n])) for n in range(4)]
    expected = stream(build_callers("t5"), prompts, None)
    weight = model.network.get_submodule("decoder.block.0.layer.0.layer_norm").weight
    kept = weight.detach().clone()
    waiting = StreamDecoder(model, NEW_TOKENS).stream(prompts)
    next(waiting)
    weight.data.zero_()
    assert len(list(waiting)) > NEW_TOKENS
    weight.data.copy_(kept)
    assert stream(model, prompts, None) == expected


def test_what_a_network_supports_is_measured_again_when_its_numbers_change():
    model = build("llama4")  # its scale of queries goes by the place in the cache
    prompts = make_prompts(model, count=5)
    kept = [parameter.detach().clone() for parameter in model.network.parameters()]
    for parameter in model.network.parameters():
        parameter.data.zero_()
    assert capabilities_of(model).split, "where all logits are equal"
    for parameter, numbers in zip(model.network.parameters(), kept, strict=True):
        parameter.data.copy_(numbers)
    assert_as_generate(model, prompts)


def test_a_network_in_training_is_read_as_its_caller_left_it_while_another_thread_runs_it():
    model = build("gpt2")
    model.network.train()

    def run(evaluates):
        with evaluating(model.network) if evaluates else prepare(model).accelerated():
            return model.network.training

    with ThreadPoolExecutor(2) as threads:
        with evaluating(model.network):
            modes = [threads.submit(run, evaluates) for evaluates in (True, False)]
            wait(modes, timeout=0.2)
        assert [mode.result() for mode in modes] == [False, False]
    assert model.network.training


def test_a_hook_that_goes_by_the_place_in_a_pass_is_refused_since_passes_differ():
    def change_the_last(module, inputs, output):
        return torch.cat([output[:, :-1], -output[:, -1:]], dim=1)

    model = build_callers("llama")
    model.network.model.layers[0].mlp.register_forward_hook(change_the_last)
    with pytest.raises(ConfigError, match=r"^llama cannot be decoded token by token, because its logits with"):
        decode(model, make_prompts(model))
