"""Run a network of any architecture, so that the rest of decoding sees only ids, caches and logits."""

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from transformers import Cache, DynamicCache, EncoderDecoderCache, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import MoEModelOutput

from icl_eval.errors import IclEvalError
from icl_eval.prompts.token_ids import Ids

MAX_PREFILL_TOKENS = 512
"""Maximum number of prompt tokens in one forward pass. More gain no speed (measured on the CPU) and cost padding and
memory."""
MAX_PREFILL_TOKENS_ON_GPU = 2048
"""The same on a GPU, for networks that attend to a prefix in place. While Python launches the 1,600 kernels of an 8B
network one by one, a fast GPU could compute several hundred tokens (by arithmetic; none was timed)."""
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Largest difference of logits that rounding explains, relative to the largest logit. Some networks always compute
parts in float32, so the tolerance for float64 allows for that."""
_TOLERANCE_QUANTIZED = 0.1
"""The same for quantized networks. Some quantize each token's states too, where a last digit decides between levels."""


def run(
    network: PreTrainedModel,
    ids: Sequence[Sequence[int]],
    cache: Cache,
    encoded: torch.Tensor | None,
    encoder_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Append the same number of tokens to each row of a cache and return the last logits, [rows, vocabulary]."""
    return run_columns(network, ids, cache, encoded, encoder_mask, count=1)[:, -1]


def run_columns(
    network: PreTrainedModel,
    ids: Sequence[Sequence[int]],
    cache: Cache,
    encoded: torch.Tensor | None,
    encoder_mask: torch.Tensor | None,
    count: int,
) -> torch.Tensor:
    """Append tokens as `run` does and return the logits of the last `count` tokens, [rows, count, vocabulary]."""
    return logits_of_columns(network, count, **inputs_of(network, ids, cache, encoded, encoder_mask))


def inputs_of(
    network: PreTrainedModel,
    ids: Sequence[Sequence[int]],
    cache: Cache,
    encoded: torch.Tensor | None,
    encoder_mask: torch.Tensor | None = None,
) -> dict[str, Any]:
    """Return the arguments with which a network appends the same number of tokens to each row of a cache."""
    input_ids = copy_to(ids, network.device)
    if encoded is None:
        positions = {}
        if takes(network, "position_ids"):  # as `generate` passes them: by default, some networks start elsewhere
            begin = cache.get_seq_length()
            positions = {"position_ids": torch.arange(begin, begin + input_ids.shape[1], device=network.device)[None]}
        return {"input_ids": input_ids, "past_key_values": cache, **positions}
    return {
        "decoder_input_ids": input_ids,
        "past_key_values": cache,
        "encoder_outputs": MoEModelOutput(last_hidden_state=encoded),  # the type with fields for router outputs
        "attention_mask": encoder_mask,
    }


@torch.inference_mode()
def encode(
    network: PreTrainedModel, rows: Sequence[Ids], most_padding: float = math.inf
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Run the encoder, a few rows at a time.

    With many rows, the padding of the shorter ones and position biases that are expanded for every row cost more than
    the larger batch gains.

    Args:
        network: An encoder-decoder network.
        rows: The token ids of each row, ideally the longest first.
        most_padding: The number of tokens of padding that are allowed, if the longest rows are first.

    Returns:
        The states, [rows, tokens, size], and their attention mask, [rows, tokens] (None if there is no padding).
    """
    states = []
    encoder = network.get_encoder()
    # A window that holds only padding gives a softmax over nothing, whose NaN spreads. Block-sparse attention attends
    # to the last block from everywhere, and switches to full attention for short inputs.
    windowed = getattr(encoder.config, "sliding_window", None) is not None
    pads = not windowed and getattr(encoder.config, "attention_type", None) != "block_sparse"
    lengths = [len(row) for row in rows]
    falling = lengths == sorted(lengths, reverse=True)
    for chunk in divide_closely(lengths, lengths, most_padding) if pads and falling else chunks(lengths, pads):
        reset_attention(network)
        ids = rows[chunk]
        width = max(map(len, ids))
        input_ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in ids], device=network.device)
        output = encoder(input_ids=input_ids, attention_mask=_lengths_mask(ids, network.device))
        states += list(output.last_hidden_state.to(network.device))  # its layers may be on several devices
    return torch.nn.utils.rnn.pad_sequence(states, batch_first=True), _lengths_mask(rows, network.device)


