"""Initialize the weights so that a small model can learn to look things up in its own prompt.

From the usual random initialization, a model of this size spends thousands of steps learning only to guess one of the
answers in its prompt. It lacks a pair of attention heads that work together (an induction head, Olsson et al., 2022,
https://arxiv.org/abs/2209.11895): one head copies the content next to a token to the token's position, and a head in
the next layer finds the token. The initialization below provides one such pair in the encoder and one in the decoder,
enough for the smallest case, a word translated by another word. Everything else is learned: phrases, the other
families, where an answer ends, and how to use what the heads retrieve.
"""

from typing import Any

import torch

from training.families import WORDS
from training.tokenizers import SYMBOLS, VOCABULARY

NEARBY = 0.6
"""Decrease of the attention bias per token of distance, for heads that attend to nearby tokens."""
STRENGTH = 1.5
"""Scale of the weights through which the two heads of a pair pass content on."""


def prepare(model: Any) -> None:
    """Rewrite the weights of a fresh model in place; torch's seed determines their random parts."""
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
    """Give a symbol similar embeddings with and without the space before it."""
    space = embeddings[VOCABULARY[" "]]
    for symbol in SYMBOLS:
        embeddings[VOCABULARY[f" {symbol}"]] = 0.9 * embeddings[VOCABULARY[symbol]] + 0.4 * space


def hold_words(model: Any) -> None:
    """Freeze the embeddings of the invented words, so that unseen words are as good as seen ones."""
    learned = torch.ones(len(VOCABULARY), 1)
    for word in WORDS:
        learned[[VOCABULARY[word], VOCABULARY[f" {word}"]]] = 0
    model.shared.weight.register_hook(lambda gradient: gradient * learned)


def _look_nearby(model: Any) -> None:
    """Make some heads attend backward, to the previous token, or two and three tokens ahead, by T5's position bias.

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
    """Make heads find tokens like their own (equal queries and keys) and copy their content (`O = V^T`)."""
    attention = layer.SelfAttention if hasattr(layer, "SelfAttention") else layer.EncDecAttention
    width = attention.key_value_proj_dim
    queries = attention.k.weight * width**-0.5
    if hasattr(layer, "SelfAttention"):  # nearby heads attend by position, whatever the content
        queries[: (2 if attention.is_decoder else 3) * width] *= 0.1
    attention.q.weight.copy_(queries)
    attention.o.weight.copy_(attention.v.weight.T)


def _pair_in_encoder(first: Any, second: Any) -> None:
    """Copy the content that follows a token to it (head 1), and fetch it where the token occurs again (head 3)."""
    width, model_width = first.key_value_proj_dim, first.d_model
    brought, fetched = _head(first, 1), _head(second, 3)
    content = torch.randn(width, model_width) * model_width**-0.5
    passage = _orthonormal(model_width, width) * STRENGTH
    first.v.weight[brought], first.o.weight[:, brought] = content, passage
    second.v.weight[fetched], second.o.weight[:, fetched] = passage.T, content.T * STRENGTH


def _pair_in_decoder(first: Any, second: Any) -> None:
    """Copy the question to the answer's token (head 0) and to the question's end (head 1), and match both (head 2)."""
    width, model_width = first.key_value_proj_dim, first.d_model
    content = torch.randn(width, model_width) * model_width**-0.5
    asked, shown = torch.split(_orthonormal(model_width, 2 * width), width, dim=1)
    for head, passage in ((_head(first, 1), asked), (_head(first, 0), shown)):
        first.v.weight[head], first.o.weight[:, head] = content, passage * STRENGTH
    rotation = _orthonormal(width, width) * 2
    second.q.weight[_head(second, 2)] = rotation @ asked.T
    second.k.weight[_head(second, 2)] = rotation @ shown.T


def _head(attention: Any, index: int) -> slice:
    width = attention.key_value_proj_dim
    return slice(index * width, (index + 1) * width)


def _orthonormal(rows: int, columns: int) -> torch.Tensor:
    basis: torch.Tensor = torch.linalg.qr(torch.randn(rows, columns))[0]
    return basis
