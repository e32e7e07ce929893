"""Where the harness's own model `hf` cuts a prompt that is too long: on the left, and it says so.

    likelihood    prompt and continuation without its last token are at most `max_length` tokens
    completion    prompt and completion are at most `max_length` tokens

The encoder of an encoder-decoder model takes `max_length` tokens of its own. Its completion may then be as much longer
than asked as the encoder's input is long, because `hf` counts that input too.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from icl_eval.decoding.sharing import Ids
from icl_eval.errors import ConfigError, DataError
from icl_eval.formatting import count_noun

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cutting:
    """The length limits of a model."""

    max_length: int
    has_encoder: bool

    def cut_pairs(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[tuple[Ids, Ids]]:
        """Return prompts and continuations, with prompts cut.

        Raises:
            DataError: If a continuation has no tokens, or does not fit.
        """
        cut = [self._cut_pair(tuple(prompt), tuple(continuation)) for prompt, continuation in pairs]
        self._warn(sum(len(short) < len(prompt) for (short, _), (prompt, _) in zip(cut, pairs, strict=True)))
        return cut

    def cut_prompts(self, prompts: Sequence[Sequence[int]], max_gen_toks: int) -> list[Ids]:
        """Return prompts cut so that a completion fits.

        Raises:
            ConfigError: If a completion leaves no room for any prompt.
            DataError: If a prompt has no tokens.
        """
        room = self.max_length if self.has_encoder else self.max_length - max_gen_toks
        if room < 1:
            raise ConfigError(
                f"max_gen_toks={max_gen_toks}: must be less than the {self.max_length} tokens of max_length"
            )
        if not all(prompts):
            raise DataError("a prompt is empty, and the tokenizer adds no token to it")
        self._warn(sum(len(prompt) > room for prompt in prompts))
        return [tuple(prompt[-room:]) for prompt in prompts]

    def limit(self, prompt: Ids, max_gen_toks: int) -> int:
        """Return the maximum number of tokens in the completion of a prompt."""
        return len(prompt) + max_gen_toks - 1 if self.has_encoder else max_gen_toks

    def _cut_pair(self, prompt: Ids, continuation: Ids) -> tuple[Ids, Ids]:
        if not continuation:
            raise DataError("a continuation adds no token to its prompt, so it has no likelihood")
        if len(continuation) > self.max_length:
            raise DataError(
                f"a continuation of {len(continuation)} tokens is longer than max_length={self.max_length} allows"
            )
        room = self.max_length if self.has_encoder else self.max_length + 1 - len(continuation)
        return prompt[-room:], continuation

    def _warn(self, num_cut: int) -> None:
        if num_cut:
            logger.warning(
                "%s cut on the left to fit into max_length=%d", count_noun(num_cut, "prompt"), self.max_length
            )
