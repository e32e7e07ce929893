"""Describe the tokens of a prompt, and tell those of the text from those that were added."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from icl_eval.commands.trace.traces import InputToken, TokenInfo
from icl_eval.decoding.rules import start_ids
from icl_eval.models.loading import LanguageModel
from icl_eval.prompts.building import EncodedPrompt
from icl_eval.prompts.tokenization import pieces_of


def describe_tokens(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], from_encoder: bool = False
) -> list[TokenInfo]:
    """Return the pieces and texts of ids; both are empty for ids outside the tokenizer's vocabulary."""
    pieces = pieces_of(tokenizer, ids, from_encoder)
    return [
        TokenInfo(token_id, piece, _decode(tokenizer, token_id, piece))
        for token_id, piece in zip(ids, pieces, strict=True)
    ]


def _decode(tokenizer: PreTrainedTokenizerBase, token_id: int, piece: str) -> str:
    if not piece:
        return ""
    if tokenizer.convert_ids_to_tokens(token_id) != piece:  # in a separate encoder vocabulary, which decode ignores
        return str(tokenizer.convert_tokens_to_string([piece]))
    return str(tokenizer.decode([token_id], skip_special_tokens=False, clean_up_tokenization_spaces=False))


def describe_inputs(
    model: LanguageModel, prompt: EncodedPrompt
) -> tuple[tuple[InputToken, ...], tuple[InputToken, ...]]:
    """Return the input tokens of the encoder and of the decoder, including the decoder's start token."""
    start = start_ids(model)
    text, target = prompt.prompt.encoder, prompt.prompt.decoder
    if model.architecture == "decoder-only":
        plain = _encode_plain(model.tokenizer, text=target)
        return (), _mark_added(model.tokenizer, prompt.decoder_ids, plain)
    plain = _encode_plain(model.tokenizer, text=text)
    encoder = _mark_added(model.tokenizer, prompt.encoder_ids, plain, from_encoder=True)
    plain = prompt.decoder_ids[prompt.num_added :]
    return encoder, _mark_added(model.tokenizer, (*start, *prompt.decoder_ids), plain)


def _encode_plain(tokenizer: PreTrainedTokenizerBase, text: str | None) -> Sequence[int]:
    """Return the ids of a text without added tokens."""
    ids: list[int] = tokenizer(text or "", add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _mark_added(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], plain: Sequence[int], from_encoder: bool = False
) -> tuple[InputToken, ...]:
    """Describe ids; those before and after the plain ids of the text were added."""
    places = range(len(ids) - len(plain) + 1)
    begin = next((place for place in places if list(ids[place : place + len(plain)]) == list(plain)), None)
    if begin is None:  # the tokenizer changes the ids of the text when it adds tokens
        added = [token_id in tokenizer.all_special_ids for token_id in ids]
    else:
        added = [not begin <= place < begin + len(plain) for place in range(len(ids))]
    return tuple(map(InputToken, describe_tokens(tokenizer, ids, from_encoder), added))
