"""Tokenization: encoding whole prompts, so that token boundaries do not depend on how a prompt was assembled.

Prompt and continuation are tokenized together as one string, and the ids are split afterwards:

    prompt            [Answer] [:]
    with " yes"       [Answer] [:] [ yes]            ──▶  context [Answer] [:], texts [ yes] and [ no] [body]
    with " nobody"    [Answer] [:] [ no] [body]

If the tokenizer merges the end of the prompt with the beginning of a continuation, the context ends before that
token, for every continuation of the prompt. All of them are therefore scored after the same context, and no token is
split.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from icl_eval.errors import ConfigError
from icl_eval.prompts.building import EncodedPrompt, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Continuations:
    """The candidate continuations of one prompt."""

    context: EncodedPrompt
    """The encoder ids, and the decoder ids that the prompt shares with all of its continuations."""
    texts: tuple[tuple[int, ...], ...]
    """The ids of each continuation after the context."""

    @property
    def longest(self) -> int:
        """The number of tokens in the longest continuation."""
        return max(map(len, self.texts))


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", prompt: Prompt) -> EncodedPrompt:
    """Encode the strings of a prompt.

    An encoder input gets the special tokens that the tokenizer adds (for T5, `</s>` at the end). The input of a
    decoder-only model gets the opening special tokens, unless it already begins with them, but no closing ones
    (`</s>`, BERT's `[SEP]`), because the model continues it. A conversation already contains its special tokens and
    gets none. The decoder input of an encoder-decoder model gets none either: the model adds the start token.

    Raises:
        ConfigError: If a side is empty and the tokenizer has no token to start it with.
    """
    if prompt.encoder is None:
        decoder_ids = _encode_open_ended(tokenizer, prompt.decoder or "", prompt.is_chat)
        return EncodedPrompt(prompt, (), decoder_ids)
    encoder_ids = tuple(tokenizer(prompt.encoder, verbose=False)["input_ids"])
    if not encoder_ids:
        raise ConfigError("the encoder input is empty, and the tokenizer adds no special token to it")
    return EncodedPrompt(prompt, encoder_ids, _encode_target(tokenizer, prompt.decoder or ""))


def encode_continuations(
    tokenizer: "PreTrainedTokenizerBase", encoded: EncodedPrompt, texts: Sequence[str]
) -> Continuations:
    """Encode candidate continuations of a prompt.

    The result for a continuation is empty if its tokens are a prefix of the prompt's tokens.
    """
    prompt = encoded.prompt
    whole = []
    for text in texts:
        if prompt.encoder is None:
            whole.append(_encode_open_ended(tokenizer, (prompt.decoder or "") + text, prompt.is_chat))
        else:
            # a decoder that begins with its start token gets no space before its first word
            target = text.strip() if prompt.decoder is None else prompt.decoder + text
            whole.append(encoded.decoder_ids[: encoded.num_added] + _encode_target(tokenizer, target))
    together = zip(encoded.decoder_ids, *whole, strict=False)
    length = sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, together))
    shared = encoded.decoder_ids[:length]
    if prompt.encoder is None and not shared:
        shared = (_find_first_id(tokenizer),)
    return Continuations(replace(encoded, decoder_ids=shared), tuple(ids[length:] for ids in whole))


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


def find_added(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the special tokens that a tokenizer adds before and after a text."""
    whole, plain = (
        tuple(tokenizer("a", add_special_tokens=added, verbose=False)["input_ids"]) for added in (True, False)
    )
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start], whole[start + len(plain) :]
    return (), ()


def _encode_target(tokenizer: Any, text: str) -> tuple[int, ...]:
    # text_target, because some families (Marian) have one vocabulary for each side
    return tuple(tokenizer(text_target=text, add_special_tokens=False, verbose=False)["input_ids"]) if text else ()


def _encode_open_ended(tokenizer: Any, text: str, is_chat: bool) -> tuple[int, ...]:
    """Return the ids of a string that the model continues."""
    plain = tuple(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    if is_chat:
        return plain or (_find_first_id(tokenizer),)
    opening = _find_opening(tokenizer, tuple(tokenizer(text, verbose=False)["input_ids"]), plain)
    # do not repeat special tokens that the string itself begins with
    shared = next(
        length for length in range(len(opening), -1, -1) if plain[:length] == opening[len(opening) - length :]
    )
    return opening[: len(opening) - shared] + plain or (_find_first_id(tokenizer),)


def _find_opening(tokenizer: Any, whole: tuple[int, ...], plain: tuple[int, ...]) -> tuple[int, ...]:
    """Return the ids that a tokenizer puts before a string, given its ids with and without special tokens."""
    for start in range(len(whole) - len(plain) + 1):
        if plain and whole[start : start + len(plain)] == plain:
            return whole[:start]
    opens = set(tokenizer.all_special_ids) - {tokenizer.eos_token_id, tokenizer.sep_token_id}
    return tuple(takewhile(opens.__contains__, whole))


def _find_first_id(tokenizer: Any) -> int:
    """Return the token that replaces an empty prompt: beginning of sequence, else end of sequence."""
    for token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return int(token_id)
    raise ConfigError("the prompt is empty, and the tokenizer has no beginning-of-sequence token")
