"""Attention by kernels: which one is chosen, what each of them computes, and what a step on a GPU waits for.

Nothing here runs on a GPU. The kernels of one are run on meta tensors, for shapes and dtypes, and stood in for on the
processor (`kernel_stand_ins`), for the code around them.
"""

import logging
from dataclasses import replace

import kernel_stand_ins
import pytest
import torch
from architectures import build
from attention_parts import attend_to_all, make_parts
from large_models import CONFIGS
from reference_decoding import assert_as_generate, decode, make_prompts, make_questions
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    DeepseekV3Config,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessorList,
    TemperatureLogitsWarper,
)

from icl_eval.decoding import LikelihoodScorer, kernels, split_attention
from icl_eval.decoding.choosing import pick_most_likely
from icl_eval.decoding.kernels import (
    FORMULA,
    KERNELS,
    AttentionCall,
    additive_mask,
    agrees,
    attend_plainly,
    choose_kernel,
    kernels_for,
    merge,
)
from icl_eval.decoding.memory import head_sizes
from icl_eval.decoding.rules import apply_rules
from icl_eval.decoding.sessions import NewRow, SplitSession, UniformSession
from icl_eval.decoding.split_attention import split_attention_forward, stores_scores
from icl_eval.decoding.split_caches import PassMask, SplitKeys

CPU = torch.device("cpu")
F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
BY_NAME = {kernel.name: kernel for kernel in KERNELS}


@pytest.mark.parametrize(
    ("device", "dtype", "key_size", "value_size", "masked", "names"),
    [
        ("cpu", F32, 64, 64, True, ["cpu", "formula"]),
        ("cpu", BF16, 7, 7, False, ["cpu", "formula"]),
        ("cpu", F64, 64, 64, False, ["cpu", "formula"]),
        ("cpu", F32, 64, 32, False, ["formula"]),
        ("cuda", BF16, 128, 128, False, ["flash", "efficient", "formula"]),
        ("cuda", F16, 256, 256, False, ["flash", "efficient", "formula"]),
        ("cuda", BF16, 128, 128, True, ["efficient", "formula"]),
        ("cuda", F32, 128, 128, False, ["efficient", "formula"]),
        ("cuda", F32, 128, 128, True, ["efficient", "formula"]),
        ("cuda", BF16, 264, 264, False, ["efficient", "formula"]),
        ("cuda", BF16, 192, 128, False, ["efficient", "formula"]),
        ("cuda", BF16, 12, 12, False, ["formula"]),
        ("cuda", F32, 12, 12, True, ["efficient", "formula"]),
        ("cuda", F32, 10, 10, True, ["formula"]),
        ("cuda", F32, 12, 10, True, ["formula"]),
        ("cuda", F64, 128, 128, False, ["formula"]),
        ("mps", F32, 128, 128, False, ["formula"]),
    ],
)
def test_kernels_are_preferred_in_the_order_of_the_table(device, dtype, key_size, value_size, masked, names):
    call = AttentionCall(dtype, key_size, value_size, masked)
    assert [kernel.name for kernel in kernels_for(device, call)] == names


@pytest.mark.parametrize(
    ("name", "dtype", "masked"),
    [
        *[("flash", dtype, False) for dtype in (F16, BF16)],
        *[("efficient", dtype, masked) for dtype in (F16, BF16, F32) for masked in (False, True)],
    ],
)
def test_kernels_of_a_gpu_return_the_shapes_of_attend_on_meta_tensors(name, dtype, masked):
    kernel = BY_NAME[name]
    assert kernel.fits(AttentionCall(dtype, 128, 128, masked))
    query, key = (torch.empty(4, 8, length, 128, dtype=dtype, device="meta") for length in (70, 1601))
    mask = additive_mask(torch.empty(4, 70, 1601, dtype=torch.bool, device="meta"), dtype) if masked else None
    out, log_denominator = kernel.run(query, key, key, mask, 0.1)
    assert (out.shape, out.dtype) == (query.shape, dtype)
    assert (log_denominator.shape, log_denominator.dtype) == (query.shape[:3], torch.float32)