def reset_attention(network: PreTrainedModel) -> None:
    """Reset an encoder to the attention type of its config; a short input switches sparse to full for good."""
    encoder: Any = network.get_encoder() if network.config.is_encoder_decoder else None
    if hasattr(encoder, "set_attention_type"):
        encoder.set_attention_type(encoder.config.attention_type)


def decoder_of(network: PreTrainedModel) -> Any:
    """Return the decoder of a network; its vocabulary may differ from the encoder's."""
    return network.get_decoder() if network.config.is_encoder_decoder else network


def new_cache(config: PreTrainedConfig) -> Cache:
    """Return an empty cache of the kind that the network's layers need."""
    if config.is_encoder_decoder:
        # The decoder's sliding windows do not apply to cross-attention.
        return EncoderDecoderCache(DynamicCache(config=config), DynamicCache())
    return DynamicCache(config=config)


def rope_switches_at(config: PreTrainedConfig) -> int | None:
    """Return the length beyond which all positions use other rotary frequencies (`longrope`); None if they never do."""
    parameters = getattr(config.get_text_config(decoder=True), "rope_parameters", None) or {}
    by_layer_type = [each for each in parameters.values() if isinstance(each, dict)]
    limits = [
        int(each["original_max_position_embeddings"])
        for each in (parameters, *by_layer_type)
        if each.get("rope_type") == "longrope"
    ]
    return min(limits, default=None)


def copy_to(numbers: Sequence[Sequence[int]] | Sequence[int], device: torch.device) -> torch.Tensor:
    """Return integers as a tensor on a device, without waiting for the device.

    A plain copy to a GPU waits until the GPU has done all it was asked; a copy from pinned memory does not.
    """
    tensor = torch.tensor(numbers, dtype=torch.long, device="cpu")  # the dtype also if there are none
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def last_logits(network: PreTrainedModel, **inputs: Any) -> torch.Tensor:
    """Run a network and return the logits of the last column, [rows, vocabulary]."""
    return logits_of_columns(network, 1, **inputs)[:, -1]


def logits_of_columns(network: PreTrainedModel, count: int, **inputs: Any) -> torch.Tensor:
    """Run a network and return the logits of the last columns, [rows, count, vocabulary]."""
    return logits_at(network, range(-count, 0), **inputs)


@torch.inference_mode()
def logits_at(network: PreTrainedModel, columns: Sequence[int], **inputs: Any) -> torch.Tensor:
    """Run a network and return the logits of some columns, [rows, columns, vocabulary]."""
    count = len(columns)
    # On the CPU an index, since a slice of the last position is not contiguous, and a matrix product with it copies the
    # weight for every row (torch 2.13). A GPU would wait for the index.
    sliced = network.device.type != "cpu" and columns == range(-count, 0)
    kept = slice(-count, None) if sliced else torch.tensor(columns)
    option = {"logits_to_keep": count if sliced else kept} if takes(network, "logits_to_keep") else {}
    logits: torch.Tensor = network(use_cache=True, **option, **inputs).logits
    return logits if logits.shape[1] == count else logits[:, kept]


def all_finite(logits: torch.Tensor) -> torch.Tensor:
    """Return whether the largest logit of each row is finite, [rows]; minus infinity (a banned token) is allowed."""
    return logits.max(dim=-1).values < float("inf")  # false for NaN, too


def agree(first: torch.Tensor, second: torch.Tensor, network: PreTrainedModel) -> bool:
    """Return whether logits of a network, both of one shape, differ by no more than rounding explains."""
    difference = (first - second).abs().max()
    tolerance = _TOLERANCE[first.dtype]
    if getattr(network, "is_quantized", False):
        tolerance = max(tolerance, _TOLERANCE_QUANTIZED)
    return bool(difference <= tolerance * second.abs().max())


