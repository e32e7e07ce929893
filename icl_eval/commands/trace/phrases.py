"""Wording: how both pages put shapes, sizes, probabilities and invisible characters."""

from icl_eval.commands.trace.traces import CacheBlock, CacheState, Shape, TokenInfo, Trace
from icl_eval.formatting import count_noun

_PICTURES = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "␡", 0x0A: "⏎", 0x09: "⇥"}
_END = {
    "eos": "the model ended its text with {}",
    "stop": "the stop string {} appeared",
    "length": "it was as long as allowed: {}",
}


def visible(text: str) -> str:
    r"""Return text with pictures for characters that control a terminal, and for line ends: `a\n` is `a⏎`."""
    return text.translate(_PICTURES)


def visible_lines(text: str) -> str:
    """Return the same, with lines left as lines."""
    return "\n".join(map(visible, text.split("\n")))


def describe_label(token: TokenInfo) -> str:
    """Return what stands for a token among others."""
    return visible(token.text or token.piece) or f"<{token.id}>"


def describe_shape(shape: Shape) -> str:
    """Return a shape as `1 × 4 × 7 × 8`."""
    return " × ".join(map(str, shape))


def describe_size(count: int) -> str:
    """Return a number of bytes, rounded."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def describe_layers(block: CacheBlock) -> str:
    """Return which layers a block is about."""
    layers = f"layer {block.first_layer}"
    if block.last_layer > block.first_layer:
        layers = f"each of layers {block.first_layer} to {block.last_layer}"
    tensors = ", ".join(f"{name} {describe_shape(shape)}" for name, shape in block.shapes.items())
    return f"{block.attention}-attention, {layers}: {tensors}; {describe_size(block.bytes_per_layer)}"


def count_cached(state: CacheState) -> str:
    """Return how many of the decoder's tokens a cache holds in its first layer, and its size."""
    keys = [block.shapes["keys"] for block in state.blocks if "keys" in block.shapes]
    return f"{count_noun(keys[0][-2], 'token')}, {describe_size(state.bytes)}" if keys else describe_size(state.bytes)


def describe_probability(probability: float) -> str:
    """Return a probability in percent, with three digits that mean something."""
    percent = 100 * probability
    return f"{percent:.1f} %" if percent >= 0.05 else f"{percent:.1e} %"


def describe_end(trace: Trace) -> str:
    """Return why decoding ended."""
    shown = trace.ended_by if trace.finish_reason == "length" else repr(trace.ended_by)
    return _END[trace.finish_reason].format(shown)
