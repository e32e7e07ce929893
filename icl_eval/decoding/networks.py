"""Networks: running one, whatever its architecture, so that the rest of decoding sees only ids, caches and logits."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from transformers import Cache, DynamicCache, EncoderDecoderCache, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import MoEModelOutput

from icl_eval.decoding.sharing import Ids
from icl_eval.errors import IclEvalError

MAX_PREFILL_TOKENS = 2048
"""Tokens of one forward pass that runs prompts. More at once gains nothing and costs padding and memory."""


def run(
    network: PreTrainedModel,
    ids: Sequence[Sequence[int]],
    cache: Cache,
    encoded: torch.Tensor | None,
    encoder_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Append equally many tokens to each row of a cache and return the logits after them, [rows, vocabulary]."""
    return run_columns(network, ids, cache, encoded, encoder_mask, count=1)[:, -1]


def run_columns(
    network: PreTrainedModel,
    ids: Sequence[Sequence[int]],
    cache: Cache,
    encoded: torch.Tensor | None,
    encoder_mask: torch.Tensor | None,
    count: int,
) -> torch.Tensor:
    """Do the same and return the logits after each of the last `count` tokens, [rows, count, vocabulary]."""
    input_ids = torch.tensor([list(row) for row in ids], device=network.device)
    if encoded is None:
        positions = {}
        if takes(network, "position_ids"):  # as `generate` gives them: left alone, some networks begin elsewhere
            begin = cache.get_seq_length()
            positions = {"position_ids": torch.arange(begin, begin + input_ids.shape[1], device=network.device)[None]}
        return logits_of_columns(network, count, input_ids=input_ids, past_key_values=cache, **positions)
    return logits_of_columns(
        network,
        count,
        decoder_input_ids=input_ids,
        past_key_values=cache,
        encoder_outputs=MoEModelOutput(last_hidden_state=encoded),  # with room for what experts report
        attention_mask=encoder_mask,
    )


@torch.inference_mode()
def encode(network: PreTrainedModel, rows: Sequence[Ids]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Run the encoder.

    A few rows at a time: with many, the padding of the shorter ones, and position biases that are expanded for
    every row, cost more than what is gained.

    Args:
        network: An encoder-decoder network.
        rows: The token ids of each row; the longest first is best.

    Returns:
        States [rows, tokens, size], and which of them are tokens [rows, tokens] (None for all).
    """
    states = []
    encoder = network.get_encoder()
    # Where a window holds nothing but padding there is a softmax over nothing, and what is not a number spreads;
    # sparse attention lets all see the last block, and is full where an input is short.
    windowed = getattr(encoder.config, "sliding_window", None) is not None
    pads = not windowed and getattr(encoder.config, "attention_type", None) != "block_sparse"
    for chunk in chunks([len(row) for row in rows], pads):
        reset_attention(network)
        ids = rows[chunk]
        width = max(map(len, ids))
        input_ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in ids], device=network.device)
        output = encoder(input_ids=input_ids, attention_mask=_lengths_mask(ids, network.device))
        states += list(output.last_hidden_state)
    return torch.nn.utils.rnn.pad_sequence(states, batch_first=True), _lengths_mask(rows, network.device)


def reset_attention(network: PreTrainedModel) -> None:
    """Let an encoder attend as its config says: a short input turns sparse attention into full, for good."""
    encoder: Any = network.get_encoder() if network.config.is_encoder_decoder else None
    if hasattr(encoder, "set_attention_type"):
        encoder.set_attention_type(encoder.config.attention_type)


def decoder_of(network: PreTrainedModel) -> Any:
    """Return the part of a network that writes; its vocabulary need not be the encoder's."""
    return network.get_decoder() if network.config.is_encoder_decoder else network


def new_cache(config: PreTrainedConfig) -> Cache:
    """Return an empty cache of the kind that a network's layers need."""
    if config.is_encoder_decoder:
        # The decoder's windows are not for what it reads of the encoder.
        return EncoderDecoderCache(DynamicCache(config=config), DynamicCache())
    return DynamicCache(config=config)


def rope_switches_at(config: PreTrainedConfig) -> int | None:
    """Return beyond how many tokens all positions of a pass turn by other angles (`longrope`); None for never."""
    parameters = getattr(config.get_text_config(decoder=True), "rope_parameters", None) or {}
    by_layer_type = [each for each in parameters.values() if isinstance(each, dict)]
    limits = [
        int(each["original_max_position_embeddings"])
        for each in (parameters, *by_layer_type)
        if each.get("rope_type") == "longrope"
    ]
    return min(limits, default=None)


def last_logits(network: PreTrainedModel, **inputs: Any) -> torch.Tensor:
    """Run a network and return the logits of the last column, [rows, vocabulary]."""
    return logits_of_columns(network, 1, **inputs)[:, -1]


@torch.inference_mode()
def logits_of_columns(network: PreTrainedModel, count: int, **inputs: Any) -> torch.Tensor:
    """Run a network and return the logits of the last columns, [rows, count, vocabulary]."""
    # An index, since a slice of the last position is not contiguous, and a product with it copies the weight for
    # every row (torch 2.13).
    option = {"logits_to_keep": torch.arange(-count, 0)} if takes(network, "logits_to_keep") else {}
    logits: torch.Tensor = network(use_cache=True, **option, **inputs).logits
    return logits[:, -count:]


def all_finite(logits: torch.Tensor) -> torch.Tensor:
    """Return whether the largest logit of each row is a number, [rows]; minus infinity is one that never comes."""
    return logits.max(dim=-1).values < float("inf")  # which what is not a number is not, either


def not_finite(what: str, dtype: torch.dtype) -> IclEvalError:
    """Return the error for a number that a network has made useless.

    Args:
        what: The number, with the question that it came up at.
        dtype: What the network computes in.
    """
    name, cause = str(dtype).removeprefix("torch."), "the weights are damaged, or were made so by a change"
    if dtype in (torch.float16, torch.bfloat16):
        cause = f"{name} may be too narrow for this model (dtype=float32 is not), or {cause}"
    return IclEvalError(f"{what} is not a finite number in {name}: {cause}")


def takes(network: PreTrainedModel, name: str) -> bool:
    """Return whether a network has an input of this name."""
    return name in _inputs(type(network).forward)


def chunks(lengths: Sequence[int], pads: bool = True) -> Iterator[slice]:
    """Cut rows of these lengths into neighbours whose padded size is at most MAX_PREFILL_TOKENS, or single rows.

    Args:
        lengths: How many tokens each row has.
        pads: Whether rows of different lengths may be together.
    """
    begin = 0
    for end in range(1, len(lengths) + 1):
        width = max(lengths[begin : end + 1])
        full = end == len(lengths) or (end + 1 - begin) * width > MAX_PREFILL_TOKENS
        if full or not (pads or lengths[end] == lengths[begin]):
            yield slice(begin, end)
            begin = end


@lru_cache
def _inputs(forward: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters)


def _lengths_mask(rows: Sequence[Ids], device: torch.device) -> torch.Tensor | None:
    """Return ones for tokens and zeros for the padding after them, [rows, tokens]; None without padding."""
    lengths = torch.tensor([len(row) for row in rows], device=device)
    width = int(lengths.max())
    if bool((lengths == width).all()):
        return None
    return (torch.arange(width, device=device) < lengths[:, None]).long()
