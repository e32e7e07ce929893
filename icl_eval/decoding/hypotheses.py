"""One completion while it is being decoded, and what ends it: a token, a stop string or its length."""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from transformers import LogitsProcessorList

from icl_eval.decoding.completions import Completion, FinishReason, Token
from icl_eval.decoding.detokenization import Detokenizer
from icl_eval.decoding.rules import Rules, start_ids
from icl_eval.decoding.stopping import StopFilter, special_stops
from icl_eval.models.loading import LanguageModel
from icl_eval.prompts.building import EncodedPrompt
from icl_eval.prompts.token_ids import Ids


@dataclass(frozen=True, slots=True)
class Unbegun:
    """A completion that waits to be begun. Many wait at once, so it holds nothing but what it is about."""

    prompt: EncodedPrompt
    """The prompt to complete."""
    sample: int
    """The number of the completion, from 0, if the prompt has several."""
    num_start_ids: int
    """The number of the decoder's start tokens."""

    @property
    def length(self) -> int:
        """The number of decoder tokens."""
        return self.num_start_ids + len(self.prompt.decoder)

    @property
    def size(self) -> int:
        """The number of tokens on both sides."""
        return self.num_start_ids + self.prompt.num_tokens


class Hypothesis:
    """The tokens and the text generated so far for one prompt, and whether they are finished."""

    def __init__(
        self,
        prompt: EncodedPrompt,
        start_ids: Ids,
        rules: LogitsProcessorList,
        detokenizer: Detokenizer,
        stop_filter: StopFilter,
        sample: int = 0,
    ):
        """Start with nothing generated.

        Args:
            prompt: The prompt to complete.
            start_ids: The decoder's start tokens, which precede the prompt's tokens.
            rules: The logits processors of this row.
            detokenizer: Turns the row's ids into text.
            stop_filter: Finds the row's stop strings.
            sample: The number of the completion, from 0, if the prompt has several.
        """
        self.encoder_ids = prompt.encoder_ids
        self.start_ids = start_ids
        self.rules = rules
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.unfed: deque[int] = deque()
        """Tokens of the history that the network has not seen yet; one is fed per step."""
        self.example_id = prompt.prompt.example_id
        self.sample = sample
        self._context_ids = start_ids + prompt.decoder_ids  # the prompt's own tuple if there are no start tokens
        self._detokenizer = detokenizer
        self._stop_filter = stop_filter
        self._pieces: list[str] = []

    @property
    def history(self) -> Ids:
        """All decoder tokens so far: start tokens, prompt and generated tokens."""
        return self._context_ids + tuple(self.token_ids)

    @property
    def length(self) -> int:
        """The number of decoder tokens in `history`."""
        return len(self._context_ids) + len(self.token_ids)

    @property
    def size(self) -> int:
        """The number of tokens on both sides so far."""
        return self.length + len(self.encoder_ids)

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the completion, or None."""
        return self._stop_filter.stop_string

    def next_id(self) -> int:
        """Return the next token to feed to the network."""
        return self.unfed.popleft() if self.unfed else self.token_ids[-1]

    def append(self, token_id: int, end_ids: Collection[int], max_new_tokens: int) -> Token:
        """Append the next token, check whether it is the last one, and return it with the text that it completes."""
        self.token_ids.append(token_id)
        ended = token_id in end_ids
        is_stop = not ended and self._stop_filter.stops_at(token_id)
        text = "" if ended or is_stop else self._stop_filter.feed(self._detokenizer.feed(token_id))
        if ended:
            self.finish_reason = "eos"
        elif is_stop or self._stop_filter.stopped:
            self.finish_reason = "stop"
        elif len(self.token_ids) == max_new_tokens:
            self.finish_reason = "length"
        if is_stop or self.finish_reason in ("eos", "length"):
            text += self._flush()
        self._pieces.append(text)
        return Token(self.example_id, token_id, text, self.sample)

    def end(self) -> None:
        """Finish the completion at its current length."""
        self.finish_reason = "length"
        self._pieces.append(self._flush())

    def _flush(self) -> str:
        """Return the text that was held back."""
        text = self._stop_filter.feed(self._detokenizer.flush())
        if self._stop_filter.stopped:  # by an incomplete character that was held back until now
            self.finish_reason = "stop"
        return text + self._stop_filter.flush()

    def completion(self) -> Completion:
        """Return the finished completion."""
        assert self.finish_reason is not None
        return Completion(
            self.example_id,
            "".join(self._pieces),
            tuple(self.token_ids),
            self.finish_reason,
            self._stop_filter.stop_string if self.finish_reason == "stop" else None,
            self.sample,
        )


def begin_hypothesis(
    model: LanguageModel, prompt: EncodedPrompt, stop: Sequence[str], rules: Rules | None = None, sample: int = 0
) -> Hypothesis:
    """Return an empty completion of a prompt.

    Args:
        model: The model that generates it.
        prompt: The prompt to complete.
        stop: All strings that end the completion; they are not part of it.
        rules: Rules for the choice of its tokens; None if the tokens are chosen elsewhere.
        sample: The number of the completion, from 0, if the prompt has several.
    """
    start, ids = start_ids(model), prompt.decoder_ids
    return Hypothesis(
        prompt,
        start,
        LogitsProcessorList() if rules is None else rules.for_row(start + ids, prompt.encoder_ids),
        Detokenizer(model.tokenizer, ids),
        StopFilter(stop, special_stops(model.tokenizer, stop)),
        sample,
    )
