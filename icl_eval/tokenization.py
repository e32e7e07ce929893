"""Tokenization: prompts to token ids, whole, so that no token boundary depends on how a text was put together."""

from typing import TYPE_CHECKING, Any

from icl_eval.errors import ConfigError
from icl_eval.prompts import EncodedPrompt, Prompt
from icl_eval.templates import ApplyChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", prompt: Prompt) -> EncodedPrompt:
    """Turn a prompt's texts into token ids.

    The encoder's text gets the special tokens that the tokenizer adds (for T5, `</s>` at the end). A
    decoder-only model's text gets them too, but never a second beginning-of-sequence token, which chat templates
    already write, and never an end-of-sequence token, after which there is nothing to go on from. The decoder of
    an encoder-decoder model gets its text alone: the start token is the model's to add.
    """
    if prompt.encoder is None:
        decoder_ids = _open_ended(tokenizer, prompt.decoder or "")
        return EncodedPrompt(prompt, (), decoder_ids)
    encoder_ids = tuple(tokenizer(prompt.encoder, verbose=False)["input_ids"])
    text = prompt.decoder or ""
    # text_target: some families (Marian) have a vocabulary for each side
    plain = tokenizer(text_target=text, add_special_tokens=False, verbose=False)["input_ids"] if text else []
    return EncodedPrompt(prompt, encoder_ids, tuple(plain))


def _open_ended(tokenizer: Any, text: str) -> tuple[int, ...]:
    ids = list(tokenizer(text, verbose=False)["input_ids"])
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if bos is not None and ids[:2] == [bos, bos]:
        ids = ids[1:]
    if eos is not None and ids[-1:] == [eos]:
        plain = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        if ids[-1 - len(plain) : -1] == plain:  # it stands behind the text and is no part of it
            ids = ids[:-1]
    if not ids:
        # An empty prompt: generation begins at the beginning of a sequence.
        start = bos if bos is not None else eos
        if start is None:
            raise ConfigError("an empty prompt, and the tokenizer has no beginning-of-sequence token")
        ids = [start]
    return tuple(ids)


def chat_renderer(tokenizer: "PreTrainedTokenizerBase") -> ApplyChatTemplate:
    """Return the tokenizer's own chat template as a function from messages to text.

    Raises:
        ConfigError: When the tokenizer has none.
    """
    if tokenizer.chat_template is None:
        raise ConfigError("template=chat: this model's tokenizer has no chat template; use another template")

    def apply(messages: list[dict[str, str]]) -> str:
        try:
            return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # a chat template is a program of the model's authors
            raise ConfigError(f"template=chat: the model's chat template failed: {error}") from None

    return apply
