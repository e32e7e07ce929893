import itertools
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from architectures import build
from reference_decoding import NEW_TOKENS, decode, generate, make_prompts
from scipy import stats
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from icl_eval.decoding import Completion, StreamDecoder, Token
from icl_eval.decoding.choosing import choose, draw, pick_most_likely, uniforms_of
from icl_eval.decoding.rules import Rules, apply_rules, start_ids
from icl_eval.decoding.searches import Sample
from icl_eval.errors import ConfigError
from icl_eval.prompts.building import EncodedPrompt, Prompt

CUTS = [
    {},
    {"temperature": 0.5},
    {"top_k": 4},
    {"top_p": 0.7},
    {"temperature": 1.5, "top_k": 20, "top_p": 0.9},
]


def test_draws_from_evenly_spread_variates_are_the_softmax():
    logits = torch.tensor([1.0, 0.0, float("-inf"), -1.5], dtype=torch.float64)
    points = 60
    middles = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    cube = torch.tensor(list(itertools.product(middles.tolist(), repeat=3)), dtype=torch.float64)
    uniforms = torch.stack([cube[:, 0], cube[:, 1], torch.full((len(cube),), 0.999), cube[:, 2]], dim=1)

    drawn = draw(logits.expand(len(cube), -1), uniforms)

    shares = torch.bincount(drawn, minlength=4) / len(cube)
    assert shares[2] == 0
    assert torch.allclose(shares.double(), logits.softmax(-1), atol=0.002)


def test_rules_compute_in_float32_as_those_of_generate_do():
    logits = torch.tensor([[10.0, 10.0625]], dtype=torch.bfloat16)  # which has no number between them
    rules = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(1.004)])  # makes the second one 10.022
    row = SimpleNamespace(example_id="q", rules=rules, history=(1,))
    assert choose([row], logits, pick_most_likely) == [1]


@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize("name", ["llama", "bart"])
def test_the_distribution_that_is_drawn_from_is_that_of_generate(name, cuts):
    model = build(name, seed=3, dtype=torch.float32)
    if name == "bart":
        model.network.generation_config.repetition_penalty = 1.3
    [prompt] = make_prompts(model, count=5)[:1]
    context = [*start_ids(model), *prompt.decoder_ids]
    inputs = {"input_ids": torch.tensor([context])}
    if prompt.encoder_ids:
        inputs = {"input_ids": torch.tensor([prompt.encoder_ids]), "decoder_input_ids": inputs["input_ids"]}
    with torch.inference_mode():
        logits = model.network(**inputs).logits[:, -1].float()
    rules = Rules(model.network, 4, Sample(**cuts).settings).for_row(context, prompt.encoder_ids)
    ours = apply_rules([rules], [context], logits).softmax(-1)

    torch.manual_seed(0)
    options = {
        "do_sample": True,
        "top_k": 0,
        "return_dict_in_generate": True,
        "output_scores": True,
        "max_new_tokens": 4,
    }
    theirs = model.network.generate(**inputs, **options | cuts, pad_token_id=0).scores[0].softmax(-1)

    assert torch.allclose(ours, theirs, atol=1e-6)
    assert ours.gt(0).sum() == theirs.gt(0).sum()


def test_cuts_of_a_models_generation_config_are_not_those_of_a_run():
    model = build("llama", dtype=torch.float32)
    for cut, value in {"min_p": 0.5, "typical_p": 0.1, "epsilon_cutoff": 0.1, "eta_cutoff": 0.1, "top_h": 0.1}.items():
        setattr(model.network.generation_config, cut, value)
    assert not Rules(model.network, 4, Sample().settings).for_row([5, 6], ())


def test_what_is_drawn_by_many_questions_is_distributed_as_the_model_says():
    model = build("llama", seed=3, dtype=torch.float32)
    ids = tuple(range(20, 40))
    prompts = [EncodedPrompt(Prompt(f"q{number}", None, None), (), ids) for number in range(3000)]
    search = Sample(temperature=1.5, top_k=8, seed=5)
    events = StreamDecoder(model, 1, batch_size=500, search=search).stream(prompts)
    counts = Counter(event.id for event in events if isinstance(event, Token))

    with torch.inference_mode():
        logits = model.network(input_ids=torch.tensor([ids])).logits[:, -1].float()
    rules = Rules(model.network, 1, search.settings).for_row(ids, ())
    expected = apply_rules([rules], [ids], logits)[0].double().softmax(-1)

    kept = expected.nonzero()[:, 0].tolist()
    assert set(counts) <= set(kept)
    found = stats.chisquare([counts[token] for token in kept], (expected[kept].double() * len(prompts)).tolist())
    assert found.pvalue > 0.01  # the same number every time: nothing here depends on luck


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_law_2_batch_size_order_and_company_change_no_draw(name):
    model = build(name, dtype=torch.float32)
    prompts = make_prompts(model)
    search = Sample(top_k=50)
    drawn = decode(model, prompts, search=search)
    assert decode(model, prompts, search=search, batch_size=1) == drawn
    assert decode(model, prompts[::-1], search=search, batch_size=3) == drawn
    for prompt in prompts[::4]:
        name = prompt.prompt.example_id
        assert decode(model, [prompt], search=search) == {name: drawn[name]}


