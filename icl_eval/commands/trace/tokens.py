"""Tokens: what each id of a prompt is, and whether the text holds it."""

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
    """Return what a tokenizer knows of one side's tokens, which is nothing of those that only the network has."""
    pieces = pieces_of(tokenizer, ids, from_encoder)
    return [
        TokenInfo(token_id, piece, _text(tokenizer, token_id, piece))
        for token_id, piece in zip(ids, pieces, strict=True)
    ]


def _text(tokenizer: PreTrainedTokenizerBase, token_id: int, piece: str) -> str:
    if not piece:
        return ""
    if tokenizer.convert_ids_to_tokens(token_id) != piece:  # of the encoder's own vocabulary, which decode passes over
        return str(tokenizer.convert_tokens_to_string([piece]))
    return str(tokenizer.decode([token_id], skip_special_tokens=False, clean_up_tokenization_spaces=False))


def describe_inputs(
    model: LanguageModel, prompt: EncodedPrompt
) -> tuple[tuple[InputToken, ...], tuple[InputToken, ...]]:
    """Return the tokens of the encoder and of the decoder, the start token included."""
    start = start_ids(model)
    text, target = prompt.prompt.encoder, prompt.prompt.decoder
    if model.architecture == "decoder-only":
        return (), _tokens(model.tokenizer, prompt.decoder_ids, _plain(model.tokenizer, text=target))
    encoder = _tokens(model.tokenizer, prompt.encoder_ids, _plain(model.tokenizer, text=text), from_encoder=True)
    plain = prompt.decoder_ids[prompt.num_added :]
    return encoder, _tokens(model.tokenizer, (*start, *prompt.decoder_ids), plain)


def _plain(tokenizer: PreTrainedTokenizerBase, text: str | None) -> Sequence[int]:
    """Return the ids of the text alone."""
    ids: list[int] = tokenizer(text or "", add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _tokens(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], plain: Sequence[int], from_encoder: bool = False
) -> tuple[InputToken, ...]:
    """Describe ids; those around the text's own ids were added."""
    places = range(len(ids) - len(plain) + 1)
    begin = next((place for place in places if list(ids[place : place + len(plain)]) == list(plain)), None)
    if begin is None:  # a tokenizer that changes the text's own ids when it adds some
        added = [token_id in tokenizer.all_special_ids for token_id in ids]
    else:
        added = [not begin <= place < begin + len(plain) for place in range(len(ids))]
    return tuple(map(InputToken, describe_tokens(tokenizer, ids, from_encoder), added))