def not_finite_error(what: str, dtype: torch.dtype) -> IclEvalError:
    """Return the error for a number that is not finite.

    Args:
        what: The number, and the question at which it occurred.
        dtype: The dtype that the network computes in.
    """
    name, cause = str(dtype).removeprefix("torch."), "the weights are damaged, or a change has damaged them"
    if dtype in (torch.float16, torch.bfloat16):
        cause = f"the range of {name} may be too small for this model (try dtype=float32), or {cause}"
    return IclEvalError(f"{what} is not a finite number in {name}: {cause}")


def most_prefill_tokens(device: torch.device) -> int:
    """Return the maximum number of prompt tokens in one forward pass of a network that attends to a prefix in place."""
    return MAX_PREFILL_TOKENS_ON_GPU if device.type == "cuda" else MAX_PREFILL_TOKENS


def takes(network: PreTrainedModel, name: str) -> bool:
    """Return whether a network's `forward` has an argument of this name."""
    return name in _inputs(type(network).forward)


PASS_TOKENS = 64
"""What a forward pass costs beside its tokens, in tokens: with fewer, reading the weights takes the time."""


PASS_WEIGHTS = (PASS_TOKENS, 32, 16, 8, 4, 2, 1, 0)
"""What a pass may be counted as instead, so that there is less padding; with 0 there is none."""
MOST_FED = 1.05
"""How many times the least possible number of tokens may be fed."""


def divide(
    lengths: Sequence[int], costs: Sequence[float] | None = None, pass_tokens: int = PASS_TOKENS
) -> Iterator[slice]:
    """Divide rows into consecutive chunks for which padding and the number of passes together cost the least.

    Args:
        lengths: The number of tokens of each row, the longest first.
        costs: What each row needs of the MAX_PREFILL_TOKENS that a chunk has room for; its length if not given. A row
            that needs more is a chunk.
        pass_tokens: What a pass costs beside its tokens, in tokens.
    """
    costs = lengths if costs is None else costs
    best, begins = [0.0], [0]  # the least cost of the first rows, and where the last chunk of them begins
    for end in range(1, len(lengths) + 1):
        best.append(float("inf"))
        begins.append(end - 1)
        widest = 0.0
        for begin in range(end - 1, -1, -1):
            widest = max(widest, costs[begin])
            if begin < end - 1 and (end - begin) * widest > MAX_PREFILL_TOKENS:
                break
            cost = best[begin] + pass_tokens + (end - begin) * lengths[begin]
            if cost <= best[end]:
                best[end], begins[end] = cost, begin
    ends = [len(lengths)]
    while ends[-1]:
        ends.append(begins[ends[-1]])
    yield from (slice(*each) for each in pairwise(reversed(ends)))


def divide_closely(lengths: Sequence[int], costs: Sequence[float], most_padding: float) -> list[slice]:
    """Divide rows as `divide` does, but with more passes if there would be more padding than is allowed."""
    for weight in PASS_WEIGHTS:
        parts = list(divide(lengths, costs, weight))
        if count_padding(lengths, parts) <= most_padding:
            break
    return parts


def count_padding(lengths: Sequence[int], parts: Sequence[slice]) -> int:
    """Return the number of tokens of padding in chunks of rows, the longest of which is the first of its chunk."""
    fed: int = sum((part.stop - part.start) * lengths[part.start] for part in parts)
    return fed - sum(lengths)


def chunks(lengths: Sequence[int], pads: bool = True, most: int = MAX_PREFILL_TOKENS) -> Iterator[slice]:
    """Split rows into consecutive chunks of limited size; a longer row is a chunk.

    Args:
        lengths: The number of tokens of each row.
        pads: Whether rows of different lengths may share a chunk.
        most: The largest number of tokens in a chunk, with padding.
    """
    begin = 0
    for end in range(1, len(lengths) + 1):
        width = max(lengths[begin : end + 1])
        full = end == len(lengths) or (end + 1 - begin) * width > most
        if full or not (pads or lengths[end] == lengths[begin]):
            yield slice(begin, end)
            begin = end


@lru_cache
def _inputs(forward: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters)


def _lengths_mask(rows: Sequence[Ids], device: torch.device) -> torch.Tensor | None:
    """Return an attention mask for right-padded rows, [rows, tokens], or None if there is no padding."""
    lengths = [len(row) for row in rows]
    width = max(lengths)
    if min(lengths) == width:
        return None
    return (torch.arange(width, device=device) < copy_to(lengths, device)[:, None]).long()
