"""Decode token ids into text, one token at a time.

A token may hold part of a character, and its text can depend on its neighbours (a leading space). The text of a token
is therefore the difference between two decodings of a short window, with and without the token. A difference that ends
in an incomplete character is held back. `tokenizers.decoders.DecodeStream` does the same, but only for fast tokenizers,
and it offers no access to the text still held back at the end.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_UNFINISHED = "\ufffd"  # decoders write this for bytes that do not (yet) form a character
_CONTEXT_TOKENS = 4


class Detokenizer:
    """Turns the ids of one completion into pieces of text that concatenate to the whole."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", context_ids: Sequence[int] = ()):
        """Start after `context_ids`, the end of the prompt, on which the text of the first token depends."""
        self._tokenizer = tokenizer
        # The ids whose text was returned, one list per return, and whether there was any text.
        self._shown = [(self._take_whole_characters(context_ids), True)]
        self._waiting: list[int] = []

    def feed(self, token_id: int) -> str:
        """Take the next token and return the text that is now complete."""
        self._waiting.append(token_id)
        text = self._decode_waiting()
        return "" if text.endswith(_UNFINISHED) else self._show(text)

    def flush(self) -> str:
        """Return the text still held back, an incomplete character as the tokenizer shows it; no token may follow."""
        return self._show(self._decode_waiting()) if self._waiting else ""

    def _show(self, text: str) -> str:
        self._shown.append((self._waiting, text != ""))
        # Special tokens show nothing, and a space after any number of them depends on the text before them.
        while sum(len(ids) for ids, has_text in self._shown[1:] if has_text) >= _CONTEXT_TOKENS:
            del self._shown[0]
        self._waiting = []
        return text

    def _decode_waiting(self) -> str:
        shown = [token_id for ids, _ in self._shown for token_id in ids]
        return self._decode(shown + self._waiting)[len(self._decode(shown)) :]

    def _take_whole_characters(self, context_ids: Sequence[int]) -> list[int]:
        """Return the last few ids, some of which show text, starting at the beginning of a character.

        Llama's decoder drops a whole run of bytes if it contains an incomplete character.
        """
        least = _CONTEXT_TOKENS
        while least < len(context_ids) and not self._decode(list(context_ids[-least:])):
            least *= 2
        for length in range(least, least + _CONTEXT_TOKENS):
            ids = list(context_ids[-length:])
            if not self._decode(ids).startswith(_UNFINISHED):
                return ids
        return []

    def _decode(self, ids: list[int]) -> str:
        text = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text