def samples_of(model, prompts, num_samples, **options):
    search = Sample(top_k=50, num_samples=num_samples)
    events = StreamDecoder(model, NEW_TOKENS, search=search, **options).stream(prompts)
    completions = [event for event in events if isinstance(event, Completion)]
    assert len(completions) == num_samples * len(prompts)
    return {(one.example_id, one.sample): (one.token_ids, one.text, one.finish_reason) for one in completions}


@pytest.mark.parametrize("name", ["llama", "mistral_sliding", "t5"])
def test_law_2_the_first_samples_are_those_of_fewer_whatever_the_batch(name):
    model = build(name, dtype=torch.float32)
    prompts = make_prompts(model, count=8)
    drawn = samples_of(model, prompts, 3)
    assert len(set(drawn.values())) > 1.5 * len(prompts)
    for number, options in ((1, {}), (2, {"batch_size": 5})):
        fewer = samples_of(model, prompts, number, **options)
        assert fewer == {key: drawn[key] for key in drawn if key[1] < number}
    assert samples_of(model, prompts[::-1], 3, batch_size=1) == drawn
    single = decode(model, prompts, search=Sample(top_k=50))
    assert {one: drawn[one, 0][0] for one in single} == {one: single[one].token_ids for one in single}


@pytest.mark.parametrize("name", ["llama", "mistral_sliding"])
def test_the_samples_of_a_prompt_share_its_forward_pass(name, monkeypatch):
    model = build(name, dtype=torch.float32)
    [prompt] = make_prompts(model)[:1]
    fed = []
    forward = type(model.network).forward

    def listen(network, input_ids, **options):
        fed.append(tuple(input_ids.shape))
        return forward(network, input_ids=input_ids, **options)

    monkeypatch.setattr(type(model.network), "forward", listen)
    samples_of(model, [prompt], 6)
    assert fed[-NEW_TOKENS:] == [(1, len(prompt.decoder_ids)), *[(6, 1)] * (NEW_TOKENS - 1)]


def test_another_seed_and_another_question_with_the_same_prompt_are_drawn_apart():
    model = build("llama", dtype=torch.float32)
    prompt = make_prompts(model)[0]
    prompts = [EncodedPrompt(Prompt(name, None, None), (), prompt.decoder_ids) for name in "abcd"]
    first, other = (decode(model, prompts, search=Sample(seed=seed)) for seed in (0, 1))
    assert len({completion.token_ids for drawn in (first, other) for completion in drawn.values()}) == 8
    assert decode(model, prompts, search=Sample(seed=1)) == other


@pytest.mark.parametrize("search", [Sample(top_k=1), Sample(temperature=1e-30), Sample(top_p=1e-9)], ids=str)
def test_a_distribution_of_one_token_is_greedy_search(search):
    model = build("gpt2")
    prompts = make_prompts(model, count=6)
    drawn = decode(model, prompts, search=search)
    assert {name: drawn[name].token_ids for name in drawn} == {
        prompt.prompt.example_id: generate(model, prompt) for prompt in prompts
    }


def test_variates_depend_on_seed_example_and_place_alone():
    first = uniforms_of(0, "a", 0, 1000)
    assert torch.equal(first, uniforms_of(0, "a", 0, 1000))
    others = [uniforms_of(*key, 1000) for key in ((1, "a", 0), (0, "b", 0), (0, "a", 1), (0, "a1", 0), (0, "a", 10))]
    others += [uniforms_of(0, "a", 0, 1000, sample) for sample in (1, 2, 10)]
    for other in others:
        assert abs(float(torch.corrcoef(torch.stack([first, other]))[0, 1])) < 0.1
    assert stats.kstest(first.numpy(), "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"temperature": 0.0}, "temperature=0.0: must be more than 0 (greedy: decoding=greedy)"),
        ({"temperature": float("nan")}, "temperature=nan: must be more than 0 (greedy: decoding=greedy)"),
        (
            {"temperature": 1e-40},
            "temperature=1e-40: must be 1e-30 or more, so that the divided logits fit into float32 "
            "(greedy: decoding=greedy)",
        ),
        ({"top_k": 0}, "top_k=0: must be from 1 to 10000000, or null for all tokens"),
        ({"num_samples": 0}, "num_samples=0: must be from 1 to 1000"),
        ({"num_samples": 1001}, "num_samples=1001: must be from 1 to 1000"),
        ({"top_p": 0.0}, "top_p=0.0: must be more than 0 and at most 1, or null for all tokens"),
        ({"top_p": 1.5}, "top_p=1.5: must be more than 0 and at most 1, or null for all tokens"),
    ],
)
def test_an_option_that_is_out_of_range_is_one_sentence(options, sentence):
    with pytest.raises(ConfigError) as error:
        Sample(**options)
    assert str(error.value) == sentence
