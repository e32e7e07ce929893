"""Compute the floor of a workload: the minimum time in which this machine could do its work.

    prefill      every distinct token of the prompts and of their choices, once, in one pass
    each step    one token for each unfinished row, all rows together

Each pass takes the longer of two times: its floating-point operations at the rate of a large matrix product, or the
reading of its weights, keys and values at the rate of a long sum. Both rates are measured in this process, before and
after the systems run. Nothing else counts: no softmax, no normalization, no choice of tokens, no text.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from benchmarks.workloads import Workload, encode_choices
from icl_eval.decoding.sharing import common_length

_TRIES = 7
_GEMM_SIZE = {"cpu": 2048, "cuda": 8192}
_READ_BYTES = 512_000_000  # far more than fits into any cache

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Rates:
    """What the machine can do per second."""

    flops: float
    bytes_read: float

    def seconds(self, flops: float, num_bytes: float) -> float:
        """Return the minimum time for some work, in seconds."""
        return max(flops / self.flops, num_bytes / self.bytes_read)

    def best(self, other: "Rates") -> "Rates":
        """Return the better of two measurements, since other load can only make them worse."""
        return Rates(max(self.flops, other.flops), max(self.bytes_read, other.bytes_read))


def measure_rates(dtype: str, device: str) -> Rates:
    """Measure a square matrix product, with both of torch's kernels, and a sum; each is the best of several tries."""
    size = _GEMM_SIZE[device]
    square = torch.rand(size, size, dtype=getattr(torch, dtype), device=device)
    long = torch.ones(_READ_BYTES // 4, device=device)
    seconds = _best_seconds(lambda: square @ square, device)
    if device == "cpu":
        laid_out = torch.ops.mkldnn._reorder_linear_weight(square)
        multiply = torch.ops.mkldnn._linear_pointwise
        seconds = min(seconds, _best_seconds(lambda: multiply(square, laid_out, None, "none", [], ""), device))
    return Rates(2 * size**3 / seconds, long.nbytes / _best_seconds(long.sum, device))


def _best_seconds(work: Callable[[], object], device: str) -> float:
    times = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        work()
        if device == "cuda":  # which is only asked to work, and must be waited for
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


@dataclass(frozen=True)
class Sizes:
    """The work that a network does per token."""

    encoder_weights: int
    """Entries of the matrices that each encoder token is multiplied with, at 2 operations per entry."""
    decoder_weights: int
    head_weights: int
    """Entries of the output matrix, used only where a next token is chosen."""
    attention_flops: int
    """Operations for one token attending to one token, in all layers: a product with a key and one with a value."""
    kv_bytes: int
    """Size of one token's keys and values in all layers."""
    weight_bytes: int
    """Size of one weight."""


def read_sizes(network: PreTrainedModel) -> Sizes:
    """Read the sizes of a network; an encoder's matrices are found by T5's names."""
    config = network.config.get_text_config(decoder=True)
    head = network.get_output_embeddings().weight
    lookups = {id(module.weight) for module in network.modules() if isinstance(module, torch.nn.Embedding)}
    matrices = {
        name: weight.numel()
        for name, weight in network.named_parameters()
        if weight.ndim == 2 and id(weight) not in lookups and weight is not head
    }
    on_encoder = ("encoder.", ".EncDecAttention.k.", ".EncDecAttention.v.")
    encoder = sum(size for name, size in matrices.items() if any(part in f".{name}" for part in on_encoder))
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    layers = config.num_hidden_layers
    return Sizes(
        encoder_weights=encoder,
        decoder_weights=sum(matrices.values()) - encoder,
        head_weights=head.numel(),
        attention_flops=4 * heads * head_size * layers,
        kv_bytes=2 * kv_heads * head_size * layers * head.element_size(),
        weight_bytes=head.element_size(),
    )


@dataclass(frozen=True)
class Tokens:
    """The distinct tokens of some prompts, in which shared prefixes count once."""

    encoder: int
    encoder_pairs: int
    """Number of pairs in which one token attends to another."""
    decoder: int
    decoder_pairs: int


def count_tokens(prompts: Iterable[tuple[Ids, Ids]]) -> Tokens:
    """Count the distinct tokens of prompts, given as encoder ids and decoder ids (including any start token)."""
    encoder = encoder_pairs = decoder = decoder_pairs = 0
    encoder_before: Ids | None = None
    decoder_before: Ids = ()
    for encoder_ids, decoder_ids in sorted(prompts):
        if encoder_ids != encoder_before:  # an encoder's states depend on its whole input
            encoder += len(encoder_ids)
            encoder_pairs += len(encoder_ids) ** 2
            decoder_before = ()
        known = common_length(decoder_before, decoder_ids)
        decoder += len(decoder_ids) - known
        decoder_pairs += _triangle(len(decoder_ids)) - _triangle(known) + (len(decoder_ids) - known) * len(encoder_ids)
        encoder_before, decoder_before = encoder_ids, decoder_ids
    return Tokens(encoder, encoder_pairs, decoder, decoder_pairs)


def _triangle(length: int) -> int:
    return length * (length + 1) // 2


def floor_seconds(workload: Workload, num_generated: Sequence[int], rates: Rates) -> float:
    """Return the minimum time for a workload, in seconds, given the number of tokens in each answer."""
    sizes = read_sizes(workload.model.network)
    start_ids = (0,) if workload.model.architecture == "encoder-decoder" else ()
    prompts = [(prompt.encoder_ids, (*start_ids, *prompt.decoder_ids)) for prompt in workload.prompts]
    choices = [
        (each.context.encoder_ids, (*start_ids, *each.context.decoder_ids, *text[:-1]))
        for each in encode_choices(workload).values()
        for text in each.texts
    ]
    seconds = _prefill_seconds(prompts, choices, sizes, rates)
    for step in range(1, max(num_generated)):  # the first token of each answer comes out of the prefill
        unfinished = [prompt for prompt, count in zip(prompts, num_generated, strict=True) if count > step]
        seconds += _step_seconds(unfinished, step, sizes, rates)
    return seconds


def _prefill_seconds(
    prompts: Sequence[tuple[Ids, Ids]], choices: Sequence[tuple[Ids, Ids]], sizes: Sizes, rates: Rates
) -> float:
    tokens = count_tokens([*prompts, *choices])
    num_logits = len(prompts) + tokens.decoder - count_tokens(prompts).decoder
    weights = sizes.encoder_weights + sizes.decoder_weights + sizes.head_weights
    flops = 2 * sizes.encoder_weights * tokens.encoder + 2 * sizes.decoder_weights * tokens.decoder
    flops += 2 * sizes.head_weights * num_logits
    flops += sizes.attention_flops * (tokens.encoder_pairs + tokens.decoder_pairs)
    return rates.seconds(flops, weights * sizes.weight_bytes)


def _step_seconds(prompts: Sequence[tuple[Ids, Ids]], step: int, sizes: Sizes, rates: Rates) -> float:
    tokens = count_tokens(prompts)
    seen = sum(len(encoder_ids) + len(decoder_ids) + step for encoder_ids, decoder_ids in prompts)
    weights = sizes.decoder_weights + sizes.head_weights
    flops = 2 * weights * len(prompts) + sizes.attention_flops * seen
    kept = tokens.encoder + tokens.decoder + step * len(prompts)
    return rates.seconds(flops, weights * sizes.weight_bytes + kept * sizes.kv_bytes)
