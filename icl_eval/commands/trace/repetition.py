"""Random sequences that repeat, and how much each head follows their patterns.

The tokens of a sequence all differ, so that only their order can be looked up. A token of the second copy has three
targets:

    kale suna dobu mepi  kale suna dobu mepi
         │    │               │    └ the token, `dobu`
         │    │               └ previous_token
         │    └ same_token: its first occurrence; induction: `mepi`, the token behind it

A head that looks behind the first occurrence finds what will follow again, which makes it an induction head (Olsson et
al., 2022, https://arxiv.org/abs/2209.11895, where the score is called prefix matching).
"""

from random import Random
from typing import Any

import torch

from icl_eval.commands.trace.attention import Weights, read_decoder, read_encoder
from icl_eval.commands.trace.traces import HeadMap
from icl_eval.decoding.networks import decoder_of
from icl_eval.decoding.rules import start_ids
from icl_eval.errors import ConfigError
from icl_eval.models.loading import LanguageModel
from icl_eval.prompts.token_ids import Ids
from icl_eval.prompts.tokenization import find_added

NUM_SEQUENCES = 4
SEED = 0
_LENGTH = 50


def draw_sequences(model: LanguageModel) -> list[Ids]:
    """Return sequences of different tokens of the tokenizer's ordinary vocabulary; for a model always the same.

    Raises:
        ConfigError: If the model has too few positions or tokens.
    """
    tokenizer: Any = model.tokenizer
    sides: list[Any] = [decoder_of(model.network)]
    if model.architecture == "encoder-decoder":
        sides.append(model.network.get_encoder())
    size = min(side.get_input_embeddings().num_embeddings for side in sides)
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    ordinary = sorted(token_id for token_id in {*tokenizer.get_vocab().values()} - special if token_id < size)
    length = min(_LENGTH, len(ordinary))
    if model.max_length is not None:
        num_around = sum(map(len, find_added(tokenizer))) + len(start_ids(model))
        length = min(length, (model.max_length - num_around) // 2)
    if length < 2:
        raise ConfigError(f"heads=true: {model.name} has too few positions or tokens for a sequence that repeats")
    draw = Random(SEED)
    return [tuple(draw.sample(ordinary, length)) for _ in range(NUM_SEQUENCES)]


def score_repetition(model: LanguageModel, sequences: list[Ids]) -> list[HeadMap]:
    """Return the mean attention from the tokens of the second copy to each target, for all self-attention.

    The decoder of an encoder-decoder model reads the sequence behind its start token, while its encoder reads an empty
    text; so it can look up nothing there.

    Raises:
        ConfigError: If the network gives no attention weights.
    """
    before, after = find_added(model.tokenizer)
    if model.architecture == "decoder-only":
        read = [read_decoder(model, (), (*before, *once, *once)) for once in sequences]
        return _map(read, "self", len(before), len(sequences[0]))
    read = [read_encoder(model, (*before, *once, *once, *after)) for once in sequences]
    maps = _map(read, "encoder", len(before), len(sequences[0]))
    start, nothing = start_ids(model), (*before, *after) or start_ids(model)
    read = [read_decoder(model, nothing, (*start, *once, *once)) for once in sequences]
    return maps + _map(read, "self", len(start), len(sequences[0]))


def _map(read: list[Weights], attention: str, begin: int, length: int) -> list[HeadMap]:
    """Average over sequences whose first copy begins at a place.

    Args:
        read: For each sequence, the weights of each layer, [heads, tokens, tokens].
        attention: The kind of attention.
        begin: The place of the first token of the first copy.
        length: The number of tokens in a copy.
    """
    queries = torch.arange(begin + length, begin + 2 * length)
    num_visible = queries + 1.0 if attention == "self" else torch.full((length,), float(read[0][0].shape[-1]))
    targets = {"induction": queries - length + 1, "previous_token": queries - 1, "same_token": queries - length}
    maps = []
    for target, keys in targets.items():
        layers = zip(*read, strict=True)  # the weights of one layer for all sequences
        scores = [torch.stack([weights[:, queries, keys] for weights in layer]).mean((0, 2)) for layer in layers]
        uniform = float((1 / num_visible).mean())
        maps.append(HeadMap(attention, target, uniform, tuple(tuple(layer.tolist()) for layer in scores)))
    return maps
