"""Stop strings in a stream of text: nothing of one is ever let through, wherever token boundaries fall."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def special_stops(tokenizer: "PreTrainedTokenizerBase", stop: Sequence[str]) -> dict[int, str]:
    """Return, by id, the stop strings that are special tokens (T5's `<extra_id_1>`): no text ever shows those."""
    # Not by `all_special_tokens`, which lacks what was merely added as one (Llama 3's `<|eot_id|>`).
    ids = {text: tokenizer.convert_tokens_to_ids(text) for text in stop}
    return {
        token_id: text
        for text, token_id in ids.items()
        if token_id is not None
        and tokenizer.decode([token_id]) == text
        and not tokenizer.decode([token_id], skip_special_tokens=True)
    }


class StopFilter:
    """Lets text through until one of the stop strings appears.

    Text that could be the beginning of a stop string waits until it is clear that it is not:

    >>> stops = StopFilter(["END"])
    >>> stops.feed("the E"), stops.feed("N"), stops.feed("T EN"), stops.feed("D of")
    ('the ', '', 'ENT ', '')
    >>> stops.stopped
    True
    """

    def __init__(self, stop: Sequence[str], special: Mapping[int, str] | None = None):
        """Begin with nothing seen.

        Args:
            stop: Texts to stop at.
            special: Those of them that are special tokens, by id; see `special_stops`.
        """
        self._stop = tuple(stop)
        self._special = special or {}
        self._held = ""
        self.stopped = False
        self.found: str | None = None
        """The stop string that appeared."""

    def stops_at(self, token_id: int) -> bool:
        """Note and return whether a token is a special one to stop at; the text before it is still to be fed."""
        self.found = self._special.get(token_id)
        return self.found is not None

    def feed(self, text: str) -> str:
        """Take more text and return what can be shown now."""
        text = self._held + text
        found = [(text.find(stop) + len(stop), text.find(stop)) for stop in self._stop if stop in text]
        if found:
            self.stopped = True
            self._held = ""
            end, place = min(found)  # the first to be complete, so that it does not matter where tokens end
            self.found = text[place:end]
            return text[:place]
        keep = self._possible_beginning(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Return the text that was waiting, when no more will come."""
        held, self._held = self._held, ""
        return held

    def _possible_beginning(self, text: str) -> int:
        """Return the length of the longest end of the text that begins a stop string."""
        longest = max((len(stop) for stop in self._stop), default=0)
        for length in range(min(longest - 1, len(text)), 0, -1):
            ending = text[-length:]
            if any(stop.startswith(ending) for stop in self._stop):
                return length
        return 0
