"""Find stop strings in a stream of text and never pass any part of one on, wherever token boundaries fall."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def special_stops(tokenizer: "PreTrainedTokenizerBase", stop: Sequence[str]) -> dict[int, str]:
    """Return the stop strings that are special tokens (T5's `<extra_id_1>`), by id; decoded text never shows them."""
    # `all_special_tokens` lacks tokens that were only added as special (Llama 3's `<|eot_id|>`).
    ids = {text: tokenizer.convert_tokens_to_ids(text) for text in stop}
    return {
        token_id: text
        for text, token_id in ids.items()
        if token_id is not None
        and text in tokenizer.added_tokens_encoder  # ByT5's gives an id to any character, and cannot decode it
        and tokenizer.decode([token_id]) == text
        and not tokenizer.decode([token_id], skip_special_tokens=True)
    }


class StopFilter:
    """Passes text on until one of the stop strings appears.

    Text that could be the beginning of a stop string is held back until it is clear that it is not:

    >>> stops = StopFilter(["END"])
    >>> stops.feed("the E"), stops.feed("N"), stops.feed("T EN"), stops.feed("D of")
    ('the ', '', 'ENT ', '')
    >>> stops.stopped
    True
    """

    def __init__(self, stop: Sequence[str], special: Mapping[int, str] | None = None):
        """Start with no text.

        Args:
            stop: Strings to stop at.
            special: The stop strings that are special tokens, by id; see `special_stops`.
        """
        self._stop = tuple(stop)
        self._special = special or {}
        self._held = ""
        self.stopped = False
        self.stop_string: str | None = None
        """The stop string that appeared, or None."""

    def stops_at(self, token_id: int) -> bool:
        """Record and return whether a token is itself a stop string; the text before it must still be fed."""
        self.stop_string = self._special.get(token_id)
        return self.stop_string is not None

    def feed(self, text: str) -> str:
        """Take more text and return the text that can be shown now."""
        text = self._held + text
        matches = [(text.find(stop) + len(stop), text.find(stop)) for stop in self._stop if stop in text]
        if matches:
            self.stopped = True
            self._held = ""
            end, place = min(matches)  # the first to be complete, whatever the token boundaries
            self.stop_string = text[place:end]
            return text[:place]
        keep = self._count_held(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Return the text that was held back; no more text may follow."""
        held, self._held = self._held, ""
        return held

    def _count_held(self, text: str) -> int:
        """Return the length of the longest suffix of the text that is a proper prefix of a stop string."""
        longest = max((len(stop) for stop in self._stop), default=0)
        for length in range(min(longest - 1, len(text)), 0, -1):
            ending = text[-length:]
            if any(stop.startswith(ending) for stop in self._stop):
                return length
        return 0
