"""Tokenization: encoding whole prompts, so that token boundaries do not depend on how a prompt was assembled.

Prompt and continuation are tokenized together as one string, and the ids are split afterwards:

    prompt            [Answer] [:]
    with " yes"       [Answer] [:] [ yes]            ──▶  context [Answer] [:], texts [ yes] and [ no] [body]
    with " nobody"    [Answer] [:] [ no] [body]

If the tokenizer merges the end of the prompt with the beginning of a continuation, the context ends before that
token, for every continuation of the prompt. All of them are therefore scored after the same context, and no token is
split.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from icl_eval.errors import ConfigError
from icl_eval.prompts.building import EncodedPrompt, Prompt
from icl_eval.prompts.token_ids import Ids, pack_ids, pack_together

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_PART_CHARACTERS = 400_000
"""The number of characters that are encoded together."""


@dataclass(frozen=True)
class Continuations:
    """The candidate continuations of one prompt."""

    context: EncodedPrompt
    """The encoder ids, and the decoder ids that the prompt shares with all of its continuations."""
    texts: tuple[tuple[int, ...], ...]
    """The ids of each continuation after the context."""

    @property
    def longest(self) -> int:
        """The number of tokens in the longest continuation; 0 if there is none."""
        return max(map(len, self.texts), default=0)


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", prompt: Prompt) -> EncodedPrompt:
    """Encode the strings of one prompt; see `encode_prompts`."""
    return encode_prompts(tokenizer, [prompt])[0]


def encode_prompts(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
    """Encode the strings of prompts together, which gives the same ids as one by one and takes half the time.

    An encoder input gets the special tokens that the tokenizer adds (for T5, `</s>` at the end). The input of a
    decoder-only model gets the opening special tokens, unless it already begins with them, but no closing ones
    (`</s>`, BERT's `[SEP]`), because the model continues it. A conversation already contains its special tokens and
    gets none. The decoder input of an encoder-decoder model gets none either: the model adds the start token.

    Args:
        tokenizer: The tokenizer.
        prompts: Prompts for one model, all of them conversations or none.

    Raises:
        ConfigError: If a side is empty and the tokenizer has no token to start it with.
    """
    decoders = [prompt.decoder or "" for prompt in prompts]
    encoders = [prompt.encoder for prompt in prompts if prompt.encoder is not None]
    if not encoders:
        is_chat = any(prompt.is_chat for prompt in prompts)
        packed = pack_together(_encode_open_ended(tokenizer, decoders, is_chat))
        return [EncodedPrompt(prompt, (), ids) for prompt, ids in zip(prompts, packed, strict=True)]
    encoder_ids = pack_together(_tokenize(tokenizer, encoders))
    if not all(encoder_ids):
        raise ConfigError("the encoder input is empty, and the tokenizer adds no special token to it")
    decoder_ids = pack_together(_encode_targets(tokenizer, decoders))
    return [EncodedPrompt(*each) for each in zip(prompts, encoder_ids, decoder_ids, strict=True)]


def encode_continuations(
    tokenizer: "PreTrainedTokenizerBase", encoded: EncodedPrompt, texts: Sequence[str]
) -> Continuations:
    """Encode candidate continuations of a prompt.

    The result for a continuation is empty if its tokens are a prefix of the prompt's tokens.
    """
    prompt = encoded.prompt
    if prompt.encoder is None:
        strings = [(prompt.decoder or "") + text for text in texts]
        whole = list(_encode_open_ended(tokenizer, strings, prompt.is_chat))
    else:
        # a decoder that begins with its start token gets no space before its first word
        targets = [text.strip() if prompt.decoder is None else prompt.decoder + text for text in texts]
        added = encoded.decoder_ids[: encoded.num_added]
        whole = [added + ids for ids in _encode_targets(tokenizer, targets)]
    together = zip(encoded.decoder_ids, *whole, strict=False)
    length = sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, together))
    shared = encoded.decoder.cut(length)
    if prompt.encoder is None and not shared:
        shared = pack_ids((_find_first_id(tokenizer),))
    return Continuations(replace(encoded, decoder=shared), tuple(ids[length:] for ids in whole))


def pieces_of(tokenizer: Any, ids: Sequence[int], from_encoder: bool = False) -> list[str]:
    """Return the vocabulary strings of token ids; an empty string for an id beyond the tokenizer's vocabulary.

    Args:
        tokenizer: The tokenizer, which in some families (Marian) has one vocabulary for each side.
        ids: The token ids.
        from_encoder: Whether the ids come from the encoder.
    """
    if from_encoder and getattr(tokenizer, "separate_vocabs", False):
        names = {token_id: piece for piece, token_id in tokenizer.get_vocab().items()}
        pieces = [names.get(token_id) for token_id in ids]
    else:
        pieces = tokenizer.convert_ids_to_tokens(list(ids))
    return [str(piece or "") for piece in pieces]


def find_added(tokenizer: Any) -> tuple[Ids, Ids]:
    """Return the special tokens that a tokenizer adds before and after a text."""
    whole, plain = (
        tuple(tokenizer("a", add_special_tokens=added, verbose=False)["input_ids"]) for added in (True, False)
    )
    start = _locate(whole, plain)
    return ((), ()) if start is None else (whole[:start], whole[start + len(plain) :])


def _locate(whole: Ids, plain: Ids) -> int | None:
    """Return where ids begin inside others, for the first time; None if they are not there."""
    starts = range(len(whole) - len(plain) + 1)
    return next((start for start in starts if whole[start : start + len(plain)] == plain), None)


def _encode_targets(tokenizer: Any, texts: Sequence[str]) -> Iterator[Ids]:
    # text_target, because some families (Marian) have one vocabulary for each side
    filled = [text for text in texts if text]
    encoded = tokenizer(text_target=filled, add_special_tokens=False, verbose=False)["input_ids"] if filled else ()
    left = iter(encoded)
    return (tuple(next(left)) if text else () for text in texts)


def _encode_open_ended(tokenizer: Any, texts: Sequence[str], is_chat: bool) -> Iterator[Ids]:
    """Return the ids of strings that the model continues."""
    if is_chat:
        encoded = _tokenize(tokenizer, texts, add_special_tokens=False)
        return (tuple(plain) or (_find_first_id(tokenizer),) for plain in encoded)
    return (_open(tokenizer, *both) for both in _tokenize_twice(tokenizer, texts))


def _tokenize(tokenizer: Any, texts: Sequence[str], **options: bool) -> Sequence[Sequence[int]]:
    """Return the ids of strings, each distinct string encoded once."""
    distinct = list(dict.fromkeys(texts))
    by_text: dict[str, Sequence[int]] = {}
    for part in _divide(distinct):
        by_text |= zip(part, tokenizer(part, verbose=False, **options)["input_ids"], strict=True)
    return [by_text[text] for text in texts]


def _tokenize_twice(tokenizer: Any, texts: Sequence[str]) -> Iterator[tuple[Ids, Ids]]:
    """Yield the ids of each string with the special tokens that the tokenizer adds, and without them."""
    if not tokenizer.is_fast:
        wholes = _tokenize(tokenizer, texts)
        plains = _tokenize(tokenizer, texts, add_special_tokens=False)
        yield from zip(map(tuple, wholes), map(tuple, plains), strict=True)
        return
    for part in _divide(texts):
        # The mask marks the tokens that were added, and not those that a string spells out.
        encoded = tokenizer(part, verbose=False, return_special_tokens_mask=True, return_attention_mask=False)
        for ids, mask in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True):
            whole = tuple(ids)
            yield whole, whole[mask.index(0) : len(mask) - mask[::-1].index(0)] if 0 in mask else ()


def _divide(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield strings in parts that are encoded together; while they are, a token takes more than a hundred bytes."""
    part: list[str] = []
    room = _PART_CHARACTERS
    for text in texts:
        if part and len(text) > room:
            yield part
            part, room = [], _PART_CHARACTERS
        part.append(text if text.isascii() else _copy(text))
        room -= len(text)
    if part:
        yield part


def _copy(text: str) -> str:
    """Return another object of the same string: one that a tokenizer was given keeps an encoded form beside its own."""
    return text[:-1] + text[-1:]


def _open(tokenizer: Any, whole: Ids, plain: Ids) -> Ids:
    """Return the ids of a string behind the opening special tokens."""
    opening = _find_opening(tokenizer, whole, plain)
    # do not repeat special tokens that the string itself begins with
    shared = next(
        length for length in range(len(opening), -1, -1) if plain[:length] == opening[len(opening) - length :]
    )
    return opening[: len(opening) - shared] + plain or (_find_first_id(tokenizer),)


def _find_opening(tokenizer: Any, whole: Ids, plain: Ids) -> Ids:
    """Return the ids that a tokenizer puts before a string, given its ids with and without special tokens."""
    if plain and (start := _locate(whole, plain)) is not None:
        return whole[:start]
    opens = set(tokenizer.all_special_ids) - {tokenizer.eos_token_id, tokenizer.sep_token_id}
    return tuple(takewhile(opens.__contains__, whole))


def _find_first_id(tokenizer: Any) -> int:
    """Return the token that replaces an empty prompt: beginning of sequence, else end of sequence."""
    for token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return int(token_id)
    raise ConfigError("the prompt is empty, and the tokenizer has no beginning-of-sequence token")
