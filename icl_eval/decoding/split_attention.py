"""Attend to a prefix that all rows share in place, without copying it for every row.

Attention over the shared prefix and attention over a row's own tokens are computed separately, each by the best kernel
that the device has (see `kernels`), and then combined exactly by their softmax denominators. Scores are
stored only where a device has no kernel.

For the prefix, the queries of all rows form one long list of queries to a single set of keys. A row's own keys are
stored in slots:

    columns     0 1 2 3 4 5 6 7          rows are right-aligned, so that a step writes one column
    row 0       . . a b c d              `.` is masked; its position is prefix + column - first column
    row 1       a b c d e f

Where a pass runs whole prompts at once, and keeps nothing of them, their tokens stand one after the other without any
padding (`PackedCache`); only attention sees them as rows, which may have tokens in common (`Packing`).

What else a network may ask of its attention, and what is done about it:

    scale of the scores           given to the kernel
    fewer key heads than queries  query heads with the same key head are further queries to it; no key is repeated
    sliding window                nothing, as long as the window holds the whole row; longer rows are not split
    soft cap of the scores        the formula, because no kernel here has one
    attention sinks               not split
    ALiBi, relative positions     not split: what is added to scores depends on the distance, so on the row

Rows that are not split hold copies of the prefix, and their network's own attention reads those (`UniformSession`,
`PaddedSession`, `PooledCache`).

The networks of transformers run unchanged: their cache returns keys in two parts (`SplitKeys`), and an attention
function registered with transformers handles them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from icl_eval.decoding.kernels import (
    FORMULA,
    AttentionCall,
    OutAndDenominator,
    additive_mask,
    attend,
    choose_kernel,
    merge,
)
from icl_eval.decoding.memory import head_sizes
from icl_eval.decoding.split_caches import Packing, SplitKeys
from icl_eval.models.states import configs_of
from icl_eval.models.switching import AS_FOUND, Switch, switched

NAME = "icl_eval_split"
"""Name of the attention function in the registry of transformers."""

_NOT_SPLIT = {
    "s_aux": "attention sinks",
    "position_bias": "biases of relative positions",
}
"""Arguments that change scores or their softmax, by the names that networks give them in transformers."""


def stores_scores(network: PreTrainedModel, splits: bool) -> bool:
    """Return whether attention stores the scores of all queries and keys of a layer.

    Args:
        network: The network.
        splits: Whether rows attend to the prefix in place, with the kernels chosen here.
    """
    if not splits:
        return bool(network.config._attn_implementation == "eager")
    if getattr(network.config.get_text_config(decoder=True), "attn_logit_softcapping", None) is not None:
        return True
    calls = (AttentionCall(network.dtype, *head_sizes(network.config), masked) for masked in (False, True))
    return any(choose_kernel(network.device, call) is FORMULA for call in calls)


def split_attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor | SplitKeys,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as `sdpa` of transformers does, or in two parts if the cache returned `SplitKeys`.

    Args:
        module: The attention layer.
        query: [rows, heads, queries, head size]
        key: The keys that the cache returned.
        value: The values that the cache returned; not used with `SplitKeys`.
        attention_mask: The mask of transformers; not used with `SplitKeys`, which have their own.
        scaling: Factor of the scores.
        dropout: Dropout rate of the attention weights; 0 outside training.
        softcap: The bound of the scores; None for none.
        options: Further arguments that the network passes to its attention.

    Returns:
        The attention output, [rows, queries, heads, head size], and None instead of the weights.

    Raises:
        NotImplementedError: If the network uses an option that split attention does not support.
    """
    if not isinstance(key, SplitKeys) and softcap is not None:
        return _attend_capped(query, key, value, attention_mask, scaling, softcap), None
    if not isinstance(key, SplitKeys):
        out: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **options
        )
        return out
    unsupported = [what for name, what in _NOT_SPLIT.items() if options.get(name) is not None]
    if unsupported:
        raise NotImplementedError(f"split attention does not support {', '.join(unsupported)}")
    window = options.get("sliding_window")
    if window is not None and key.num_tokens > window:
        raise NotImplementedError(f"split attention does not support a window of {window} for {key.num_tokens} tokens")
    attend_to = partial(attend, scale=scaling, softcap=softcap)
    return _attend_in_two_parts(query, key, attend_to).transpose(1, 2).contiguous(), None


