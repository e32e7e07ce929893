"""Hypotheses: one completion while it is being decoded."""

from collections import deque
from collections.abc import Collection, Sequence

from transformers import LogitsProcessorList

from icl_eval.decoding.completions import Completion, FinishReason, Token
from icl_eval.decoding.detokenization import Detokenizer
from icl_eval.decoding.rules import Rules, start_ids
from icl_eval.decoding.sharing import Ids
from icl_eval.decoding.stopping import StopFilter, special_stops
from icl_eval.models.loading import LanguageModel
from icl_eval.prompts.building import EncodedPrompt


class Hypothesis:
    """What has been generated for one prompt, and whether it is finished."""

    def __init__(
        self,
        prompt: EncodedPrompt,
        start_ids: Ids,
        rules: LogitsProcessorList,
        detokenizer: Detokenizer,
        stop_filter: StopFilter,
    ):
        """Begin with nothing generated.

        Args:
            prompt: What is to be completed.
            start_ids: What the decoder begins with before the prompt's own tokens.
            rules: What the model's generation config demands of this row.
            detokenizer: Turns the row's ids into text.
            stop_filter: Finds the row's stop strings.
        """
        self.encoder_ids = prompt.encoder_ids
        self.start_ids = start_ids
        self.rules = rules
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.unfed: deque[int] = deque()
        """Tokens of the history that the network has still to be given, one a step."""
        self.example_id = prompt.prompt.example_id
        self._context_ids = (*start_ids, *prompt.decoder_ids)
        self._detokenizer = detokenizer
        self._stop_filter = stop_filter
        self._pieces: list[str] = []

    @property
    def history(self) -> Ids:
        """All tokens of the decoder so far, given or chosen."""
        return (*self._context_ids, *self.token_ids)

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the completion."""
        return self._stop_filter.found

    def next_id(self) -> int:
        """Return the token that the network is to be given next."""
        return self.unfed.popleft() if self.unfed else self.token_ids[-1]

    def append(self, token_id: int, end_ids: Collection[int], max_new_tokens: int) -> Token:
        """Take the next token, note whether it is the last, and return it with the text it lets be shown."""
        self.token_ids.append(token_id)
        ended = token_id in end_ids
        told = not ended and self._stop_filter.stops_at(token_id)
        text = "" if ended or told else self._stop_filter.feed(self._detokenizer.feed(token_id))
        if ended:
            self.finish_reason = "eos"
        elif told or self._stop_filter.stopped:
            self.finish_reason = "stop"
        elif len(self.token_ids) == max_new_tokens:
            self.finish_reason = "length"
        if told or self.finish_reason in ("eos", "length"):
            text += self._flush()
        self._pieces.append(text)
        return Token(self.example_id, token_id, text)

    def end(self) -> None:
        """Take no more tokens."""
        self.finish_reason = "length"
        self._pieces.append(self._flush())

    def _flush(self) -> str:
        """Return the text that was waiting for more."""
        text = self._stop_filter.feed(self._detokenizer.flush())
        if self._stop_filter.stopped:  # by an unfinished character that waited until now
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
            self._stop_filter.found if self.finish_reason == "stop" else None,
        )


def begin_hypothesis(
    model: LanguageModel, prompt: EncodedPrompt, stop: Sequence[str], rules: Rules | None = None
) -> Hypothesis:
    """Return the completion of a prompt of which nothing is generated yet.

    Args:
        model: What generates it.
        prompt: What is to be completed.
        stop: All strings that end the completion and are not a part of it.
        rules: What is demanded of its tokens; None where they are chosen elsewhere.
    """
    start = start_ids(model)
    return Hypothesis(
        prompt,
        start,
        LogitsProcessorList() if rules is None else rules.for_row((*start, *prompt.decoder_ids), prompt.encoder_ids),
        Detokenizer(model.tokenizer, prompt.decoder_ids),
        StopFilter(stop, special_stops(model.tokenizer, stop)),
    )
