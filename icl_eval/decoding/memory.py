"""Decide how many rows to decode together, and how much memory the caches of prefixes may take.

Beside the weights, decoding a group of prompts that share a prefix needs memory for

    the prefix      tokens × bytes per token, once for all rows (or for each row, if the network cannot share it)
    the rows        rows × their own tokens × bytes per token
    a forward pass  the states of its tokens in the widest layer, the logits of each row and, where attention computes
                    its formula instead of calling a kernel, the scores of all queries and keys of a layer, in float32

all of which follow from a network's configuration, its dtype and the lengths. If memory runs out all the same, `stream`
and `log_probs` continue with fewer rows.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from icl_eval.errors import IclEvalError
from icl_eval.models.memory import free_bytes, swap_bytes

MAX_ROWS = 64
"""More rows per step gain little once the cost of reading the weights is spread over many, and they finish later."""
MANY_PROMPTS = 256
"""From this number of prompts on, twice as many rows pay off."""
MAX_ROWS_ON_GPU = 256
"""About as many as a GPU multiplies with a weight while it reads the next one: in bfloat16 150 on an A100, 160 on an
RTX 4090 and 300 on an H100, by their maker's data sheets."""
_USABLE = 0.75
"""The share of the free memory that is planned for; the allocator's gaps and other programs need the rest."""
_SHARE_OF_PREFIXES = 0.5
"""The share of the memory beside the weights that kept prefixes may take."""
_UNKNOWN_ROOM = 1_000_000_000
"""The bytes that kept prefixes may take if the free memory is unknown."""
_SMALL = 250_000_000
"""The rows of a small network may take this many bytes, whatever the size of its weights."""
_FLOAT32 = 4
_SCORE_COPIES = 3
"""Scores, scores minus the denominator, and weights exist at the same time."""
_LOGIT_COPIES = 2
"""Logits are compared in float32, in a copy of their own."""


@dataclass(frozen=True)
class NetworkSize:
    """The sizes on which the memory of decoding depends."""

    bytes_per_token: int
    """Size of one token's keys and values in all layers."""
    num_heads: int
    num_key_value_heads: int
    head_size: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    item_bytes: int
    """Size of a number in the network's dtype."""
    stores_scores: bool
    """Whether attention to what rows share stores the scores of a layer."""


@dataclass(frozen=True)
class Lengths:
    """The numbers of tokens in a group of prompts."""

    shared: int
    """Tokens of the prefix that all rows attend to in place; otherwise, all tokens of a row."""
    columns: int
    """The largest number of tokens that a row stores for itself."""
    own: int
    """The largest number of tokens of a new row that are not computed yet."""
    most_together: int | None
    """The largest number of tokens in a forward pass; None if new rows are computed together, however many they are."""

    def count_together(self, num_rows: int) -> int:
        """Return the number of tokens in the largest forward pass of a number of rows."""
        together = num_rows * self.own
        return max(num_rows, together if self.most_together is None else min(together, self.most_together))


def read_size(config: Any, item_bytes: int, stores_scores: bool, bytes_per_token: int | None = None) -> NetworkSize:
    """Read the sizes of a network from its configuration.

    Args:
        config: The configuration, of transformers.
        item_bytes: Size of a number in the network's dtype.
        stores_scores: See `NetworkSize`.
        bytes_per_token: Size of one token's keys and values, if it was measured; None to compute it.
    """
    text = config.get_text_config(decoder=True)
    hidden = _read(text, "hidden_size", "d_model") or 1
    heads = _read(text, "num_attention_heads", "num_heads") or 1  # a recurrent network has none
    pairs = _read(text, "num_key_value_heads", "num_kv_heads") or heads
    if hasattr(text, "new_decoder_architecture"):  # Falcon keeps one head, or repeats its few for all queries
        pairs = 1 if text.multi_query and not text.new_decoder_architecture else heads
    head_size = _read(text, "head_dim", "d_kv") or hidden // heads
    if bytes_per_token is None:
        latent = _read(text, "kv_lora_rank")  # DeepSeek-V2 keeps one for all heads, and a rotated part of the keys
        numbers = latent + _read(text, "qk_rope_head_dim") if latent else 2 * pairs * head_size
        bytes_per_token = text.num_hidden_layers * numbers * item_bytes
    width = _read(text, "intermediate_size", "ffn_dim", "decoder_ffn_dim", "d_ff") or 4 * hidden
    experts = _read(text, "num_experts_per_tok") * (_read(text, "moe_intermediate_size") or width)
    return NetworkSize(
        bytes_per_token=bytes_per_token,
        num_heads=heads,
        num_key_value_heads=pairs,
        head_size=head_size,
        hidden_size=hidden,
        intermediate_size=max(width, experts),  # a mixture of experts runs several for each token
        vocab_size=_read(text, "vocab_size"),
        item_bytes=item_bytes,
        stores_scores=stores_scores,
    )


