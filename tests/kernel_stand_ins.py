"""Stand-ins for the attention kernels of a GPU, so that the code that calls them runs on a machine without one.

They compute the formula in float64, after checking what the kernels of torch 2.13 ask of their arguments
(aten/src/ATen/native/transformers/cuda: `attention.cu`, `flash_attn/flash_api.cpp`, `mem_eff_attention`), and return
results of the same shapes and dtypes. What a GPU computes, only a GPU can say (`make gpu-check`).
"""

import pytest
import torch

from icl_eval.decoding import kernels, split_attention
from icl_eval.decoding.kernels import AttentionCall, Kernel, attend_plainly, kernels_for

CALLED: list[str] = []
"""The names of the kernels that were called, in their order."""


def install(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Attend as on a GPU that has every kernel; return the list of the kernels that are called from now on."""
    CALLED.clear()
    monkeypatch.setattr(torch.ops.aten, "_scaled_dot_product_flash_attention", flash)
    monkeypatch.setattr(torch.ops.aten, "_scaled_dot_product_efficient_attention", efficient)
    choose(monkeypatch, "cuda")
    return CALLED


def choose(monkeypatch: pytest.MonkeyPatch, device_type: str) -> None:
    """Choose kernels as on a type of device that has all of them."""

    def choose_first(device: torch.device, call: AttentionCall) -> Kernel:
        return kernels_for(device_type, call)[0]

    for module in (kernels, split_attention):
        monkeypatch.setattr(module, "choose_kernel", choose_first)


def flash(query, key, value, dropout_p=0.0, is_causal=False, return_debug_mask=False, *, scale=None):
    CALLED.append("flash")
    assert query.dtype in (torch.float16, torch.bfloat16)
    assert query.shape[-1] == value.shape[-1] <= 256
    assert query.shape[-1] % 8 == 0
    _require_like_shapes(query, key, value)
    out, log_denominator = _formula(query, key, value, None, scale)
    return out.to(query.dtype), log_denominator.float(), *[None] * 7


def efficient(query, key, value, attn_bias, compute_log_sumexp, dropout_p=0.0, is_causal=False, *, scale=None):
    CALLED.append("efficient")
    assert query.dtype in (torch.float32, torch.float16, torch.bfloat16)
    assert compute_log_sumexp
    _require_like_shapes(query, key, value)
    for states in (query, key, value):
        _require_alignment(states)
        assert states.shape[-1] * states.dtype.itemsize % 16 == 0
    if attn_bias is not None:
        assert attn_bias.dtype == query.dtype
        assert attn_bias.shape == (*query.shape[:3], key.shape[2])
        _require_alignment(attn_bias)
    out, log_denominator = _formula(query, key, value, attn_bias, scale)
    queries = query.shape[2]
    padded = torch.full((*query.shape[:2], -(-queries // 32) * 32), float("nan"))
    padded[..., :queries] = log_denominator
    return out.to(query.dtype), padded, None, None


def _require_like_shapes(query, key, value):
    assert query.dtype == key.dtype == value.dtype
    assert query.shape[:2] == key.shape[:2] == value.shape[:2]
    assert query.shape[-1] == key.shape[-1]
    assert key.shape[2] == value.shape[2]
    assert {states.stride(-1) for states in (query, key, value)} == {1}


def _require_alignment(states):
    """Each run of numbers that is read at once begins at a multiple of 16 bytes."""
    steps = (*states.stride()[:-1], states.storage_offset())
    assert not any(step * states.dtype.itemsize % 16 for step in steps)
    assert states.stride(-1) == 1


def _formula(query, key, value, bias, scale):
    return attend_plainly(query.double(), key.double(), value.double(), bias, scale)