# What is computed


@pytest.mark.parametrize("ways", ["kernel of the processor", "formula", "kernels of a GPU, stood in for"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(F32, 2e-6), (F16, 2e-3), (BF16, 1.6e-2)])
@pytest.mark.parametrize(("queries", "group"), [(1, 1), (1, 4), (5, 1), (5, 4)])
def test_two_parts_are_one_softmax_over_all_keys(ways, dtype, tolerance, queries, group, monkeypatch):
    called = kernel_stand_ins.install(monkeypatch) if "GPU" in ways else []
    if ways == "formula":
        kernel_stand_ins.choose(monkeypatch, "mps")
    query, own, prefix, seen = make_parts(dtype, queries, group)
    keys = SplitKeys(tuple(prefix), *own, PassMask(seen, dtype), own[0].shape[2])
    found, _ = split_attention_forward(None, query, keys, None, None, scaling=0.4)
    expected = attend_to_all(query, own, prefix, seen, 0.4).transpose(1, 2)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)
    if called:
        assert called == ["efficient", "efficient" if dtype == F32 else "flash"]


@pytest.mark.parametrize(("queries", "group"), [(1, 1), (1, 4), (5, 1), (5, 4)])
def test_scores_are_capped_in_two_parts_and_in_a_plain_cache(queries, group):
    query, own, prefix, seen = make_parts(F32, queries, group)
    expected = attend_to_all(query, own, prefix, seen, 0.4, softcap=0.3).transpose(1, 2)
    assert (expected - attend_to_all(query, own, prefix, seen, 0.4).transpose(1, 2)).abs().max() > 0.1
    keys = SplitKeys(tuple(prefix), *own, PassMask(seen, F32), own[0].shape[2])
    found, _ = split_attention_forward(None, query, keys, None, None, scaling=0.4, softcap=0.3)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-6)

    plain = [torch.cat([shared.expand(4, -1, -1, -1), each], dim=2) for shared, each in zip(prefix, own, strict=True)]
    mask = torch.cat([seen.new_ones(*seen.shape[:2], 50), seen], dim=-1)[:, None]
    found, _ = split_attention_forward(None, query, *plain, mask, scaling=0.4, softcap=0.3)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("queries", [1, 7])
def test_without_a_mask_capped_scores_are_those_of_the_keys_up_to_the_own_one(queries):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, queries, 8, generator=generator)
    key, value = torch.randn(2, 2, 2, 7, 8, generator=generator)
    found, _ = split_attention_forward(None, query, key, value, None, softcap=0.3)
    seen = torch.ones(7, 7).tril().bool()[-queries:].expand(2, 1, -1, -1)
    assert torch.equal(found, split_attention_forward(None, query, key, value, seen, softcap=0.3)[0])


def test_parts_are_merged_in_the_dtype_of_their_denominators():
    query, own, prefix, _ = make_parts(BF16, 1, 1)
    parts = [
        attend_plainly(query, *keys, None, None) for keys in (own, [each.expand(4, -1, -1, -1) for each in prefix])
    ]
    first, second = ((out.double(), denominator.double()) for out, denominator in parts)
    exact = merge(*first, *second)
    found = merge(*parts[0], *parts[1])
    assert found.dtype == BF16
    torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=0)  # rounded once
    assert (found == exact.to(BF16)).float().mean() > 0.99


def test_a_part_without_weight_adds_nothing():
    one, other = torch.ones(1, 1, 2, 3), torch.full((1, 1, 2, 3), 5.0)
    infinite = torch.full((1, 1, 2), float("-inf"))
    assert torch.equal(merge(one, torch.zeros(1, 1, 2), other, infinite), one)
    assert torch.equal(merge(other, infinite, one, torch.zeros(1, 1, 2)), one)


