"""Format shapes, sizes, probabilities and invisible characters, for the terminal and for the page."""

from icl_eval.commands.trace.traces import CacheBlock, CacheState, HeadMap, Heads, Shape, TokenInfo, Trace
from icl_eval.formatting import count_noun

_PICTURES = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "␡", 0x0A: "⏎", 0x09: "⇥"}
_END = {
    "eos": "the model generated {}",
    "stop": "the stop string {} appeared",
    "length": "the limit is {}",
}

_ATTENTIONS = {"encoder": "encoder", "self": "decoder", "cross": "cross-attention"}
_TARGETS = {
    "induction": "behind its first occurrence (induction)",
    "previous_token": "the previous token",
    "same_token": "its first occurrence",
    "answers": "the demonstrations' answers",
    "right_answers": "the right ones among them",
}
_NUM_STRONGEST = 5


def visible(text: str) -> str:
    r"""Return a string with control characters, including line breaks, replaced by symbols: `a\n` becomes `a⏎`."""
    return text.translate(_PICTURES)


def visible_lines(text: str) -> str:
    """Return a string with its control characters replaced by symbols, except for line breaks."""
    return "\n".join(map(visible, text.split("\n")))


def describe_label(token: TokenInfo) -> str:
    """Return a short label of a token: its text, its piece or its id."""
    return visible(token.text or token.piece) or f"<{token.id}>"


def describe_shape(shape: Shape) -> str:
    """Return a shape in the form `1 × 4 × 7 × 8`."""
    return " × ".join(map(str, shape))


def describe_size(count: int) -> str:
    """Return a rounded number of bytes with its unit."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def describe_layers(block: CacheBlock) -> str:
    """Describe the layers, the tensors and the size of a cache block."""
    layers = f"layer {block.first_layer}"
    if block.last_layer > block.first_layer:
        layers = f"each of layers {block.first_layer} to {block.last_layer}"
    tensors = ", ".join(f"{name} {describe_shape(shape)}" for name, shape in block.shapes.items())
    return f"{block.attention}-attention, {layers}: {tensors}; {describe_size(block.bytes_per_layer)}"


def count_cached(state: CacheState) -> str:
    """Return the number of decoder tokens in the first layer of a cache, and the size of the cache."""
    keys = [block.shapes["keys"] for block in state.blocks if "keys" in block.shapes]
    return f"{count_noun(keys[0][-2], 'token')}, {describe_size(state.bytes)}" if keys else describe_size(state.bytes)


def describe_probability(probability: float) -> str:
    """Return a probability in percent, in scientific notation if it is very small."""
    percent = 100 * probability
    return f"{percent:.1f} %" if percent >= 0.05 else f"{percent:.1e} %"


def describe_end(trace: Trace) -> str:
    """Describe why decoding ended."""
    shown = trace.ended_by if trace.finish_reason == "length" else repr(trace.ended_by)
    return _END[trace.finish_reason].format(shown)


def describe_attention(shown: HeadMap) -> str:
    """Return the name of a kind of attention: the self-attention of one side, or cross-attention."""
    return _ATTENTIONS[shown.attention]


def describe_target(shown: HeadMap) -> str:
    """Return what the attention of a map goes to."""
    return _TARGETS[shown.target]


def describe_strongest(shown: HeadMap) -> str:
    """Return the heads with the highest scores, the highest first: `L5H1=0.93 L6H0=0.41`."""
    scores = [(-score, layer, head) for layer, heads in enumerate(shown.scores) for head, score in enumerate(heads)]
    return " ".join(f"L{layer}H{head}={-score:.2f}" for score, layer, head in sorted(scores)[:_NUM_STRONGEST])


def explain_heads(heads: Heads) -> str:
    """Return what the numbers about heads mean."""
    explanation = (
        "Share of a head's attention, and the same for a head that attends to all tokens evenly. Layers (L) and heads "
        f"(H) are counted from 0. The first three targets: from each token of the second copy of {heads.num_sequences} "
        f"sequences of {heads.sequence_length} random tokens, written twice; the mean."
    )
    if heads.answers:
        explanation += " The answers: this prompt, from the last token before the model's answer."
    return explanation
