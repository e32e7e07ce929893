import errno
import re

import pytest
import torch
from architectures import DECODER_ONLY, EVERY_NETWORK, GROUPED, VOCABULARY, build
from reference_decoding import NEW_TOKENS, assert_as_generate, decode, generate, make_prompts, make_questions
from transformers import MistralConfig
from transformers.models.llama import modeling_llama

from icl_eval.decoding import Completion, LikelihoodScorer, StreamDecoder, Token
from icl_eval.decoding import capabilities as capabilities_module
from icl_eval.decoding import networks as networks_module
from icl_eval.decoding import opening as opening_module
from icl_eval.decoding import sessions as sessions_module
from icl_eval.decoding import stream as stream_module
from icl_eval.decoding.preparing import capabilities_of, forget
from icl_eval.decoding.sessions import SplitSession
from icl_eval.decoding.split_caches import SlotLayer
from icl_eval.errors import ConfigError, IclEvalError
from icl_eval.models.memory import is_out_of_memory
from icl_eval.prompts.building import EncodedPrompt, Prompt


@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_law_1_decoding_gives_the_tokens_of_generate_on_every_architecture(name):
    model = build(name)
    prompts = make_prompts(model)
    for batch_size in (None, 1, 3):
        assert_as_generate(model, prompts, batch_size=batch_size)


@pytest.mark.parametrize("name", ["gpt2", "llama", "phi", "t5"])
def test_law_1_holds_in_float32(name):
    model = build(name, seed=1, dtype=torch.float32)
    prompts = make_prompts(model, seed=2, count=24)
    for batch_size in (None, 5):
        assert_as_generate(model, prompts, batch_size=batch_size)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "opt", "phi", "phi3", "llama", "qwen2", "qwen3", "stablelm"])
def test_plain_attention_is_split(name):
    assert capabilities_of(build(name)).splits(10_000)


@pytest.mark.parametrize("name", ["bloom", "falcon", "gptj", "llama4", "t5"])
def test_what_split_attention_does_not_compute_is_not_split(name):
    assert not capabilities_of(build(name)).splits(1)


@pytest.mark.parametrize("name", ["mistral_sliding", "gemma3"])
def test_attention_is_split_as_long_as_no_window_is_reached(name):
    assert capabilities_of(build(name)).splits(7)
    assert not capabilities_of(build(name)).splits(8)


def test_nothing_that_a_network_makes_is_longer_than_its_rows(monkeypatch):
    model = build("opt")  # it makes a mask as long as the cache says that it is
    assert capabilities_of(model).split
    sizes, ones = [], torch.ones

    def measured_ones(*size, **options):
        made = ones(*size, **options)
        sizes.append(made.numel())
        return made

    monkeypatch.setattr(torch, "ones", measured_ones)
    list(StreamDecoder(model, NEW_TOKENS).stream(make_prompts(model)))
    assert 0 < max(sizes) < 1000


@pytest.mark.slow
def test_a_window_of_any_length_gives_the_tokens_of_generate(monkeypatch):
    copying = set()
    open_session = opening_module.open_session

    def listen(*given):
        opened = open_session(*given)
        if not isinstance(opened.session, SplitSession):
            copying.add(window)
        return opened

    monkeypatch.setattr(stream_module, "open_session", listen)
    for window in range(30, 48):
        monkeypatch.setitem(DECODER_ONLY, "mistral", (MistralConfig, GROUPED | {"sliding_window": window}))
        model = build("mistral")
        prompts = make_prompts(model)
        assert_as_generate(model, prompts, batch_size=5)
    longest = max(len(prompt.decoder_ids) for prompt in prompts) + NEW_TOKENS
    assert copying == set(range(30, longest + 1))


@pytest.mark.parametrize(
    ("name", "passes"), [("llama", [6, 3, 3, 3]), ("mistral", [6, 3, 3, 3, 3]), ("bloom", [6, 3, 3, 3])]
)
def test_a_trial_reads_the_weights_once_for_each_way_of_running_tokens(name, passes):
    model, widths = build(name), []
    model.network.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    capabilities_of(model)
    assert widths == passes