def head_sizes(config: Any) -> tuple[int, int]:
    """Return the size of a key and of a value, for each head; a latent form of both (DeepSeek-V2) has two sizes."""
    text = config.get_text_config(decoder=True)
    size = read_size(config, item_bytes=1, stores_scores=False).head_size
    return _read(text, "qk_head_dim") or size, _read(text, "v_head_dim") or size


def _read(config: Any, *names: str) -> int:
    """Return the first of some sizes that a configuration has, or 0; the largest, if it differs between layers."""
    for name in names:
        value = getattr(config, name, None)
        if value:
            return max(value) if isinstance(value, list | tuple) else int(value)
    return 0


def prompt_bytes(config: Any, item_bytes: int, num_tokens: int) -> int:
    """Return the size of a prompt's keys and values, in the layers that keep those of every token.

    Args:
        config: The configuration, of transformers.
        item_bytes: Size of a number in the network's dtype.
        num_tokens: The number of tokens of the prompt and its completion.
    """
    text = config.get_text_config(decoder=True)
    kind = "sliding_attention" if getattr(text, "sliding_window", None) else "full_attention"
    kinds = list(getattr(text, "layer_types", None) or [kind])  # without a list, all layers are of one kind
    size = read_size(config, item_bytes, stores_scores=False)
    return size.bytes_per_token * kinds.count("full_attention") * num_tokens // len(kinds)


def bias_bytes(config: Any, item_bytes: int, num_tokens: int) -> int:
    """Return the size of the position biases of an encoder's attention: one for each head and pair of tokens.

    Encoders of T5's kind have them (Raffel et al., 2020, arXiv:1910.10683); where attention is local (LongT5), and in
    networks without such an encoder, there are none to speak of.

    Args:
        config: The configuration, of transformers.
        item_bytes: Size of a number in the network's dtype.
        num_tokens: The number of tokens that the encoder reads.
    """
    if not hasattr(config, "relative_attention_num_buckets") or hasattr(config, "encoder_attention_type"):
        return 0
    return int(config.num_heads) * num_tokens**2 * item_bytes


def require_room(network: Any, num_tokens: int, num_encoded: int, kept: int) -> None:
    """Refuse a prompt whose keys and values alone do not fit, or position biases of its encoder; raises IclEvalError.

    Args:
        network: The network, on its devices.
        num_tokens: The number of tokens of the longest prompt and its completion.
        num_encoded: The largest number of tokens that the encoder reads.
        kept: The number of bytes that prefixes of earlier prompts take, which make room if memory runs out.
    """
    free = free_bytes_of(network)
    if not free:
        return
    free += kept
    config, item_bytes = network.config, network.dtype.itemsize
    for count, needed, what, remedy in (
        (
            num_tokens,
            prompt_bytes(config, item_bytes, num_tokens),
            "its keys and values",
            "another dtype or a model with fewer key/value heads",
        ),
        (
            num_encoded,
            bias_bytes(config, item_bytes, num_encoded),
            "the position biases of its encoder",
            "another dtype or a model without them",
        ),
    ):
        if free + swap_bytes(network.device.type) < needed:
            raise IclEvalError(
                f"a prompt of {count:,} tokens needs {needed / 1e9:,.1f} GB for {what}, and {network.device} has "
                f"{free / 1e9:,.1f} GB free: lower num_fewshot, or use {remedy}"
            )


