"""Hypotheses: one completion while it is being decoded."""

from collections.abc import Collection, Sequence

from transformers import LogitsProcessorList

from icl_eval.decoding.completions import Completion, FinishReason, Token
from icl_eval.decoding.detokenization import Detokenizer
from icl_eval.decoding.stopping import StopFilter


class Hypothesis:
    """What has been generated for one prompt, and whether it is finished."""

    def __init__(
        self,
        example_id: str,
        context_ids: Sequence[int],
        rules: LogitsProcessorList,
        detokenizer: Detokenizer,
        stop_filter: StopFilter,
    ):
        """Begin with nothing generated.

        Args:
            example_id: The question's id.
            context_ids: What the decoder has seen before the first new token, its start token included.
            rules: What the model's generation config demands of this row.
            detokenizer: Turns the row's ids into text.
            stop_filter: Finds the row's stop strings.
        """
        self.rules = rules
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self._example_id = example_id
        self._context_ids = tuple(context_ids)
        self._detokenizer = detokenizer
        self._stop_filter = stop_filter
        self._pieces: list[str] = []

    @property
    def history(self) -> tuple[int, ...]:
        """All tokens that the decoder has seen or chosen, [context + new]."""
        return (*self._context_ids, *self.token_ids)

    def append(self, token_id: int, end_ids: Collection[int], max_new_tokens: int) -> Token:
        """Take the next token, note whether it is the last, and return it with the text it lets be shown."""
        self.token_ids.append(token_id)
        ended = token_id in end_ids
        text = "" if ended else self._stop_filter.feed(self._detokenizer.feed(token_id))
        if ended:
            self.finish_reason = "eos"
        elif self._stop_filter.stopped:
            self.finish_reason = "stop"
        elif len(self.token_ids) == max_new_tokens:
            self.finish_reason = "length"
        if self.finish_reason in ("eos", "length"):
            text += self._stop_filter.feed(self._detokenizer.flush()) + self._stop_filter.flush()
        self._pieces.append(text)
        return Token(self._example_id, token_id, text)

    def completion(self) -> Completion:
        """Return the finished completion."""
        assert self.finish_reason is not None
        return Completion(self._example_id, "".join(self._pieces), tuple(self.token_ids), self.finish_reason)