def test_a_network_that_cannot_go_on_from_its_cache_is_refused_in_one_line():
    message = (
        "mamba cannot be decoded token by token, because its logits with a key/value cache differ from those without: "
        "use decoding=generate, which decodes one prompt at a time"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        decode(build("mamba"), [])


def test_a_network_that_extends_a_prefix_wrongly_is_refused_even_if_rows_attend_to_it_rightly(monkeypatch):
    make_mask = modeling_llama.create_causal_mask

    def make_wrong_mask(past_key_values, **options):
        mask = make_mask(past_key_values=past_key_values, **options)
        return mask if mask is None or past_key_values.get_seq_length() == 0 else torch.ones_like(mask)

    monkeypatch.setattr(modeling_llama, "create_causal_mask", make_wrong_mask)
    with pytest.raises(ConfigError, match="its logits with a key/value cache differ from those without"):
        decode(build("llama"), [])


def test_a_network_that_fails_when_it_is_tried_is_refused_in_one_line_and_left_as_it_was(monkeypatch):
    def fail(*arguments):
        raise errors[-1]

    errors = []
    model = build("t5", dtype=torch.float32)
    monkeypatch.setattr(capabilities_module, "run", fail)
    for error, reason in (
        (AttributeError("no\nrouter_logits"), "AttributeError: no router_logits"),
        (AttributeError(), "AttributeError"),
        (RuntimeError("x" * 500), f"RuntimeError: {'x' * 184} …"),
    ):
        errors.append(error)
        message = (
            f"t5 cannot be decoded token by token, because its network fails ({reason}): "
            "use decoding=generate, which decodes one prompt at a time"
        )
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            decode(model, [])
    assert not any("forward" in vars(module) for module in model.network.modules())
    errors.append(torch.OutOfMemoryError("no memory left"))
    with pytest.raises(torch.OutOfMemoryError):
        decode(model, [])


@pytest.mark.parametrize("pad_id", [-1, VOCABULARY])
def test_a_padding_token_without_a_vector_is_no_reason_to_refuse_a_network(pad_id):
    model = build("bloom")
    model.network.config.pad_token_id = pad_id
    assert_as_generate(model, make_prompts(model, count=5))


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_callers_default_device_is_not_that_of_the_network(name):
    model, rules = build(name), {"repetition_penalty": 1.7, "min_new_tokens": 2, "bad_words_ids": [[11], [12, 13]]}
    for key, value in rules.items():
        setattr(model.network.generation_config, key, value)
    prompts, asked = make_prompts(model, count=5), make_questions(model, count=4)
    expected = decode(model, prompts), dict(LikelihoodScorer(model).score(asked))
    forget(model)
    with torch.device("meta"):
        found = decode(model, prompts), dict(LikelihoodScorer(model).score(asked))
        assert torch.get_default_device().type == "meta"
    assert found == expected


def test_positions_that_turn_differently_beyond_some_length_are_decoded_below_it_and_refused_beyond():
    model = build("phi3_longrope")
    limit = model.network.config.original_max_position_embeddings
    fits = EncodedPrompt(Prompt("fits", None, None), (), tuple(range(50, 50 + limit - NEW_TOKENS + 1)))
    assert_as_generate(model, [*make_prompts(model), fits])
    longer = EncodedPrompt(Prompt("longer", None, None), (), (*fits.decoder_ids, 7))
    message = (
        "phi3_longrope switches to other rotary frequencies beyond 45 tokens (longrope), and a prompt with its "
        "completion may have 46: use fewer demonstrations, or decoding=generate, which decodes one prompt at a time "
        "without a shared cache"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        next(StreamDecoder(model, NEW_TOKENS).stream([fits, longer]))


def test_a_padding_token_that_positions_pass_over_is_decoded_at_the_end_of_a_prompt_and_refused_before():
    model = build("m2m_100")
    pad_id = model.network.config.pad_token_id
    prompts = [
        EncodedPrompt(Prompt(f"p{n}", None, None), (50, pad_id, 51), (*range(60, 80), n, pad_id)) for n in range(10, 14)
    ]
    assert_as_generate(model, prompts, batch_size=2)
    within = EncodedPrompt(Prompt("within", None, None), (50,), (60, pad_id, 61))
    message = (
        f"m2m_100 skips {model.tokenizer.convert_ids_to_tokens(pad_id)!r} in its position ids, and a prompt contains "
        "that token: use decoding=generate, which decodes one prompt at a time without a shared cache"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        next(StreamDecoder(model, NEW_TOKENS).stream([*prompts, within]))
    model = build("bart")
    assert_as_generate(model, [*prompts, within], batch_size=2)


RULES = [
    {"eos_token_id": [17, 42, 77, 101, 133, 158, 190]},
    {"min_length": 28, "eos_token_id": list(range(10, 120))},
    {"min_new_tokens": 4, "eos_token_id": list(range(10, 120))},
    {"min_length": 40, "min_new_tokens": 2, "eos_token_id": list(range(10, 190))},
    {"suppress_tokens": list(range(10, 100)), "begin_suppress_tokens": list(range(100, 150))},
    {"forced_bos_token_id": 7, "forced_eos_token_id": 9},
    {"repetition_penalty": 1.7},
    {"no_repeat_ngram_size": 2, "bad_words_ids": [[11], [12, 13]]},
    {"encoder_repetition_penalty": 3.0, "encoder_no_repeat_ngram_size": 1},
    {"stop_strings": ["an", *"aeiou"]},
]


@pytest.mark.filterwarnings("ignore:Unfeasible length constraints")
@pytest.mark.parametrize("name", ["llama", "bart"])
@pytest.mark.parametrize("rules", RULES, ids=lambda rules: next(iter(rules)))
def test_the_generation_configs_rules_are_obeyed(name, rules):
    model = build(name, seed=3)
    for key, value in rules.items():
        setattr(model.network.generation_config, key, value)
    assert_as_generate(model, make_prompts(model, seed=4, count=8), batch_size=3)


def test_long_prompts_are_run_in_pieces(monkeypatch):
    model, widths = build("llama"), []
    prompts = make_prompts(model)
    capabilities_of(model)
    model.network.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    monkeypatch.setattr(networks_module, "MAX_PREFILL_TOKENS", 7)
    decoded = decode(model, prompts)
    assert max(widths) == 7
    assert decoded == decode(build("llama"), prompts)


def test_slots_are_as_many_and_as_long_as_the_rows_need(monkeypatch):
    model = build("llama")
    model.network.generation_config.eos_token_id = list(range(10, 60))  # rows end at different steps
    prompts = make_prompts(model, seed=5, count=60)
    capabilities_of(model)
    joins, sizes, shifts = [], [], []
    join, resize, move_columns = SplitSession.join, SplitSession._resize, SlotLayer.move_columns

    def resize_and_note(session, num_rows, num_columns):
        sizes.append((num_rows, len(session._firsts), num_columns - session._longest_own))
        resize(session, num_rows, num_columns)

    monkeypatch.setattr(sessions_module, "_ROOM", 2)
    monkeypatch.setattr(SplitSession, "join", lambda self, rows: joins.append(len(rows)) or join(self, rows))
    monkeypatch.setattr(SplitSession, "_resize", resize_and_note)
    monkeypatch.setattr(SlotLayer, "move_columns", lambda self, *where: shifts.append(1) or move_columns(self, *where))

    assert_as_generate(model, prompts, batch_size=4)

    assert max(joins) == 4
    assert len(joins) > 15
    assert shifts
    assert sizes[0] == (4, 4, 2)
    assert all(slots == rows for slots, rows, _ in sizes)
    assert max(new for *_, new in sizes) <= sessions_module.max_columns(0, NEW_TOKENS) == NEW_TOKENS + 4


@pytest.mark.parametrize("name", ["mistral_sliding", "t5"])
def test_what_a_group_begins_with_is_computed_once_where_it_has_many_sessions(name, monkeypatch):
    model, encoded, extended = build(name), [], []
    is_seq2seq = model.architecture == "encoder-decoder"
    shared = tuple(range(50, 70))
    prompts = [
        EncodedPrompt(Prompt(f"p{number}", None, None), shared if is_seq2seq else (), (*shared, 10 + number))
        for number in range(6)
    ]
    capabilities_of(model)
    encode, extend = opening_module.encode, opening_module.extend
    monkeypatch.setattr(opening_module, "encode", lambda *inputs: encoded.append(1) or encode(*inputs))
    monkeypatch.setattr(opening_module, "extend", lambda *inputs: extended.append(1) or extend(*inputs))
    assert_as_generate(model, prompts, batch_size=2, prefix_cache_mb=0)
    assert (len(encoded), len(extended)) == (int(is_seq2seq), 1)


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_when_memory_runs_out_rows_go_on_with_half_as_many(name, monkeypatch):
    model = build(name)
    prompts = make_prompts(model)
    expected = {prompt.prompt.example_id: generate(model, prompt) for prompt in prompts}
    advance = StreamDecoder._advance
    batches = []

    def run_out(self, rows, logits):
        batches.append(len(rows))
        if len(rows) > 3 and len(batches) > 2:
            raise torch.OutOfMemoryError("no memory left")
        yield from advance(self, rows, logits)

    monkeypatch.setattr(StreamDecoder, "_advance", run_out)
    events = list(StreamDecoder(model, NEW_TOKENS, batch_size=12).stream(prompts))

    completions = {event.example_id: event for event in events if isinstance(event, Completion)}
    tokens = {name: [e.id for e in events if isinstance(e, Token) and e.example_id == name] for name in expected}
    assert {name: completion.token_ids for name, completion in completions.items()} == expected
    assert {name: tuple(ids) for name, ids in tokens.items()} == expected, "no token twice"
    assert max(batches) > 3 >= batches[-1]


def test_when_memory_runs_out_rows_go_on_in_a_session_of_another_kind(monkeypatch):
    monkeypatch.setitem(DECODER_ONLY, "mistral", (MistralConfig, GROUPED | {"sliding_window": 40}))
    model = build("mistral")
    lengths = {"p0": 30, "p1": 18, "p2": 22, "p3": 24}  # with p0 a row reaches the window, without it none does
    prompts = [EncodedPrompt(Prompt(name, None, None), (), tuple(range(20, 20 + n))) for name, n in lengths.items()]
    advance, steps, kinds = StreamDecoder._advance, [], set()
    open_session = stream_module.open_session

    def run_out_once(self, rows, logits):
        steps.append(1)
        if len(steps) == 2:
            raise torch.OutOfMemoryError("no memory left")
        yield from advance(self, rows, logits)

    def listen(*given):
        opened = open_session(*given)
        kinds.add(type(opened.session))
        return opened

    monkeypatch.setattr(StreamDecoder, "_advance", run_out_once)
    monkeypatch.setattr(stream_module, "open_session", listen)
    assert_as_generate(model, prompts, batch_size=4)
    assert len(kinds) == 2


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_row_that_went_on_after_memory_ran_out_goes_beyond_no_position(attention, monkeypatch):
    model = build("gpt2")  # 128 positions
    model.network.set_attn_implementation(attention)
    lengths = [128 - NEW_TOKENS + 1] * 13 + [70] * 5  # after a failure six rows each: a row at the limit, five others
    prompts = [
        EncodedPrompt(Prompt(f"p{n}", None, None), (), (*range(10, 9 + k), n + 10)) for n, k in enumerate(lengths)
    ]
    advance, steps = StreamDecoder._advance, []

    def run_out_once(self, rows, logits):
        steps.append(len(rows))
        if len(steps) == 5:
            raise torch.OutOfMemoryError("no memory left")
        yield from advance(self, rows, logits)

    monkeypatch.setattr(StreamDecoder, "_advance", run_out_once)
    expected = {prompt.prompt.example_id: generate(model, prompt) for prompt in prompts}
    decoded = decode(model, prompts, batch_size=13)
    assert {name: completion.token_ids for name, completion in decoded.items()} == expected


def test_one_prompt_that_does_not_fit_is_said_in_one_line(monkeypatch):
    def run_out(*arguments):
        raise torch.OutOfMemoryError

    model = build("gpt2")
    monkeypatch.setattr(stream_module, "open_session", run_out)
    with pytest.raises(IclEvalError, match=r"^not enough memory for one prompt on cpu$"):
        list(StreamDecoder(model, 2).stream(make_prompts(model)[:1]))


def text_prompts(model, texts):
    ids = [tuple(id % VOCABULARY for id in model.tokenizer(text)["input_ids"]) for text in texts]
    return [EncodedPrompt(Prompt(text, None, text), (), own) for text, own in zip(texts, ids, strict=True)]


def test_law_5_pieces_joined_are_the_completion_and_no_stop_string_is_shown():
    model = build("llama", seed=6)
    prompts = text_prompts(model, ["one", "two words", "a third text, longer"])
    whole = decode(model, prompts)
    for prompt in prompts:
        name = prompt.prompt.example_id
        stop = whole[name].text[3:6]  # spans tokens

        events = list(StreamDecoder(model, NEW_TOKENS, stop=[stop, "never"]).stream([prompt]))

        completion = events[-1]
        assert completion.text == whole[name].text.split(stop)[0]
        assert "".join(event.text for event in events[:-1]) == completion.text
        assert completion.finish_reason == "stop"
        assert completion.token_ids == whole[name].token_ids[: len(completion.token_ids)]


def test_tokens_come_while_others_are_still_to_be_decoded():
    model = build("gpt2")
    stream = StreamDecoder(model, NEW_TOKENS, batch_size=2).stream(make_prompts(model))
    first, second, third = next(stream), next(stream), next(stream)
    assert {type(first), type(second), type(third)} == {Token}
    assert first.example_id != second.example_id
    assert first.example_id == third.example_id


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("could not create a memory object"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("could not create a primitive descriptor iterator"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("The size of tensor a (2) must match the size of tensor b (3)"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_that_say_that_memory_ran_out_are_known(error, expected):
    assert is_out_of_memory(error) is expected
