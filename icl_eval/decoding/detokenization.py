"""Token ids to text, one token at a time.

A token may hold a part of a character, and what it looks like can depend on its neighbours (a leading space).
So the text of a token is the difference between two decodings of a short window, with and without it, and a
difference that ends in an unfinished character waits. `tokenizers.decoders.DecodeStream` does the same, but
only for fast tokenizers, and without a way to get at what waits at the end.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_UNFINISHED = "\ufffd"  # what decoders write for bytes that are not (yet) a character
_CONTEXT_TOKENS = 4


class Detokenizer:
    """Turns the ids of one completion into pieces of text that add up to it."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", context_ids: Sequence[int] = ()):
        """Begin after some ids (the prompt's last ones) that tell what the first token looks like."""
        self._tokenizer = tokenizer
        self._shown = [self._whole_characters(context_ids)]  # ids whose text is out, a list for each time
        self._waiting: list[int] = []

    def feed(self, token_id: int) -> str:
        """Take the next token and return the text that is complete now."""
        self._waiting.append(token_id)
        text = self._new_text()
        return "" if text.endswith(_UNFINISHED) else self._show(text)

    def flush(self) -> str:
        """Return what still waits when no token will follow: an unfinished character, as the tokenizer shows it."""
        return self._show(self._new_text()) if self._waiting else ""

    def _show(self, text: str) -> str:
        self._shown.append(self._waiting)
        while sum(map(len, self._shown[1:])) >= _CONTEXT_TOKENS:
            del self._shown[0]
        self._waiting = []
        return text

    def _new_text(self) -> str:
        shown = [token_id for ids in self._shown for token_id in ids]
        return self._decode(shown + self._waiting)[len(self._decode(shown)) :]

    def _whole_characters(self, context_ids: Sequence[int]) -> list[int]:
        """Return the last ids, from the beginning of a character on.

        Llama's decoder shows nothing of a row of bytes in which there is a part of a character.
        """
        for length in range(_CONTEXT_TOKENS, 2 * _CONTEXT_TOKENS):
            ids = list(context_ids[-length:])
            if not self._decode(ids).startswith(_UNFINISHED):
                return ids
        return []

    def _decode(self, ids: list[int]) -> str:
        text = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text
