"""What only a GPU can say: `make gpu-check` runs these tests, which are skipped where torch finds no GPU."""

from dataclasses import replace

import pytest
import torch
from architectures import build
from attention_parts import attend_to_all, make_parts
from reference_decoding import NEW_TOKENS, assert_as_generate, make_prompts, make_questions

from icl_eval.decoding import LikelihoodScorer
from icl_eval.decoding.choosing import pick_most_likely
from icl_eval.decoding.kernels import AttentionCall, attend, choose_kernel, kernels_for
from icl_eval.decoding.networks import new_cache, run
from icl_eval.decoding.preparing import prepare
from icl_eval.decoding.sessions import NewRow, SplitSession
from icl_eval.decoding.split_attention import split_attention_forward
from icl_eval.decoding.split_caches import PassMask, SplitKeys

DEVICE = torch.device("cuda", 0)

pytestmark = pytest.mark.gpu
if not torch.cuda.is_available():
    pytest.skip("torch finds no GPU here", allow_module_level=True)

PRECISE = [(torch.float32, 2e-5), (torch.float16, 2e-3), (torch.bfloat16, 1.6e-2)]
"""Dtypes, and the largest difference from float64 for numbers around 1."""


def build_on_gpu(name: str, dtype: torch.dtype):
    model = build(name, dtype=dtype)
    model.network.to(DEVICE)
    return replace(model, device=str(DEVICE))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("dtype", [dtype for dtype, _ in PRECISE])
def test_a_gpu_of_ampere_or_later_has_every_kernel_and_they_agree_with_the_formula(dtype, size, masked):
    if torch.cuda.get_device_capability(DEVICE) < (8, 0):
        pytest.skip("an older GPU")
    call = AttentionCall(dtype, size, size, masked)
    assert choose_kernel(DEVICE, call) is kernels_for("cuda", call)[0]


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISE)
@pytest.mark.parametrize(("queries", "group"), [(1, 1), (1, 4), (5, 1), (5, 4)])
def test_two_parts_are_one_softmax_over_all_keys_on_a_gpu(dtype, tolerance, queries, group):
    query, own, prefix, seen = make_parts(dtype, queries, group, DEVICE)
    keys = SplitKeys(tuple(prefix), *own, PassMask(seen, dtype), own[0].shape[2])
    found, _ = split_attention_forward(None, query, keys, None, None, scaling=0.4)
    expected = attend_to_all(query, own, prefix, seen, 0.4).transpose(1, 2)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "opt", "phi", "llama", "qwen3", "stablelm"])
def test_law_1_holds_on_a_gpu_in_float32(name):
    model = build_on_gpu(name, torch.float32)
    prompts = make_prompts(model)
    for some in (prompts, prompts[:10]):  # the first ten have a common beginning
        assert_as_generate(model, some)
        assert_as_generate(model, some, batch_size=3)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.15)])
def test_likelihoods_on_a_gpu_are_those_of_the_processor(dtype, tolerance):
    expected, model = build("llama", dtype=torch.float32), build_on_gpu("llama", dtype)
    questions = make_questions(model, count=6)
    found = dict(LikelihoodScorer(model).score(questions))
    for number, texts in LikelihoodScorer(expected).score(questions):
        for ours, theirs in zip(found[number], texts, strict=True):
            assert ours.logprobs == pytest.approx(theirs.logprobs, abs=tolerance * max(1, *map(abs, theirs.logprobs)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_on_a_gpu_waits_only_for_the_tokens(dtype):
    model = build_on_gpu("llama", dtype)
    prefix = new_cache(model.network.config)
    run(model.network, [tuple(range(10, 40))], prefix, None)
    prepared = prepare(model)
    assert prepared.capabilities.split
    with prepared.accelerated():
        session = SplitSession(model.network, prefix, longest_own=3, max_new_tokens=8)
        chosen = pick_most_likely([], session.join([NewRow((), (50, 51, 52)), NewRow((), (60,))]))
        for _ in range(4):
            torch.cuda.set_sync_debug_mode("error")
            try:
                logits = session.step(chosen)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            chosen = pick_most_likely([], logits)


def count_repeats(monkeypatch):
    repeats, replay = [], torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: repeats.append(1) or replay(graph))
    return repeats


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_law_1_holds_on_a_gpu_for_recorded_steps(name, monkeypatch, caplog):
    repeats = count_repeats(monkeypatch)
    model = build_on_gpu(name, torch.float32)
    for batch_size in (None, 3):
        repeats.clear()
        assert_as_generate(model, make_prompts(model), batch_size=batch_size)
        assert len(repeats) >= NEW_TOKENS - 3
    assert not caplog.messages


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 5e-3), (torch.bfloat16, 0.05)])
def test_a_recorded_step_on_a_gpu_gives_the_logits_of_the_step_and_waits_only_for_the_tokens(
    dtype, tolerance, monkeypatch
):
    repeats = count_repeats(monkeypatch)
    model = build_on_gpu("llama", dtype)
    prefix = new_cache(model.network.config)
    run(model.network, [tuple(range(10, 40))], prefix, None)
    prepared = prepare(model)
    with prepared.accelerated():
        plain, recorded = (
            SplitSession(model.network, prefix, longest_own=3, max_new_tokens=8, recorder=recorder)
            for recorder in (None, prepared.recorder)
        )
        rows = [NewRow((), (50, 51, 52)), NewRow((), (60,))]
        chosen = pick_most_likely([], plain.join(rows))
        recorded.join(rows)
        for step in range(8):
            expected = plain.step(chosen)
            if step > 2:
                torch.cuda.set_sync_debug_mode("error")
            try:
                found = recorded.step(chosen)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))
            chosen = pick_most_likely([], expected)
    assert len(repeats) == 6  # once when it was recorded


def test_attention_on_a_gpu_takes_no_memory_for_scores_or_copies_of_keys():
    def numbers(*shape):
        return torch.randn(*shape, 128, dtype=torch.bfloat16, device=DEVICE)

    query, key, value = numbers(1, 8, 512), numbers(1, 8, 32_000), numbers(1, 8, 32_000)
    attend(query, key, value, None, None)
    torch.cuda.reset_peak_memory_stats(DEVICE)
    before = torch.cuda.memory_allocated(DEVICE)
    attend(query, key, value, None, None)
    scores_bytes = 8 * 512 * 32_000 * 4
    assert torch.cuda.max_memory_allocated(DEVICE) - before < scores_bytes / 4
