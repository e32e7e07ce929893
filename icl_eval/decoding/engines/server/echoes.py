"""From the echoed log-probabilities of a prompt to the score of its last tokens."""

import math
from collections.abc import Sequence

from icl_eval.decoding.branches import ScoredContinuation
from icl_eval.decoding.engines.server.failures import PassingError
from icl_eval.decoding.engines.server.schema import Answer


def score_echo(answer: Answer, num_context: int, num_scored: int) -> ScoredContinuation:
    """Return the log-probabilities of the tokens behind a context.

    Args:
        answer: The answer to a prompt of `num_context + num_scored` tokens, with one new token.
        num_context: The number of tokens in the context.
        num_scored: The number of tokens to score.

    Raises:
        PassingError: If the answer has other log-probabilities than those of the prompt and the new token.
    """
    echoed = answer.choice.logprobs
    values: Sequence[float | None] = echoed.token_logprobs if echoed else ()
    length = num_context + num_scored
    if not length <= len(values) <= length + 1:
        raise PassingError(f"log-probabilities of {len(values)} tokens for a prompt of {length}")
    scored = values[num_context:length]
    if not all(value is not None and math.isfinite(value) for value in scored):
        raise PassingError("a log-probability is missing or not a finite number")
    likeliest = (echoed.top_logprobs or () if echoed else ())[num_context:length]
    numbers = tuple(float(value) for value in scored if value is not None)
    return ScoredContinuation(numbers, _are_likeliest(numbers, likeliest))


def _are_likeliest(numbers: Sequence[float], likeliest: Sequence[object]) -> bool | None:
    """Return whether every token is the most likely one; None if the server does not say which that is."""
    tops = [max(each.values()) for each in likeliest if isinstance(each, dict) and each]
    if len(tops) != len(numbers):
        return None
    return all(number >= top for number, top in zip(numbers, tops, strict=True))
