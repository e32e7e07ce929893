"""The harness's requests for likelihoods, as prompts with continuations.

It asks for one continuation at a time. Requests with the same context become one prompt, which runs once for all of
them; the scorer then finds what the prompts have in common.

    (Q, " yes") (Q, " no") (R, " yes")      ──▶  Q with " yes", " no";  R with " yes"
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from icl_eval.decoding import LikelihoodScorer
from icl_eval.errors import DataError
from icl_eval.prompts.building import EncodedPrompt, Prompt
from icl_eval.prompts.token_ids import Ids
from icl_eval.prompts.tokenization import Continuations

_MOST_TOKENS = 512
"""Upper bound for the tokens of one prompt's continuations, which run together and need memory for their logits."""


@dataclass(frozen=True)
class EncodedRequest:
    """One request for a likelihood, as token ids that the model can hold."""

    encoder_ids: Ids
    """Empty for a decoder-only model."""
    context: Ids
    """The decoder's tokens before the continuation."""
    continuation: Ids


@dataclass
class _Shared:
    """Requests with the same context."""

    number: int
    """The number of the first request."""
    members: dict[Ids, list[int]] = field(default_factory=dict)
    """The numbers of the requests for each continuation."""

    def has_room(self, continuation: Ids) -> bool:
        """Return whether a continuation can run together with those that are here."""
        return continuation in self.members or sum(map(len, self.members)) + len(continuation) <= _MOST_TOKENS


def fit_request(
    context: Sequence[int], continuation: Sequence[int], max_length: int, has_encoder: bool
) -> EncodedRequest:
    """Cut a context on the left until the model can hold it with its continuation, as the harness does.

    The last token of a continuation is not run, so that one token more than `max_length` fits into a decoder.

    Raises:
        DataError: If there is no continuation, or it is longer than the model can hold.
    """
    if not 0 < len(continuation) <= max_length:
        raise DataError(
            f"a request for the likelihood of {len(continuation)} tokens: must be from 1 to {max_length}, which is the "
            "model's max_length"
        )
    if has_encoder:
        return EncodedRequest(tuple(context[-max_length:]), (), tuple(continuation))
    room = max_length + 1 - len(continuation)
    return EncodedRequest((), tuple(context[-room:]), tuple(continuation))


def score_requests(scorer: LikelihoodScorer, requests: Sequence[EncodedRequest]) -> Iterator[tuple[int, float, bool]]:
    """Yield the number of each request with the log-likelihood of its continuation, and whether it is greedy."""
    groups = _group(requests)
    asked = [_ask(requests[group.number], group) for group in groups]
    for place, scores in scorer.score(asked):
        for numbers, scored in zip(groups[place].members.values(), scores, strict=True):
            for number in numbers:
                yield number, sum(scored.logprobs), bool(scored.is_greedy)


def _group(requests: Sequence[EncodedRequest]) -> list[_Shared]:
    groups: list[_Shared] = []
    latest: dict[tuple[Ids, Ids], _Shared] = {}
    for number, request in enumerate(requests):
        key = request.encoder_ids, request.context
        group = latest.get(key)
        if group is None or not group.has_room(request.continuation):
            group = latest[key] = _Shared(number)
            groups.append(group)
        group.members.setdefault(request.continuation, []).append(number)
    return groups


def _ask(first: EncodedRequest, group: _Shared) -> Continuations:
    prompt = Prompt(f"request {group.number}", "" if first.encoder_ids else None, "")
    return Continuations(EncodedPrompt(prompt, first.encoder_ids, first.context), tuple(group.members))
