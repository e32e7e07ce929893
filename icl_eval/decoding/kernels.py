"""Attention that also returns the logarithm of its softmax denominator, by the best kernel that a device has for it.

Attention to some keys and attention to others combine exactly, weighted by each part's share of the softmax denominator
(FlashAttention, Dao et al., 2022, arXiv:2205.14135):

    out = w · out_first + (1 - w) · out_second        w = sigmoid(lse_first - lse_second)

`scaled_dot_product_attention` does not return the denominator, so that the operators behind it are called, which are
private in torch but have kept their arguments and first two results since torch 2.1:

    kernel      device  dtypes                        mask  sizes of a head                           stores scores
    cpu         cpu     all                           yes   keys and values the same                  no
    flash       cuda    float16, bfloat16             no    the same, multiples of 16 bytes, to 256   no
    efficient   cuda    float32, float16, bfloat16    yes   multiples of 16 bytes                     no
    formula     any     all                           yes   any                                       yes

The first one that a call fits into is taken; on a GPU only if torch offers it there and it agrees with the formula on a
few numbers, which is tried once in a process. Then `capabilities` compares the logits of the whole network. In float32,
`efficient` multiplies halves of the digits three times (3xTF32), which is close to float32's own rounding.

Two public functions of torch return the denominator, too, and are not called: `flex_attention` compiles first, and
`varlen_attn` is `flash` with other shapes, and needs a later torch.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch

from icl_eval.models.memory import is_out_of_memory

logger = logging.getLogger(__name__)

_ALIGNMENT = 16
"""Bytes that a GPU reads at once, and the number of scores to which a row of a mask is filled up."""
_HALF = frozenset({torch.float16, torch.bfloat16})
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}
"""Largest difference of a kernel from the formula that rounding explains, for numbers around 1."""

OutAndDenominator = tuple[torch.Tensor, torch.Tensor]
"""The output, [rows, heads, queries, value size], and the log of the softmax denominator, [rows, heads, queries]."""


class AttentionCall(NamedTuple):
    """What decides which kernel can compute some attention."""

    dtype: torch.dtype
    key_size: int
    """Size of a key and of a query, for each head."""
    value_size: int
    masked: bool


@dataclass(frozen=True)
class Kernel:
    """One way to compute attention, and what it can compute."""

    name: str
    run: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, float | None], OutAndDenominator]
    device: str | None = None
    """The type of device that has it; None for any."""
    dtypes: frozenset[torch.dtype] | None = None
    """None for all."""
    takes_mask: bool = True
    takes_uneven: bool = True
    """Whether keys and values may differ in size."""
    aligned: bool = False
    """Whether a key and a value must be multiples of `_ALIGNMENT` bytes."""
    largest: int | None = None
    """The largest size of a key; None if there is no limit."""
    offered: Callable[[Any], bool] | None = None
    """Whether torch would take the kernel for some tensors on a GPU; None if it need not be asked."""

    def fits(self, call: AttentionCall) -> bool:
        """Return whether the kernel can compute a call."""
        sizes = (call.key_size, call.value_size)
        return (
            (self.dtypes is None or call.dtype in self.dtypes)
            and (self.takes_mask or not call.masked)
            and (self.takes_uneven or call.key_size == call.value_size)
            and (not self.aligned or not any(size * call.dtype.itemsize % _ALIGNMENT for size in sizes))
            and (self.largest is None or call.key_size <= self.largest)
        )


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float | None,
    softcap: float | None = None,
) -> OutAndDenominator:
    """Return the attention output and the logarithm of the softmax denominator.

    Args:
        query: [rows, heads, queries, key size]
        key: [rows, heads, keys, key size]
        value: [rows, heads, keys, value size]
        mask: Added to the scores, [rows, 1, queries, keys]; on a GPU laid out by `additive_mask`.
        scale: Factor of the scores; None for 1 / sqrt(key size).
        softcap: The bound of the scores (see `attend_plainly`), for which no kernel of torch is called; None for none.

    Returns:
        [rows, heads, queries, value size] and [rows, heads, queries]
    """
    if softcap is not None:
        return attend_plainly(query, key, value, mask, scale, softcap)
    call = AttentionCall(query.dtype, query.shape[-1], value.shape[-1], mask is not None)
    return choose_kernel(query.device, call).run(query, key, value, mask, scale)


def merge(
    first: torch.Tensor, first_denominator: torch.Tensor, second: torch.Tensor, second_denominator: torch.Tensor
) -> torch.Tensor:
    """Return the attention to all keys from that to some and that to the others, as `attend` returns them.

    The parts are combined in the dtype of the denominators and rounded once: in bfloat16, a share of 8 bits would add
    as large an error again.
    """
    share = torch.sigmoid(first_denominator - second_denominator)[..., None]
    return torch.lerp(second.to(share.dtype), first.to(share.dtype), share).to(second.dtype)


def additive_mask(seen: torch.Tensor, dtype: torch.dtype, copies: int = 1) -> torch.Tensor:
    """Return a mask that is added to scores: 0 where a key is seen, else minus infinity.

    Args:
        seen: Whether each query sees each key, [rows, queries, keys].
        dtype: The dtype of the keys.
        copies: The number of times that the queries are repeated.

    Returns:
        [rows, 1, copies · queries, keys], with rows that begin at multiples of 16 numbers, as GPUs read them.
    """
    rows, queries, keys = seen.shape
    filled = torch.zeros(rows, copies, queries, -(-keys // _ALIGNMENT) * _ALIGNMENT, dtype=dtype, device=seen.device)
    filled[..., :keys].masked_fill_(~seen[:, None], float("-inf"))
    return filled.view(rows, 1, copies * queries, -1)[..., :keys]


def kernels_for(device_type: str, call: AttentionCall) -> list[Kernel]:
    """Return the kernels that a type of device may have for a call, the best one first; the last is the formula."""
    return [kernel for kernel in KERNELS if kernel.device in (None, device_type) and kernel.fits(call)]


@cache
def choose_kernel(device: torch.device, call: AttentionCall) -> Kernel:
    """Return the kernel that computes a call on a device; the first call on a GPU tries it."""
    chosen = next(kernel for kernel in kernels_for(device.type, call) if _works(kernel, device, call))
    logger.debug("attention on %s for %s: %s", device, call, chosen.name)
    return chosen


def _works(kernel: Kernel, device: torch.device, call: AttentionCall) -> bool:
    if kernel.offered is None:
        return True
    # What these kernels return on GPUs of another maker was not looked into.
    return torch.version.hip is None and _is_offered(kernel.offered, device, call) and agrees(kernel, device, call)


def _is_offered(offered: Callable[[Any], bool], device: torch.device, call: AttentionCall) -> bool:
    """Return whether torch would take a kernel; it depends on the GPU, and the caller can forbid it (`sdpa_kernel`)."""
    query, key, value, _ = _example(device, call)
    with torch.cuda.device(device):
        return offered(torch.backends.cuda.SDPAParams(query, key, value, None, 0.0, False, False))


def agrees(kernel: Kernel, device: torch.device, call: AttentionCall) -> bool:
    """Return whether a kernel computes a few numbers as the formula does in float64."""
    example = _example(device, call)
    try:
        found = kernel.run(*example, None)
        query, key, value = (states.double() for states in example[:3])
        expected = attend_plainly(query, key, value, example[3], None)
        right = all(
            torch.allclose(one.double(), other, rtol=_TOLERANCE[call.dtype], atol=_TOLERANCE[call.dtype])
            for one, other in zip(found, expected, strict=True)
        )
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        logger.warning(
            "torch's attention kernel %s fails on %s, and a slower one is used: %s", kernel.name, device, error
        )
        return False
    if not right:
        logger.warning("torch's attention kernel %s is wrong on %s, and a slower one is used", kernel.name, device)
    return right


def _example(
    device: torch.device, call: AttentionCall
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return queries, keys, values and a mask; a kernel that works in blocks finds one of which nothing is seen."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((40, call.key_size), (150, call.key_size), (150, call.value_size))
    query, key, value = (
        torch.randn(2, 3, length, size, generator=generator).to(device, call.dtype) for length, size in shapes
    )
    if not call.masked:
        return query, key, value, None
    seen = torch.arange(150) >= torch.tensor([[[140]], [[3]]])  # [rows, 1, keys]
    return query, key, value, additive_mask(seen.expand(-1, 40, -1).to(device), call.dtype)


def attend_plainly(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float | None,
    softcap: float | None = None,
) -> OutAndDenominator:
    """Compute `attend` by its formula, on any device; a score x becomes softcap · tanh(x / softcap) (Gemma 2, 2024)."""
    wide = torch.promote_types(query.dtype, torch.float32)  # products overflow in float16 and lose digits in bfloat16
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    if softcap is None:
        scores = (query.to(wide) * factor) @ key.to(wide).mT
    else:
        scores = ((query.to(wide) * (factor / softcap)) @ key.to(wide).mT).tanh_().mul_(softcap)
    if mask is not None:
        scores += mask
    largest = scores.amax(-1, keepdim=True)
    weights = scores.sub_(largest).exp_()
    denominator = weights.sum(-1, keepdim=True)
    out = (weights @ value.to(wide)) / denominator
    return out.to(value.dtype), (largest + denominator.log())[..., 0]


def _attend_on_cpu(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float | None
) -> OutAndDenominator:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out, log_denominator = kernel(query, key, value, attn_mask=mask, scale=scale)
    return out, log_denominator


def _attend_flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float | None
) -> OutAndDenominator:
    """FlashAttention-2 (Dao, 2023, arXiv:2307.08691); for a few queries, it works on parts of the keys at once."""
    assert mask is None
    out, log_denominator, *_ = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, scale=scale)
    return out, log_denominator


def _attend_efficient(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float | None
) -> OutAndDenominator:
    """Memory-efficient attention (Rabe and Staats, 2021, arXiv:2112.05682), as xformers has it."""
    bias = None if mask is None else mask.expand(-1, query.shape[1], -1, -1)
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    out, log_denominator, *_ = kernel(query, key, value, bias, True, scale=scale)
    return out, log_denominator[..., : query.shape[2]]  # it has room for a multiple of 32 queries


FORMULA = Kernel("formula", attend_plainly)
KERNELS = (
    Kernel("cpu", _attend_on_cpu, "cpu", takes_uneven=False),
    Kernel(
        "flash",
        _attend_flash,
        "cuda",
        _HALF,
        takes_mask=False,
        takes_uneven=False,
        aligned=True,
        largest=256,
        offered=torch.backends.cuda.can_use_flash_attention,
    ),
    Kernel(
        "efficient",
        _attend_efficient,
        "cuda",
        _HALF | {torch.float32},
        aligned=True,
        offered=torch.backends.cuda.can_use_efficient_attention,
    ),
    FORMULA,
)
"""The table above, in the order in which kernels are preferred."""
