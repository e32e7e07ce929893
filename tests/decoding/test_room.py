"""How many rows are decoded together, and which prefixes are kept, by arithmetic from configurations."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import kernel_stand_ins
import pytest
import torch
from architectures import DECODER_ONLY, build
from large_models import CONFIGS
from transformers import AutoModelForCausalLM, DeepseekV3Config, DynamicCache, FalconConfig, PreTrainedConfig

from icl_eval.decoding import LikelihoodScorer, memory
from icl_eval.decoding.memory import (
    MAX_ROWS,
    MAX_ROWS_ON_GPU,
    Lengths,
    NetworkSize,
    bias_bytes,
    choose_num_rows,
    count_worthwhile,
    free_bytes_of,
    pass_bytes,
    prompt_bytes,
    read_size,
    room_for_prefixes,
    round_up,
    rows_bytes,
)
from icl_eval.decoding.networks import most_prefill_tokens, new_cache, run
from icl_eval.decoding.prefixes import Key, PrefixStore, count_bytes
from icl_eval.decoding.preparing import capabilities_of
from icl_eval.decoding.sessions import max_columns
from icl_eval.decoding.split_attention import stores_scores
from icl_eval.decoding.split_caches import PassMask, SlotCache
from icl_eval.decoding.stream import StreamDecoder
from icl_eval.errors import IclEvalError, ModelUnavailableError
from icl_eval.models import loading
from icl_eval.models.loading import load_model
from icl_eval.models.specs import ModelSpec
from icl_eval.prompts.building import EncodedPrompt, Prompt
from icl_eval.prompts.tokenization import Continuations

GB = 10**9
CARDS = (16, 24, 80, 141)
TAKEN = 600_000_000
"""What the driver and the libraries take of a card."""
SETTINGS = ((1600, 60, 32), (4096, 200, 256), (32000, 200, 32))
"""Tokens of the shared prefix, of a question, and of a completion."""

BILLIONS = {
    "Llama-3.2-1B": 1.24,
    "Llama-2-7B": 6.74,
    "Mistral-7B": 7.25,
    "Llama-3-8B": 8.03,
    "Gemma-2-9B": 9.24,
    "Llama-2-13B": 13.02,
    "Qwen2.5-32B": 32.76,
    "Mixtral-8x7B": 46.7,
    "Llama-3-70B": 70.55,
    "Llama-3.1-405B": 405.85,
}
KILOBYTES = {  # of keys and values of a token, in bfloat16
    "Llama-3.2-1B": 33,
    "Llama-2-7B": 524,
    "Mistral-7B": 131,
    "Llama-3-8B": 131,
    "Gemma-2-9B": 344,
    "Llama-2-13B": 819,
    "Qwen2.5-32B": 262,
    "Mixtral-8x7B": 131,
    "Llama-3-70B": 328,
    "Llama-3.1-405B": 516,
}

# For bfloat16 and each card, where attention stores no scores: None if the weights do not fit, else the rows in each
# setting, 0 if not even one fits.
ROWS = {
    "Llama-3.2-1B": ((256, 256, 256), (256, 256, 256), (256, 256, 256), (256, 256, 256)),
    "Llama-2-7B": ((8, 0, 0), (80, 20, 0), (256, 160, 224), (256, 256, 256)),
    "Mistral-7B": ((16, 2, 0), (256, 80, 80), (256, 256, 256), (256, 256, 256)),
    "Llama-3-8B": (None, (224, 64, 48), (256, 256, 256), (256, 256, 256)),
    "Gemma-2-9B": (None, (48, 12, 0), (256, 224, 256), (256, 256, 256)),
    "Llama-2-13B": (None, None, (256, 80, 80), (256, 192, 256)),
    "Qwen2.5-32B": (None, None, (224, 64, 40), (256, 256, 256)),
    "Mixtral-8x7B": (None, None, None, (256, 256, 256)),
    "Llama-3-70B": (None, None, None, None),
    "Llama-3.1-405B": (None, None, None, None),
}


@cache
def count_parameters(name: str) -> int:
    with torch.device("meta"):
        number: int = AutoModelForCausalLM.from_config(CONFIGS[name]()).num_parameters()
    return number


def lengths_of(shared: int, own: int, new: int) -> Lengths:
    return Lengths(shared, max_columns(own, new), own, most_prefill_tokens(torch.device("cuda")))


@pytest.mark.parametrize("name", CONFIGS)
def test_sizes_are_read_from_the_configuration(name: str) -> None:
    config = CONFIGS[name]()
    assert round(count_parameters(name) / 1e9, 2) == BILLIONS[name]
    assert round(read_size(config, 2, True).bytes_per_token / 1000) == KILOBYTES[name]
    assert read_size(config, 4, True).bytes_per_token == 2 * read_size(config, 2, True).bytes_per_token
    experts = 2 if name == "Mixtral-8x7B" else 1  # that run for a token
    assert read_size(config, 2, True).intermediate_size == experts * config.intermediate_size


def test_many_prompts_are_worth_twice_as_many_rows_on_a_processor() -> None:
    size, lengths = read_size(CONFIGS["Llama-3.2-1B"](), 2, False), lengths_of(100, 10, 10)
    assert [choose_num_rows(count, size, lengths, 0, "cpu") for count in (1, 65, 255, 256)] == [1, 64, 64, 128]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("card", "number"), list(zip(CARDS, range(len(CARDS)), strict=True)))
def test_rows_fit_beside_weights_and_prefix(name: str, card: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config, expected = CONFIGS[name](), ROWS[name][number]
    weights = 2 * count_parameters(name)
    monkeypatch.setattr(loading, "free_bytes", lambda device: card * GB - TAKEN)
    if expected is None:
        with pytest.raises(ModelUnavailableError, match=rf"^{name} needs {weights / GB:,.1f} GB in bfloat16, and cuda"):
            loading._make_room(name, weights, "bfloat16", "cuda")
        return
    loading._make_room(name, weights, "bfloat16", "cuda")
    size = read_size(config, 2, stores_scores=False)
    for setting, rows in zip(SETTINGS, expected, strict=True):
        lengths = lengths_of(*setting)
        left = card * GB - TAKEN - weights - setting[0] * size.bytes_per_token
        if not rows:
            assert rows_bytes(size, lengths, 1) > left
            continue
        assert choose_num_rows(1000, size, lengths, left, "cuda") == rows
        assert rows_bytes(size, lengths, rows) <= (0.75 * left if rows > 1 else left)  # one is always tried
        assert rows == round_up(rows)
        assert rows == MAX_ROWS_ON_GPU or rows_bytes(size, lengths, round_up(rows + 1)) > 0.75 * left


@pytest.mark.parametrize("name", CONFIGS)
def test_a_prompt_needs_its_tokens_times_the_bytes_of_one_in_the_layers_that_keep_all(name: str) -> None:
    config = CONFIGS[name]()
    every_layer = 50_000 * read_size(config, 2, True).bytes_per_token
    kept = every_layer // 2 if name == "Gemma-2-9B" else every_layer  # every other of its layers has a window
    assert prompt_bytes(config, 2, 50_000) == kept
    assert prompt_bytes(config, 4, 50_000) == 2 * kept


def test_a_prompt_is_refused_before_it_is_computed_only_if_its_keys_and_values_cannot_fit(
    gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(ModelSpec(str(gpt2)))
    needed = prompt_bytes(model.network.config, 4, 30)
    prompt = EncodedPrompt(Prompt("one", None, "x"), (), tuple(range(5, 25)))
    for free, swap, fits in ((needed, 0, True), (needed - 1, 1, True), (0, 0, True), (needed - 1, 0, False)):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        monkeypatch.setattr(memory, "swap_bytes", lambda device, swap=swap: swap)
        if fits:
            assert len(list(StreamDecoder(model, 10).stream([prompt]))) > 1
            continue
        with pytest.raises(IclEvalError) as error:
            next(StreamDecoder(model, 10).stream([prompt]))
        assert str(error.value) == (
            "a prompt of 30 tokens needs 0.0 GB for its keys and values, and cpu has 0.0 GB free: lower num_fewshot, "
            "or use another dtype or a model with fewer key/value heads"
        )


def test_on_a_processor_rows_take_no_more_than_the_weights_or_half_a_gigabyte() -> None:
    size = NetworkSize(46_080, 9, 3, 64, 576, 1536, 49_152, 4, False)
    nothing_shared, short = Lengths(0, 700, 400, 512), Lengths(345, 350, 31, 512)
    assert count_worthwhile(538_000_000, size, nothing_shared) == 14
    assert count_worthwhile(538_000_000, size, short) == 188
    assert count_worthwhile(1_000, size, nothing_shared) == 13
    assert count_worthwhile(1_000, size, Lengths(0, 99_000, 90_000, 512)) == 1


def test_a_kernel_that_stores_no_scores_leaves_room_for_rows() -> None:
    config = CONFIGS["Qwen2.5-32B"]()
    size, lengths = read_size(config, 2, stores_scores=True), lengths_of(32000, 200, 32)
    left = 80 * GB - TAKEN - 2 * count_parameters("Qwen2.5-32B") - 32000 * size.bytes_per_token
    assert choose_num_rows(256, size, lengths, left, "cuda") == 1
    assert choose_num_rows(256, replace(size, stores_scores=False), lengths, left, "cuda") == 40


@pytest.mark.parametrize(
    ("name", "dtype", "stores"),
    [
        ("Llama-3.2-1B", torch.bfloat16, False),
        ("Qwen2.5-32B", torch.float32, False),
        ("Qwen2.5-32B", torch.float64, True),
    ],
)
def test_whether_a_gpu_stores_scores_follows_from_dtype_and_heads(
    name: str, dtype: torch.dtype, stores: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel_stand_ins.choose(monkeypatch, "cuda")
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(CONFIGS[name](), dtype=dtype)
    assert stores_scores(network, splits=True) is stores


def test_the_parts_of_a_pass_add_up() -> None:
    size = NetworkSize(
        bytes_per_token=100,
        num_heads=4,
        num_key_value_heads=2,
        head_size=8,
        hidden_size=32,
        intermediate_size=64,
        vocab_size=1000,
        item_bytes=2,
        stores_scores=True,
    )
    states = 10 * (4 * 32 + 2 * 4 * 8 + 3 * 64) * 2
    logits = 5 * 1000 * (2 + 8)
    scores, keys = 3 * 4 * 10 * 50 * 4, 2 * 2 * 8 * 50 * 4
    assert pass_bytes(size, 10, 5, 50) == states + logits + scores + keys
    assert pass_bytes(replace(size, stores_scores=False), 10, 5, 50) == states + logits
    lengths = Lengths(shared=50, columns=7, own=2, most_together=8)
    assert rows_bytes(size, lengths, 5) == 5 * 7 * 100 + pass_bytes(size, 8, 5, 50)
    assert rows_bytes(size, replace(lengths, most_together=None), 5) == 5 * 7 * 100 + pass_bytes(size, 10, 5, 50)


def test_where_free_memory_cannot_be_told_as_many_rows_as_pay_are_decoded_together() -> None:
    size, lengths = read_size(CONFIGS["Llama-3.2-1B"](), 2, True), lengths_of(0, 10, 10)
    assert choose_num_rows(5, size, lengths, 0, "cpu") == 5
    assert choose_num_rows(100, size, lengths, 0, "cpu") == MAX_ROWS
    assert choose_num_rows(1000, size, lengths, 0, "mps") == 2 * MAX_ROWS
    assert choose_num_rows(1000, size, lengths, 0, "cuda") == MAX_ROWS_ON_GPU == 256
    assert choose_num_rows(100, size, lengths, 1, "cpu") == 1
    assert room_for_prefixes(0, 10) == GB


@pytest.mark.parametrize("name", sorted(set(DECODER_ONLY) - {"mamba"}))
def test_the_size_of_a_token_is_what_a_cache_holds(name: str) -> None:
    model = build(name)
    capabilities = capabilities_of(model)
    if capabilities.split and capabilities.longest_whole is None:  # layers with a window store their lengths, too
        computed = read_size(model.network.config, model.network.dtype.itemsize, False).bytes_per_token
        assert computed == capabilities.bytes_per_token


LATENT = {"q_lora_rank": 8, "kv_lora_rank": 12, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8}
SMALL = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


@pytest.mark.parametrize(
    "config",
    [
        FalconConfig(**SMALL),  # one head of keys for all
        FalconConfig(**SMALL, multi_query=False),
        FalconConfig(**SMALL, new_decoder_architecture=True, num_kv_heads=2),
        DeepseekV3Config(**SMALL, **LATENT, first_k_dense_replace=2),
    ],
    ids=["falcon", "falcon heads", "falcon new", "deepseek"],
)
def test_a_prompt_needs_what_its_cache_takes_where_heads_share_keys(config: PreTrainedConfig) -> None:
    cache = new_cache(config)
    run(AutoModelForCausalLM.from_config(config).eval(), [range(20)], cache, None)
    assert prompt_bytes(config, 4, 20) == count_bytes(cache)


@pytest.mark.parametrize("name", ["t5", "umt5", "bart"])
def test_a_prompt_is_refused_if_the_position_biases_of_its_encoder_cannot_fit(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(name)
    layer = model.network.get_encoder().state_dict().get("block.0.layer.0.SelfAttention.relative_attention_bias.weight")
    needed = 0 if layer is None else layer.shape[1] * 20 * 20 * layer.dtype.itemsize
    assert bias_bytes(model.network.config, model.network.dtype.itemsize, 20) == needed
    prompt = EncodedPrompt(Prompt("one", "x", None), tuple(range(5, 25)), ())
    monkeypatch.setattr(memory, "prompt_bytes", lambda *_: 0)
    monkeypatch.setattr(memory, "swap_bytes", lambda device: 0)
    monkeypatch.setattr(memory, "free_bytes", lambda device: max(1, needed))
    assert len(list(StreamDecoder(model, 4).stream([prompt]))) > 1
    if needed:
        monkeypatch.setattr(memory, "free_bytes", lambda device: needed - 1)
        for run_prompt in (
            lambda: next(StreamDecoder(model, 4).stream([prompt])),
            lambda: next(LikelihoodScorer(model).score([Continuations(prompt, ((5,),))])),
        ):
            with pytest.raises(
                IclEvalError, match=r"^a prompt of 20 tokens needs 0\.0 GB for the position biases of its"
            ):
                run_prompt()


def test_a_prompt_has_room_where_prefixes_of_earlier_ones_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama")
    first, second = (
        [EncodedPrompt(Prompt(f"{n}", None, "x"), (), (*range(begin, begin + 40), n)) for n in (1, 2)]
        for begin in (10, 60)
    )
    list(StreamDecoder(model, 5).stream(first))
    needed = prompt_bytes(model.network.config, 8, 46)
    kept = prompt_bytes(model.network.config, 8, 40)
    monkeypatch.setattr(memory, "swap_bytes", lambda device: 0)
    monkeypatch.setattr(memory, "free_bytes", lambda device: needed - kept - 1)
    with pytest.raises(IclEvalError, match=r"^a prompt of 46 tokens needs 0\.0 GB"):
        next(StreamDecoder(model, 5).stream(second))
    monkeypatch.setattr(memory, "free_bytes", lambda device: needed - kept)
    assert len(list(LikelihoodScorer(model).score([Continuations(each, ((5,),)) for each in second]))) == 2
    assert len(list(StreamDecoder(model, 5).stream(second))) > 2


def test_layers_on_several_devices_fill_each_with_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    class Network:
        def parameters(self) -> list[torch.Tensor]:
            return self.tensors

        def __init__(self, *tensors: torch.Tensor):
            self.tensors = list(tensors)

    class OnDevice:
        def __init__(self, device: str, nbytes: int):
            self.device, self.nbytes = torch.device(device), nbytes

    free = {"cuda:0": 10, "cuda:1": 40}
    monkeypatch.setattr(memory, "free_bytes", lambda device: free[device])
    first, second, on_disk = OnDevice("cuda:0", 100), OnDevice("cuda:1", 300), OnDevice("meta", 1000)
    assert free_bytes_of(Network(first)) == 10  # type: ignore[arg-type]
    assert free_bytes_of(Network(first, on_disk)) == 10  # type: ignore[arg-type]
    assert free_bytes_of(Network(first, second)) == 40  # type: ignore[arg-type]  # a quarter of it on the first


# Kept prefixes


def cache_of(num_tokens: int) -> DynamicCache:
    """Return a cache of 8 bytes per token."""
    cache = DynamicCache()
    states = torch.zeros(1, 1, num_tokens, 1)
    cache.update(states, states, 0)
    return cache


def keep(store: PrefixStore, ids: tuple[int, ...], max_bytes: int | None, free: int) -> list[int]:
    """Keep a prefix and return the first ids of all that are kept then."""
    cache = store.get(Key((), ids), lambda start, rest: cache_of(len(ids)))
    store.evict(cache, max_bytes, lambda: free)
    return [key.decoder_ids[0] for key in store._kept]


def test_prefixes_are_kept_as_long_as_there_is_room() -> None:
    store = PrefixStore()
    assert keep(store, (1,) * 100, None, 10_000) == [1]
    assert keep(store, (2,) * 100, None, 10_000) == [1, 2]
    assert keep(store, (3,) * 100, None, 1_000) == [2, 3]  # half of 1,000 and 2,400 bytes is less than three
    assert keep(store, (4,) * 500, None, 1_000) == [4]  # in use, and kept although it is more than half
    assert keep(store, (5,) * 10, 100, 1_000_000) == [5]
    assert keep(store, (6,) * 20, 100, 1_000_000) == []


def test_no_more_prefixes_are_kept_than_a_new_one_can_be_compared_with() -> None:
    store = PrefixStore()
    for number in range(1, 200):
        kept = keep(store, (number,), None, GB)
        assert kept == list(range(max(1, number - 63), number + 1))


@pytest.mark.parametrize(
    ("name", "tokens", "card"), [("Llama-2-13B", 1600, 80), ("Llama-2-7B", 4096, 24), ("Llama-2-7B", 4096, 80)]
)
def test_a_long_prefix_of_a_large_model_is_kept_by_default(name: str, tokens: int, card: int) -> None:
    config = CONFIGS[name]()
    prefix = tokens * read_size(config, 2, True).bytes_per_token
    free = card * GB - TAKEN - 2 * count_parameters(name) - prefix
    assert prefix > GB  # more than the default of a gigabyte, under which it was computed for every task anew
    assert 0 < prefix <= room_for_prefixes(free, prefix)


def test_when_memory_runs_out_only_the_prefix_in_use_stays() -> None:
    store = PrefixStore()
    used = store.get(Key((), (1,)), lambda start, rest: cache_of(1))
    store.get(Key((), (2,)), lambda start, rest: cache_of(1))
    assert store.drop_others(used)
    assert not store.drop_others(used)
    assert store.get(Key((), (1,)), lambda start, rest: pytest.fail("computed again")) is used
    assert store.drop_others(None)


def test_a_mask_follows_each_layer_to_its_device() -> None:
    cache = SlotCache(num_rows=2, num_columns=4, prefix=[None, None])
    slots = cache.slots
    slots.rows, slots.first, slots.begin, slots.end = slice(0, 2), 0, 0, 3
    slots.mask = PassMask(torch.ones(2, 3, 3, dtype=torch.bool), torch.float32)
    for layer, device in zip(cache.slot_layers, ("cpu", "meta"), strict=True):
        states = torch.zeros(2, 1, 3, 4, device=device)
        keys, _ = layer.update(states, states)
        assert keys.own_keys.device.type == device
        assert keys.mask.lay_out(1, keys.own_keys.device).device.type == device