def test_rows_of_a_mask_begin_where_a_gpu_can_read_them():
    seen = torch.rand(2, 3, 21, generator=torch.Generator().manual_seed(0)) < 0.5
    mask = additive_mask(seen, BF16, copies=2)
    assert mask.shape == (2, 1, 6, 21)
    assert mask.stride() == (6 * 32, 6 * 32, 32, 1)
    assert torch.equal(mask == 0, seen.repeat(1, 2, 1)[:, None])
    assert torch.equal(mask == float("-inf"), ~seen.repeat(1, 2, 1)[:, None])


def test_a_mask_is_laid_out_once_for_all_layers():
    mask = PassMask(torch.ones(1, 2, 3, dtype=torch.bool), F32)
    assert mask.lay_out(2, CPU) is mask.lay_out(2, CPU)
    assert mask.lay_out(1, CPU).shape == (1, 1, 2, 3)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_law_1_holds_for_the_calls_of_a_gpus_kernels(name, monkeypatch):
    called = kernel_stand_ins.install(monkeypatch)
    model = build(name, dtype=F32)
    prompts = make_prompts(model)[:10]  # those with a common beginning
    for batch_size in (None, 3):
        assert_as_generate(model, prompts, batch_size=batch_size)
    assert set(called) == {"efficient"}


def test_calls_of_a_gpus_kernels_give_likelihoods_and_completions_in_bfloat16(monkeypatch):
    model = build("llama", dtype=BF16)
    questions = make_questions(model, count=4)
    expected = dict(LikelihoodScorer(model).score(questions))
    called = kernel_stand_ins.install(monkeypatch)
    found = dict(LikelihoodScorer(model).score(questions))
    for number, texts in expected.items():
        for ours, theirs in zip(found[number], texts, strict=True):
            assert ours.logprobs == pytest.approx(theirs.logprobs, abs=0.05)
    assert len(decode(model, make_prompts(model)[:10])) == 10
    assert set(called) == {"efficient", "flash"}


# Which kernel is taken


def a_kernel(run):
    """A kernel that says of itself that it is offered."""
    return replace(FORMULA, name="tried", run=run, device="cpu", offered=lambda params: True)


def in_binary(query, key, value, mask, scale):
    out, log_denominator = attend_plainly(query, key, value, mask, scale)
    return out, log_denominator / 0.6931


def blind(query, key, value, mask, scale):
    return attend_plainly(query, key, value, None, scale)


def without_a_scale(query, key, value, mask, scale):
    return attend_plainly(query, key, value, mask, 1.0)


def failing(query, key, value, mask, scale):
    raise RuntimeError("no kernel image is available")


def exhausting(query, key, value, mask, scale):
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("dtype", [F32, F16, BF16])
@pytest.mark.parametrize("masked", [False, True])
def test_a_kernel_is_tried_against_the_formula(dtype, masked, caplog):
    call = AttentionCall(dtype, 64, 64, masked)
    assert agrees(FORMULA, CPU, call)
    assert agrees(BY_NAME["cpu"], CPU, call)
    assert not caplog.records
    assert not agrees(a_kernel(in_binary), CPU, call)
    assert not agrees(a_kernel(without_a_scale), CPU, call)
    assert agrees(a_kernel(blind), CPU, call) is not masked
    assert caplog.records[0].getMessage() == "torch's attention kernel tried is wrong on cpu, and a slower one is used"


def test_a_kernel_that_fails_is_not_taken_unless_memory_ran_out(caplog):
    call = AttentionCall(F32, 64, 64, False)
    assert not agrees(a_kernel(failing), CPU, call)
    assert caplog.messages == [
        "torch's attention kernel tried fails on cpu, and a slower one is used: no kernel image is available"
    ]
    with pytest.raises(torch.OutOfMemoryError):
        agrees(a_kernel(exhausting), CPU, call)