def _attend_capped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    seen: torch.Tensor | None,
    scale: float | None,
    softcap: float,
) -> torch.Tensor:
    """Attend to a plain cache with capped scores, which `sdpa` of transformers leaves as they are.

    Args:
        query: [rows, heads, queries, head size]
        key: [rows, key/value heads, keys, head size]
        value: [rows, key/value heads, keys, head size]
        seen: Whether each query sees each key, [rows, 1, queries, keys]; None for all keys up to the query's own.
        scale: Factor of the scores.
        softcap: The bound of the scores.

    Returns:
        [rows, queries, heads, head size]
    """
    rows, heads, queries, size = query.shape
    kv_heads, num_keys = key.shape[1:3]
    if seen is None:
        every = torch.ones(1, 1, queries, num_keys, dtype=torch.bool, device=query.device)
        seen = every.tril(num_keys - queries)
    mask = additive_mask(seen[:, 0], query.dtype, heads // kv_heads)
    grouped = query.reshape(rows, kv_heads, heads // kv_heads * queries, size)
    out, _ = attend(grouped, key, value, mask, scale, softcap)
    return out.reshape(rows, heads, queries, -1).transpose(1, 2).contiguous()


def _attend_in_two_parts(
    query: torch.Tensor, keys: SplitKeys, attend_to: Callable[..., OutAndDenominator]
) -> torch.Tensor:
    rows, heads, queries, size = query.shape
    kv_heads = keys.own_keys.shape[1]
    group = heads // kv_heads
    # Query heads that share a key head become further queries to it, so that no key is repeated.
    grouped = query.reshape(rows, kv_heads, group * queries, size)
    if keys.packing is None:
        mask = None if keys.mask is None else keys.mask.lay_out(group, query.device)
        own, own_denominator = attend_to(grouped, keys.own_keys, keys.own_values, mask)
    else:
        packed = grouped.reshape(kv_heads, group, queries, size)
        own, own_denominator = _attend_packed(packed, keys, keys.packing, attend_to)
    if keys.prefix is not None:
        # The queries of all rows become one list of queries: [1, kv heads, rows * group * queries, size].
        flat = grouped.transpose(0, 1).reshape(1, kv_heads, rows * group * queries, size)
        shared, shared_denominator = attend_to(flat, *keys.prefix, None)
        shared = shared.reshape(kv_heads, rows, group * queries, -1).transpose(0, 1)
        shared_denominator = shared_denominator.reshape(kv_heads, rows, group * queries).transpose(0, 1)
        own = merge(shared, shared_denominator, own, own_denominator)
    return own.reshape(rows, heads, queries, -1)


def _attend_packed(
    query: torch.Tensor, keys: SplitKeys, packing: Packing, attend_to: Callable[..., OutAndDenominator]
) -> OutAndDenominator:
    """Attend to own tokens, which are packed, as `attend` does for one row.

    Args:
        query: [key/value heads, group, columns, head size]
        keys: The keys and values of the same columns.
        packing: How the columns form rows.
        attend_to: `attend` with the network's options.

    Returns:
        [1, key/value heads, group * columns, value size] and [1, key/value heads, group * columns]
    """
    kv_heads, group, columns, _ = query.shape
    by_column = query.permute(2, 0, 1, 3).flatten(1)
    key, value = (states[0].transpose(0, 1).flatten(1) for states in (keys.own_keys, keys.own_values))
    outs: list[torch.Tensor] = []
    denominators: list[torch.Tensor] = []
    for part in packing.parts:
        rows, queries = part.queries.shape
        taken = _take(by_column, part.queries).reshape(rows, queries, kv_heads, group, -1)
        grouped = taken.permute(0, 2, 3, 1, 4).reshape(rows, kv_heads, group * queries, -1)
        own_keys, own_values = (
            _take(states, part.keys).reshape(*part.keys.shape, kv_heads, -1).transpose(1, 2) for states in (key, value)
        )
        out, lse = attend_to(grouped, own_keys, own_values, part.mask.lay_out(group, query.device))
        for states, found in ((out, outs), (lse, denominators)):
            by_head = states.reshape(rows, kv_heads, group, queries, -1)
            found.append(by_head.permute(0, 3, 1, 2, 4).reshape(rows * queries, -1))
    own, own_lse = (
        (found[0] if len(found) == 1 else torch.cat(found))
        .index_select(0, packing.places)
        .reshape(columns, kv_heads, group, -1)
        .permute(1, 2, 0, 3)
        for found in (outs, denominators)
    )
    return own.reshape(1, kv_heads, group * columns, -1), own_lse.reshape(1, kv_heads, group * columns)


def _take(states: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return the states of some columns, [rows * columns, size], from [columns, size]."""
    return states.index_select(0, columns.flatten())


def attention_switches(network: PreTrainedModel) -> list[Switch]:
    """Return the switches that turn split attention on; an empty list if another kind of attention was chosen.

    `eager` was chosen by transformers if the network has no `sdpa`, as those with a soft cap.
    """
    chosen = network.config._attn_implementation
    by_default = chosen == "eager" and network._supports_attention_backend and not network._supports_sdpa
    if chosen != "sdpa" and not by_default:
        return []
    attribute = "_attn_implementation_internal"
    configs = configs_of(network)
    with switched(network, [Switch(vars(config), attribute, AS_FOUND) for config in configs]):
        try:
            network.set_attn_implementation(NAME)
        except (NotImplementedError, ValueError):
            return []
        changed = [config for config in configs if config._attn_implementation == NAME]
    return [Switch(vars(config), attribute, NAME) for config in changed]


AttentionInterface.register(NAME, split_attention_forward)
AttentionMaskInterface.register(NAME, sdpa_mask)
