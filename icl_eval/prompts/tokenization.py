"""Tokenization: prompts to token ids, whole, so that no token boundary depends on how a text was put together.

A continuation is tokenized together with its prompt, as one text, and what follows the prompt is found among the ids:

    prompt            [Answer] [:]
    with " yes"       [Answer] [:] [ yes]            ──▶  context [Answer] [:], texts [ yes] and [ no] [body]
    with " nobody"    [Answer] [:] [ no] [body]

Where a tokenizer joins the end of the prompt with what follows, the context ends before that token, for all texts of
the prompt alike: so they are always compared after the same context, and none is cut where the model never cuts.
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
    """Some texts that could follow one prompt."""

    context: EncodedPrompt
    """The encoder's ids, and those of the decoder that the prompt has in common with all of its texts."""
    texts: tuple[tuple[int, ...], ...]
    """What follows the context in each text."""

    @property
    def longest(self) -> int:
        """How many tokens the longest text has."""
        return max(map(len, self.texts))


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", prompt: Prompt) -> EncodedPrompt:
    """Turn a prompt's texts into token ids.

    The encoder's text gets the special tokens that the tokenizer adds (for T5, `</s>` at the end). A
    decoder-only model's text gets those that open it, unless it opens with them already, and never those that
    close it (`</s>`, BERT's `[SEP]`), after which there is nothing to go on from. A conversation has all special
    tokens written out and gets none. The decoder of an encoder-decoder model gets its text alone: the start token
    is the model's to add.

    Raises:
        ConfigError: When there is nothing for a side to begin with.
    """
    if prompt.encoder is None:
        decoder_ids = _open_ended(tokenizer, prompt.decoder or "", prompt.is_chat)
        return EncodedPrompt(prompt, (), decoder_ids)
    encoder_ids = tuple(tokenizer(prompt.encoder, verbose=False)["input_ids"])
    if not encoder_ids:
        raise ConfigError("an empty text for the encoder, and the tokenizer adds no token for it to read")
    return EncodedPrompt(prompt, encoder_ids, _target_ids(tokenizer, prompt.decoder or ""))


def encode_continuations(
    tokenizer: "PreTrainedTokenizerBase", encoded: EncodedPrompt, texts: Sequence[str]
) -> Continuations:
    """Turn texts that could follow a prompt into token ids.

    A text may come out empty, where its tokens are a beginning of the prompt's.
    """
    prompt = encoded.prompt
    whole = []
    for text in texts:
        if prompt.encoder is None:
            whole.append(_open_ended(tokenizer, (prompt.decoder or "") + text, prompt.is_chat))
        else:
            # a decoder that begins with its start token gets no space before its first word
            target = text.strip() if prompt.decoder is None else prompt.decoder + text
            whole.append(encoded.decoder_ids[: encoded.num_added] + _target_ids(tokenizer, target))
    together = zip(encoded.decoder_ids, *whole, strict=False)
    length = sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, together))
    shared = encoded.decoder_ids[:length]
    if prompt.encoder is None and not shared:
        shared = (_first_id(tokenizer),)
    return Continuations(replace(encoded, decoder_ids=shared), tuple(ids[length:] for ids in whole))


def pieces_of(tokenizer: Any, ids: Sequence[int], from_encoder: bool = False) -> list[str]:
    """Return what the vocabulary calls tokens; empty for those that only the network, with a larger one, has.

    Args:
        tokenizer: Of some families (Marian) it may have a vocabulary for each side.
        ids: The tokens.
        from_encoder: Whether they are the encoder's.
    """
    if from_encoder and getattr(tokenizer, "separate_vocabs", False):
        names = {token_id: piece for piece, token_id in tokenizer.get_vocab().items()}
        found = [names.get(token_id) for token_id in ids]
    else:
        found = tokenizer.convert_ids_to_tokens(list(ids))
    return [str(piece or "") for piece in found]


def _target_ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    # text_target: some families (Marian) have a vocabulary for each side
    return tuple(tokenizer(text_target=text, add_special_tokens=False, verbose=False)["input_ids"]) if text else ()


def _open_ended(tokenizer: Any, text: str, is_chat: bool) -> tuple[int, ...]:
    """Return the ids of a text that is to be gone on from."""
    plain = tuple(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    if is_chat:
        return plain or (_first_id(tokenizer),)
    opening = _opening(tokenizer, tuple(tokenizer(text, verbose=False)["input_ids"]), plain)
    # what the text itself opens with is there once
    shared = next(
        length for length in range(len(opening), -1, -1) if plain[:length] == opening[len(opening) - length :]
    )
    return opening[: len(opening) - shared] + plain or (_first_id(tokenizer),)


def _opening(tokenizer: Any, whole: tuple[int, ...], plain: tuple[int, ...]) -> tuple[int, ...]:
    """Return what a tokenizer puts before a text, from its ids with and without all that is added."""
    for start in range(len(whole) - len(plain) + 1):
        if plain and whole[start : start + len(plain)] == plain:
            return whole[:start]
    opens = set(tokenizer.all_special_ids) - {tokenizer.eos_token_id, tokenizer.sep_token_id}
    return tuple(takewhile(opens.__contains__, whole))


def _first_id(tokenizer: Any) -> int:
    """Return what an empty prompt is: the beginning of a sequence."""
    for token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return int(token_id)
    raise ConfigError("an empty prompt, and the tokenizer has no beginning-of-sequence token")
