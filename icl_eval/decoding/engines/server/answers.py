"""From an answer to a completion, which ends where this package's own stopping code ends it.

If the server returns the ids of its tokens, they are decoded and cut exactly as those of a network in this process. If
it returns only a text, the text is cut at the first stop string; the number of tokens is the server's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import LogitsProcessorList, PreTrainedTokenizerBase

from icl_eval.decoding.completions import Completion, FinishReason
from icl_eval.decoding.detokenization import Detokenizer
from icl_eval.decoding.engines.server.failures import PassingError
from icl_eval.decoding.engines.server.schema import Answer
from icl_eval.decoding.hypotheses import Hypothesis
from icl_eval.decoding.stopping import StopFilter, special_stops
from icl_eval.errors import IclEvalError
from icl_eval.prompts.building import EncodedPrompt

_FINISHED = ("stop", "length", "eos", "content_filter")
"""The finish reasons of completions; any other (`abort`, `error`) means that there is none."""


@dataclass(frozen=True)
class Ending:
    """What ends the completions of a run."""

    tokenizer: PreTrainedTokenizerBase
    stop: Sequence[str]
    end_ids: Sequence[int]
    max_new_tokens: int

    def read(self, answer: Answer, prompt: EncodedPrompt, sample: int) -> Completion:
        """Return the completion in an answer.

        Raises:
            PassingError: If the answer is not finished.
            IclEvalError: If the server has shortened it.
        """
        reason = answer.choice.finish_reason
        if reason not in _FINISHED:
            raise PassingError(f"an answer that is not finished ({reason})")
        if answer.choice.token_ids is not None:
            completion = self._replay(answer, prompt, sample)
        else:
            completion = self._cut(answer, prompt, sample)
        count = completion.num_tokens
        if reason == completion.finish_reason == "length" and count is not None and count < self.max_new_tokens:
            raise IclEvalError(
                f"{prompt.prompt.example_id}: the server ended a completion after {count} of "
                f"{self.max_new_tokens} tokens; its limit on prompt and completion is lower than the model's "
                "(set engine.max_length)"
            )
        return completion

    def _replay(self, answer: Answer, prompt: EncodedPrompt, sample: int) -> Completion:
        row = Hypothesis(
            prompt,
            (),
            LogitsProcessorList(),
            Detokenizer(self.tokenizer, prompt.decoder_ids),
            StopFilter(self.stop, special_stops(self.tokenizer, self.stop)),
            sample,
        )
        for token_id in answer.choice.token_ids or ():
            if not 0 <= token_id < len(self.tokenizer):
                raise PassingError(f"token id {token_id}, which the vocabulary of {len(self.tokenizer)} does not have")
            row.append(token_id, self.end_ids, self.max_new_tokens)
            if row.finish_reason:
                break
        if row.finish_reason is None:
            row.end()
            if answer.choice.finish_reason != "length":  # the server left out the token that ended it
                row.finish_reason = "stop" if row.stop_string else "eos"
        return row.completion()

    def _cut(self, answer: Answer, prompt: EncodedPrompt, sample: int) -> Completion:
        content, is_withheld = answer.choice.content, answer.choice.finish_reason == "content_filter"
        if content is None and not is_withheld:
            raise PassingError("an answer without text")
        stops = StopFilter(self.stop, {})
        text = stops.feed(content or "")
        text += stops.flush()
        string = stops.stop_string
        if string is None and answer.choice.stop_reason in self.stop:  # vLLM says which one it was
            string = str(answer.choice.stop_reason)
        return Completion(
            prompt.prompt.example_id,
            text,
            (),
            self._find_reason(answer, string),
            string,
            sample,
            has_ids=False,
            told_tokens=_read_count(answer),
        )

    def _find_reason(self, answer: Answer, stop_string: str | None) -> FinishReason:
        if stop_string is not None:
            return "stop"
        if answer.choice.finish_reason == "length":
            return "length"
        if answer.choice.finish_reason == "content_filter":
            return "content_filter"
        return "unknown" if self.stop else "eos"


def _read_count(answer: Answer) -> int | None:
    """Return the number of new tokens; None if the server does not say, or says what cannot be."""
    if answer.usage is None:
        return None
    count = answer.usage.completion_tokens
    return count if count > 0 or (count == 0 and not answer.choice.content) else None