def test_the_first_kernel_that_is_offered_and_right_is_taken_and_told_once(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG, logger="icl_eval.decoding.kernels")
    choose_kernel.cache_clear()
    asked = []
    wrong, right = a_kernel(in_binary), replace(a_kernel(attend_plainly), name="right")
    forbidden = replace(right, name="forbidden", offered=lambda params: asked.append(params.query.dtype) or False)
    monkeypatch.setattr(kernels, "KERNELS", (forbidden, wrong, right, FORMULA))
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.no_grad())
    call = AttentionCall(F32, 32, 32, True)
    assert choose_kernel(CPU, call) is right
    assert choose_kernel(CPU, call) is right
    assert asked == [F32]
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG] == [
        f"attention on cpu for {call}: right"
    ]
    choose_kernel.cache_clear()


def test_numbers_drawn_to_try_a_kernel_change_no_other_draw():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    agrees(FORMULA, CPU, AttentionCall(F32, 16, 16, True))
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(("option", "value"), [("s_aux", torch.ones(4)), ("position_bias", torch.ones(1, 4, 1, 1))])
def test_what_no_kernel_computes_is_refused_so_that_the_network_attends_itself(option, value):
    query, own, prefix, seen = make_parts(F32, 1, 2)
    keys = SplitKeys(tuple(prefix), *own, PassMask(seen, F32), own[0].shape[2])
    with pytest.raises(NotImplementedError, match="split attention does not support"):
        split_attention_forward(None, query, keys, None, None, **{option: value})
    assert set(split_attention._NOT_SPLIT) == {"s_aux", "position_bias"}


def test_scores_are_stored_where_the_formula_is_chosen(monkeypatch):
    network = build("llama", dtype=F32).network
    assert not stores_scores(network, splits=True)
    for device_type, stores in (("mps", True), ("cuda", False)):
        kernel_stand_ins.choose(monkeypatch, device_type)
        assert stores_scores(network, splits=True) is stores
        assert not stores_scores(network, splits=False)
    network.config._attn_implementation = "eager"
    assert stores_scores(network, splits=False)
    assert stores_scores(build("gemma2_capped", dtype=F32).network, splits=True)


def test_heads_have_the_sizes_of_their_keys_and_values():
    assert head_sizes(CONFIGS["Llama-3.2-1B"]()) == (64, 64)
    assert head_sizes(CONFIGS["Gemma-2-9B"]()) == (256, 256)
    assert head_sizes(DeepseekV3Config(qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=12)) == (24, 12)


# What a step on a GPU does


