import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError

import pytest
import torch
from architectures import build
from reference_decoding import NEW_TOKENS, decode, make_prompts

from icl_eval.decoding import Completion, Token, build_decoder
from icl_eval.decoding.generate import build_inputs
from icl_eval.decoding.rules import start_ids
from icl_eval.decoding.searches import OWN_OPTIONS, Generate, known_options
from icl_eval.errors import ConfigError

SEARCHES = [
    {"num_beams": 3},
    {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True},
    {"num_beams": 2, "no_repeat_ngram_size": 1},
    {"num_beams": 1, "repetition_penalty": 2.0},
]


def library_decode(model, prompts, options, **more):
    events = list(build_decoder(model, Generate(options, seed=7), NEW_TOKENS, **more).stream(prompts))
    assert {type(event) for event in events} == {Token, Completion}
    return {event.example_id: event for event in events if isinstance(event, Completion)}


@pytest.mark.parametrize("options", SEARCHES, ids=str)
@pytest.mark.parametrize("name", ["llama", "bart"])
def test_the_tokens_are_those_of_generate_with_the_same_options(name, options):
    model = build(name, seed=3, dtype=torch.float32)
    model.network.generation_config.eos_token_id = list(range(10, 40))
    prompts = make_prompts(model, count=6)
    greedy = decode(model, prompts)  # our attention is in the network from here on

    found = library_decode(model, prompts, options)

    for prompt in prompts:
        context = len(start_ids(model)) + len(prompt.decoder_ids)
        inputs = build_inputs(model, prompt)
        expected = model.network.generate(**inputs, **options, do_sample=False, max_new_tokens=NEW_TOKENS)
        completion = found[prompt.prompt.example_id]
        assert completion.token_ids == tuple(expected[0, context:].tolist())
        ended = completion.token_ids[-1] in model.network.generation_config.eos_token_id
        assert completion.finish_reason == ("eos" if ended else "length")
    assert {name: completion.token_ids for name, completion in found.items()} != {
        name: completion.token_ids for name, completion in greedy.items()
    }


def test_without_options_generate_and_the_stream_say_the_same():
    model = build("gpt2")
    prompts = make_prompts(model)
    assert library_decode(model, prompts, {"num_beams": 1, "do_sample": False}) == decode(model, prompts)


def test_what_a_models_generation_config_says_of_a_runs_own_options_is_passed_over():
    model = build("gpt2")
    prompts = make_prompts(model, count=6)[:2]
    options = {"num_beams": 3}
    expected = library_decode(model, prompts, options)
    config = model.network.generation_config
    config.return_dict_in_generate, config.num_return_sequences, config.max_time = True, 3, 0.0
    assert library_decode(model, prompts, options) == expected


def test_an_encoder_reads_long_inputs_as_before_after_a_short_one():
    prompts = make_prompts(build("bigbird_pegasus"))
    assert {len(prompt.encoder_ids) < 15 for prompt in prompts} == {True, False}, "full attention, and sparse"
    alone = {}
    for prompt in prompts:
        alone |= library_decode(build("bigbird_pegasus"), [prompt], {"num_beams": 1})
    assert library_decode(build("bigbird_pegasus"), prompts, {"num_beams": 1}) == alone
    assert decode(build("bigbird_pegasus"), prompts) == alone


def test_memory_that_runs_out_in_generate_is_not_blamed_on_its_options(monkeypatch):
    model = build("gpt2")

    def generate(**told):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(model.network, "generate", generate)
    with pytest.raises(torch.OutOfMemoryError):
        library_decode(model, make_prompts(model)[:1], {})


def test_a_network_that_our_decoder_refuses_is_decoded_by_the_library():
    model = build("mamba")
    prompts = make_prompts(model, count=6)

    found = library_decode(model, prompts, {})

    for prompt in prompts:
        expected = model.network.generate(**build_inputs(model, prompt), do_sample=False, max_new_tokens=NEW_TOKENS)
        assert found[prompt.prompt.example_id].token_ids == tuple(expected[0, len(prompt.decoder_ids) :].tolist())


def test_what_generate_draws_depends_on_seed_and_question_and_on_no_neighbour():
    model = build("llama", dtype=torch.float32)
    prompts = make_prompts(model, count=6)
    options = {"do_sample": True, "temperature": 1.5}
    state = torch.get_rng_state()
    drawn = library_decode(model, prompts, options)
    assert torch.equal(torch.get_rng_state(), state)
    assert library_decode(model, prompts[::-1], options) == drawn
    assert library_decode(model, prompts[2:3], options) == {"p2": drawn["p2"]}
    assert drawn["p0"].token_ids != drawn["p5"].token_ids, "the same prompt, asked by two questions"
    other = build_decoder(model, Generate(options, seed=8), NEW_TOKENS).stream(prompts[2:3])
    assert [event for event in other if isinstance(event, Completion)] != [drawn["p2"]]


@pytest.mark.parametrize("neighbour", [{"do_sample": True}, {"num_beams": 2}])
def test_what_generate_draws_depends_on_no_other_thread(neighbour):
    models, searches = [build("llama"), build("llama", seed=1)], [{"do_sample": True}, neighbour]
    asked = [[prompt] for prompt in make_prompts(models[0], count=6)[:2]]
    expected = list(map(library_decode, models, asked, searches))
    together = Barrier(2)

    def wait(generate):
        def generate_together(**inputs):
            with suppress(BrokenBarrierError):
                together.wait(timeout=0.2)
            return generate(**inputs)

        return generate_together

    for model in models:
        model.network.generate = wait(model.network.generate)
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(library_decode, models, asked, searches)) == expected


