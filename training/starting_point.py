"""The starting point: weights from which looking things up in its own prompt is within a small model's reach.

From the usual random start, thousands of steps pass in which a model of this size only learns to guess one of the
answers in sight. What it lacks is a pair of attention heads that work together (an induction head, Olsson et al.,
2022, https://arxiv.org/abs/2209.11895): one copies what stands beside a token to where the token is, and one, a layer
above, finds the token. The start below gives it one such pair on either side, good for the smallest case there is:
a word, translated by another. All the rest is learned: phrases, the other families, where an answer ends, and
what to do with what was found.
"""

from typing import Any

import torch

from training.families import WORDS
from training.tokenizers import SYMBOLS, VOCABULARY

NEARBY = 0.6
"""How much less a head for what is near looks at a token for every token between."""
STRENGTH = 1.5
"""How strongly the pairs of heads write and read what they pass on."""


def prepare(model: Any) -> None:
    """Rewrite the weights of a fresh model in place; torch's seed decides on what is random in them."""
    with torch.no_grad():
        _tie_symbols(model.shared.weight)
        _look_nearby(model)
        for stack in (model.encoder, model.decoder):
            for block in stack.block:
                for layer in block.layer[:-1]:
                    _match_and_copy(layer)
                block.layer[-1].DenseReluDense.wo.weight.mul_(0.3)
        _pair_in_encoder(*(block.layer[0].SelfAttention for block in model.encoder.block[:2]))
        _pair_in_decoder(*(block.layer[0].SelfAttention for block in model.decoder.block[:2]))


def _tie_symbols(embeddings: torch.Tensor) -> None:
    """Let a symbol look alike with and without the space before it."""
    space = embeddings[VOCABULARY[" "]]
    for symbol in SYMBOLS:
        embeddings[VOCABULARY[f" {symbol}"]] = 0.9 * embeddings[VOCABULARY[symbol]] + 0.4 * space


def hold_words(model: Any) -> None:
    """Keep the embeddings of the invented words as they are, so that a word never seen is as good as any other."""
    learned = torch.ones(len(VOCABULARY), 1)
    for word in WORDS:
        learned[[VOCABULARY[word], VOCABULARY[f" {word}"]]] = 0
    model.shared.weight.register_hook(lambda gradient: gradient * learned)


def _look_nearby(model: Any) -> None:
    """Make some heads look backward, at the token before, or two and three ahead, by T5's bias for relative positions.

    The encoder's buckets 0 to 31 count tokens backward and 32 to 63 forward; all of the decoder's count backward.
    """
    bias = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight  # [buckets, heads]
    distance = torch.arange(32)
    bias.mul_(0.1)
    bias[:32, 0] -= NEARBY * distance
    bias[0, 0] -= 4
    bias[32:, 0] -= 10
    bias[32:, 1] -= NEARBY * distance
    bias[34:36, 1] += 4
    bias[:32, 1] -= 10
    bias[1, 2] += 5
    bias = model.decoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    bias.mul_(0.1)
    bias[:, 0] -= NEARBY * torch.arange(64)
    bias[0, 0] -= 2
    bias[2:4, 0] += 4
    bias[1, 1] += 5


def _match_and_copy(layer: Any) -> None:
    """Let heads find tokens like their own (equal queries and keys), and write what they read (`O = V^T`)."""
    attention = layer.SelfAttention if hasattr(layer, "SelfAttention") else layer.EncDecAttention
    width = attention.key_value_proj_dim
    queries = attention.k.weight * width**-0.5
    if hasattr(layer, "SelfAttention"):  # heads that look nearby are to look at whatever is there
        queries[: (2 if attention.is_decoder else 3) * width] *= 0.1
    attention.q.weight.copy_(queries)
    attention.o.weight.copy_(attention.v.weight.T)


def _pair_in_encoder(first: Any, second: Any) -> None:
    """What follows a token is in_memory to it (head 1); where it occurs again, that is fetched (head 3)."""
    width, model_width = first.key_value_proj_dim, first.d_model
    in_memory, fetched = _head(first, 1), _head(second, 3)
    content = torch.randn(width, model_width) * model_width**-0.5
    passage = _orthonormal(model_width, width) * STRENGTH
    first.v.weight[in_memory], first.o.weight[:, in_memory] = content, passage
    second.v.weight[fetched], second.o.weight[:, fetched] = passage.T, content.T * STRENGTH


def _pair_in_decoder(first: Any, second: Any) -> None:
    """An answer's token is told its question (head 0), a question's end too (head 1), and the two meet (head 2)."""
    width, model_width = first.key_value_proj_dim, first.d_model
    content = torch.randn(width, model_width) * model_width**-0.5
    asked, shown = _orthonormal(model_width, 2 * width).split(width, dim=1)
    for head, passage in ((_head(first, 1), asked), (_head(first, 0), shown)):
        first.v.weight[head], first.o.weight[:, head] = content, passage * STRENGTH
    rotation = _orthonormal(width, width) * 2
    second.q.weight[_head(second, 2)] = rotation @ asked.T
    second.k.weight[_head(second, 2)] = rotation @ shown.T


def _head(attention: Any, index: int) -> slice:
    width = attention.key_value_proj_dim
    return slice(index * width, (index + 1) * width)


def _orthonormal(rows: int, columns: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(rows, columns))[0]