class Recorded(TorchDispatchMode):
    """Records the number of entries of every tensor that an operator makes."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        known = [each.untyped_storage()._cdata for each in args if isinstance(each, torch.Tensor)]
        for each in out if isinstance(out, tuple) else [out]:
            if isinstance(each, torch.Tensor) and each.untyped_storage()._cdata not in known:
                self.made.append(each.numel())
        return out


def test_attention_on_a_gpu_neither_stores_scores_nor_copies_keys(monkeypatch):
    rows, prefix, own = 64, 4096, 128

    def numbers(*shape):
        return torch.empty(*shape, 128, dtype=BF16, device="meta")

    mask = PassMask(torch.empty(rows, 1, own, dtype=torch.bool, device="meta"), BF16)
    shared = (numbers(1, 8, prefix), numbers(1, 8, prefix))
    keys = SplitKeys(shared, numbers(rows, 8, own), numbers(rows, 8, own), mask, own)
    query = numbers(rows, 32, 1)
    made = {}
    for device_type in ("mps", "cuda"):
        kernel_stand_ins.choose(monkeypatch, device_type)
        with Recorded() as recorded:
            split_attention_forward(None, query, keys, None, None)
        made[device_type] = max(recorded.made)
    assert made["mps"] == rows * 32 * prefix == 8_388_608  # the scores, as many as the own keys
    assert made["cuda"] == query.numel() == 262_144


class MetaAsCuda(TorchFunctionMode):
    """Lets meta tensors stand for those of a GPU, and lists what would wait for it."""

    READ = ("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "numpy", "nonzero", "cpu", "equal")

    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name, on_meta = func.__name__, [each for each in args if isinstance(each, torch.Tensor) and each.is_meta]
        if name == "pin_memory":
            return args[0]
        if name in self.READ and on_meta:
            self.waits.append(name)
            return {"tolist": [7] * args[0].numel(), "__bool__": False}.get(name, 0)
        moves = [place for place, each in enumerate(args) if each == torch.device("cuda")]
        if moves or kwargs.get("device") == torch.device("cuda"):
            if name in ("tensor", "as_tensor") or (name == "to" and not kwargs.get("non_blocking")):
                self.waits.append(name)
            args = tuple(torch.device("meta") if place in moves else each for place, each in enumerate(args))
            if "device" in kwargs:
                kwargs["device"] = torch.device("meta")
        if name == "__getitem__" and on_meta:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            tensors = [each for each in index if isinstance(each, torch.Tensor)]
            self.waits += ["index"] * any(not each.is_meta or each.dtype == torch.bool for each in tensors)
        return func(*args, **kwargs)


def open_on_meta(monkeypatch, dtype):
    """A session of a network whose device says that it is a GPU."""
    kernel_stand_ins.choose(monkeypatch, "cuda")
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    with torch.device("meta"):
        network = LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=96, vocab_size=100)).to(dtype).eval()
    network.set_attn_implementation(split_attention.NAME)
    monkeypatch.setattr(type(network), "device", torch.device("cuda"))
    prefix = DynamicCache()
    for layer in range(2):
        states = torch.empty(1, 2, 30, 16, dtype=dtype, device="meta")
        prefix.update(states, states, layer)
    return SplitSession(network, prefix, longest_own=6, max_new_tokens=4)


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_a_step_waits_for_a_gpu_once_when_it_reads_the_tokens(dtype, monkeypatch):
    session = open_on_meta(monkeypatch, dtype)
    with MetaAsCuda() as mode:
        logits = session.join([NewRow((), (1, 2, 3)), NewRow((), (1, 2, 3, 4, 5)), NewRow((), (9,))])
        assert (logits.shape, logits.dtype, mode.waits) == ((3, 100), dtype, [])
        for _ in range(3):
            mode.waits.clear()
            chosen = pick_most_likely([], logits)
            assert mode.waits == ["tolist"]
            logits = session.step(chosen)
            assert mode.waits == ["tolist"]
        session.keep([0, 2])
        session.step([1, 1])
    assert mode.waits == ["tolist"]


def test_a_step_of_equal_rows_waits_for_a_gpu_once_too(monkeypatch):
    split = open_on_meta(monkeypatch, BF16)
    split._network.set_attn_implementation("sdpa")
    with MetaAsCuda() as mode:
        session = UniformSession(split._network, None, None)
        logits = session.join([NewRow((), (1, 2, 3)), NewRow((), (4, 5, 6)), NewRow((), (4, 5, 7))])
        session.keep([0, 2])
        session.step(pick_most_likely([], logits[:2]))
        assert mode.waits == ["tolist"]
        apply_rules([LogitsProcessorList([TemperatureLogitsWarper(0.5)])], [(1, 2, 3)], logits[:1])
    assert mode.waits == ["tolist"]


def test_what_waits_for_a_gpu_is_seen():
    with MetaAsCuda() as mode:
        numbers = torch.zeros(3, device=torch.device("cuda"))
        torch.tensor([1], device=torch.device("cuda"))
        torch.tensor([1]).to(torch.device("cuda"))
        torch.tensor([1]).to(torch.device("cuda"), non_blocking=True)
        bool(numbers[0] > 1)
        numbers[torch.tensor([0])]
        with pytest.raises(NotImplementedError, match="nonzero"):  # how many numbers it gives, only a GPU could say
            numbers[numbers > 0]
        numbers.sum().item()
        numbers[:2]
    assert mode.waits == ["tensor", "to", "__bool__", "index", "index", "item"]