def test_a_stop_string_ends_a_completion_of_generate_as_it_does_in_the_stream():
    model = build("gpt2")
    prompts = make_prompts(model, count=5)
    whole = decode(model, prompts)
    stop = [next(completion.text for completion in whole.values() if len(completion.text) > 4)[2:4]]
    stopped = decode(model, prompts, stop=stop)
    assert any(completion.finish_reason == "stop" for completion in stopped.values())
    assert library_decode(model, prompts, {"num_beams": 1}, stop=stop) == stopped


def test_a_models_own_stop_strings_end_a_completion_besides_those_of_the_run():
    model = build("gpt2")
    prompts = make_prompts(model, count=8)
    stopped = decode(model, prompts, stop=["e", "i"])
    assert any(completion.finish_reason == "stop" for completion in stopped.values())
    model.network.generation_config.stop_strings = "e"
    assert decode(model, prompts, stop=["i"]) == stopped
    assert library_decode(model, prompts, {"num_beams": 1}, stop=["i"]) == stopped


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_beems": 2}, f"options.num_beems: not an option of generate; known: {', '.join(known_options())}"),
        (
            {"max_length": 2},
            "options.max_length: not an option of generate that can be set here (a run sets it itself); "
            f"known: {', '.join(known_options())}",
        ),
        (
            {"watermarking_config": {"bias": 2.0}},
            "options.watermarking_config: not an option of generate that can be set here (a run sets it itself); "
            f"known: {', '.join(known_options())}",
        ),
        (
            {"temperature": 0.5},
            "options: `temperature`: `do_sample` is not set to `True`. However, `temperature` is set to `0.5` "
            "-- this flag is only used in sample-based generation modes. You should set `do_sample=True` or unset "
            "`temperature`.",
        ),
        (
            {"do_sample": True, "temperature": 0.0},
            "decoding.options: generate rejects them: `temperature` (=0.0) has to be a strictly positive float, "
            "otherwise your next token scores will be invalid. If you're looking for greedy decoding strategies, "
            "set `do_sample=False`.",
        ),
        (
            {"do_sample": True, "temperature": 1e-40},
            "decoding.options: generate rejects them: probability tensor contains either `inf`, `nan` or element < 0",
        ),
        (
            {"num_beams": 1, "forced_eos_token_id": 999},
            "decoding.options: generate rejects them: index 999 is out of bounds for dimension 0 with size 200",
        ),
    ],
)
def test_an_option_that_generate_does_not_take_is_one_sentence(options, sentence):
    model = build("gpt2")
    with pytest.raises(ConfigError) as error:
        library_decode(model, make_prompts(model)[:1], options)
    assert " ".join(str(error.value).split()) == sentence


def test_what_a_run_decides_itself_exists_in_the_library_under_that_name():
    from transformers import GenerationConfig

    assert set(OWN_OPTIONS) <= set(GenerationConfig().to_dict())
    assert set(OWN_OPTIONS).isdisjoint(known_options())


QUICK = ("task=qa", "limit=3", "num_fewshot=2", "max_new_tokens=5", "hydra.run.dir=run")


@pytest.mark.parametrize("decoding", ["sample", "generate"])
def test_a_run_says_its_search_and_options_and_goes_on_from_its_records(decoding, icl_eval_command, gpt2, tmp_path):
    overrides = (f"model.source={gpt2}", *QUICK, f"decoding={decoding}")
    assert icl_eval_command(*overrides).exit_code == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    samples = (tmp_path / "run" / "samples_qa.jsonl").read_bytes()

    said = report["run"]["decoding"]
    options = {"sample": {"temperature": 1.0, "top_k": None, "top_p": None}, "generate": {"num_beams": 4}}[decoding]
    assert (said["search"], said["options"]) == (decoding, options | {"seed": 0})
    assert (report["results"]["qa"]["counts"]["prefix_tokens_reused"] > 0) == (decoding == "sample")

    torn = samples.splitlines(keepends=True)
    (tmp_path / "run" / "samples_qa.jsonl").write_bytes(torn[0] + torn[2])
    assert icl_eval_command(*overrides).exit_code == 0
    assert (tmp_path / "run" / "samples_qa.jsonl").read_bytes() == samples

    refused = icl_eval_command(*overrides, "decoding.seed=1")
    assert refused.exit_code == 2
    assert "contains a run with other options (decoding.seed: 0 there, 1 now)" in refused.err


def test_a_batch_for_generate_and_a_diagnosis_of_draws_are_refused(icl_eval_command, gpt2):
    outcome = icl_eval_command(f"model.source={gpt2}", *QUICK, "decoding=generate", "batch_size=2")
    assert (outcome.exit_code, outcome.err) == (
        2,
        "icl-eval: batch_size=2: must be auto or 1: decoding=generate runs one prompt at a time\n",
    )
    outcome = icl_eval_command("doctor", f"model.source={gpt2}", "decoding=sample")
    assert (outcome.exit_code, outcome.err) == (
        2,
        "icl-eval: decoding=sample: the doctor compares greedy search only; use greedy\n",
    )