def pass_bytes(size: NetworkSize, num_tokens: int, num_rows: int, shared: int) -> int:
    """Return what a forward pass needs for a moment.

    Args:
        size: The sizes of the network.
        num_tokens: The number of tokens in the pass, of all rows.
        num_rows: The number of rows, each of which gets its logits.
        shared: The number of shared tokens that all of them attend to.
    """
    widths = 4 * size.hidden_size + 2 * size.num_heads * size.head_size + 3 * size.intermediate_size
    states = num_tokens * widths * size.item_bytes
    logits = num_rows * size.vocab_size * (size.item_bytes + _LOGIT_COPIES * _FLOAT32)
    if not size.stores_scores:
        return states + logits
    scores = _SCORE_COPIES * size.num_heads * num_tokens * shared * _FLOAT32
    keys = 2 * size.num_key_value_heads * size.head_size * shared * _FLOAT32  # copies of keys and values
    return states + logits + scores + keys


def rows_bytes(size: NetworkSize, lengths: Lengths, num_rows: int) -> int:
    """Return what decoding a number of rows needs, beside the weights and the shared prefix."""
    cache = num_rows * lengths.columns * size.bytes_per_token
    return cache + pass_bytes(size, lengths.count_together(num_rows), num_rows, lengths.shared)


def round_up(num_rows: int) -> int:
    """Return the number of slots for some rows on a GPU: 1 to 8, 10, 12, 14, 16, 20 and so on, four for each doubling.

    A step is recorded for each of these sizes (see `cuda_graphs`), and there are few of them.
    """
    step = 1 << max(0, (num_rows - 1).bit_length() - 3)
    return -(-num_rows // step) * step


def choose_num_rows(num_prompts: int, size: NetworkSize, lengths: Lengths, free: int, device_type: str) -> int:
    """Return how many rows to decode together.

    Args:
        num_prompts: The number of prompts in the group.
        size: The sizes of the network.
        lengths: The numbers of tokens.
        free: The number of free bytes, with the prefix in memory; 0 if it is unknown. Then as many rows as pay off are
            tried, and the decoder reduces them if memory runs out.
        device_type: The type of device that the network is on, such as "cpu" or "cuda".
    """
    on_gpu = device_type == "cuda"
    most = MAX_ROWS_ON_GPU if on_gpu else MAX_ROWS if num_prompts < MANY_PROMPTS else 2 * MAX_ROWS
    most = max(1, min(num_prompts, most))
    if not free:
        return most
    slots = round_up if on_gpu else int
    fitting = (rows for rows in range(most, 0, -1) if rows_bytes(size, lengths, slots(rows)) <= _USABLE * free)
    return next(fitting, 1)


def count_worthwhile(weight_bytes: int, size: NetworkSize, lengths: Lengths) -> int:
    """Return how many rows are worth their memory on a processor, before any new token.

    A step reads the weights once and the keys and values of every row. Once these are half as large as the weights,
    more rows gain little and take memory: 29 rows instead of 13 took 5 to 15 % less time and 0.35 GB more
    (SmolLM2-135M, prompts that share nothing).

    Args:
        weight_bytes: The size of the weights.
        size: The sizes of the network.
        lengths: The numbers of tokens.
    """
    return max(1, max(weight_bytes // 2, _SMALL) // max(1, lengths.own * size.bytes_per_token))


def room_for_prefixes(free: int, kept: int) -> int:
    """Return how many bytes kept prefixes may take, if the user gives no limit.

    The prefix in use is kept beyond that: it is in memory anyway.

    Args:
        free: The number of free bytes; 0 if it is unknown.
        kept: The size of the prefixes that are in memory.
    """
    return int((free + kept) * _SHARE_OF_PREFIXES) if free else _UNKNOWN_ROOM


def free_bytes_of(network: Any) -> int:
    """Return how many bytes a network's caches can take on its devices, or 0 if it is unknown.

    Layers on several devices fill each of them with its share of the whole.
    """
    sizes: Counter[str] = Counter()
    for parameter in network.parameters():
        if parameter.device.type != "meta":  # offloaded weights are computed with on another device
            sizes[str(parameter.device)] += parameter.nbytes
    if len(sizes) == 1:
        return free_bytes(next(iter(sizes)))
    total = sum(sizes.values())
    return min((free_bytes(device) * total // size for device, size in sizes.items()), default=0)
