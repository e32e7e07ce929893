"""Turn logged documents into records."""

import math
import re
from collections.abc import Sequence
from typing import Any

from icl_eval.harnesses.lm_eval.documents import as_text, example_id, question_fields, split_target
from icl_eval.harnesses.lm_eval.logged_runs import LoggedDocument
from icl_eval.runs.records import AnswerLikelihood, QuestionLikelihood, Record

_NUMBER = re.compile(r"\d{1,9}")
"""The number of a choice."""


def make_records(documents: Sequence[LoggedDocument], num_fewshot: int) -> list[Record]:
    """Return the records of a task's documents, without scores.

    The prediction is what the first filter made of the response; of several responses, the first is shown. Where the
    harness ranked continuations of one prompt, records have their log-likelihoods instead; they are left out for the
    whole task if one of its documents has other requests, such as several prompts, or no right continuation.
    """
    likelihoods = [_read_likelihood(document) for document in documents]
    is_ranked = None not in likelihoods
    return [
        _make_record(document, num_fewshot, likelihood if is_ranked else None)
        for document, likelihood in zip(documents, likelihoods, strict=True)
    ]


def _make_record(document: LoggedDocument, num_fewshot: int, likelihood: QuestionLikelihood | None) -> Record:
    decoded = not any(_is_likelihood(responses) for responses in document.responses)
    filtered = next(filter(None, document.filtered.values()), [""])
    targets = split_target(document.target)
    return Record(
        example_id=example_id(document.doc_id),
        doc=question_fields(document.doc),
        targets=targets if likelihood is None else tuple(answer.text for answer in likelihood.references),
        encoder=None,
        decoder=as_text(document.requests[0][0]),
        demonstration_ids=(),
        shots_requested=num_fewshot,
        shots_effective=num_fewshot,
        completion=as_text(_first(document.responses[0])) if decoded else "",
        prediction=as_text(_first(filtered)) if decoded else "",
        metrics={},
        prompt_tokens=None,
        completion_tokens=None if decoded else 0,
        finish_reason="unknown" if decoded else "undecoded",
        prompt_hash=document.prompt_hash,
        likelihood=likelihood,
    )


def _first(responses: Any) -> Any:
    return responses[0] if isinstance(responses, list) and responses else responses


def _is_likelihood(responses: Any) -> bool:
    """Return whether the response to a request is a log-likelihood and a truth value: `["-1.5", "True"]`."""
    response = _first(responses)
    return isinstance(response, list) and len(response) == 2 and response[1] in ("True", "False")


def _read_likelihood(document: LoggedDocument) -> QuestionLikelihood | None:
    """Return the log-likelihoods of a document's continuations; None if they are not answers to one prompt."""
    if len({as_text(request[0]) for request in document.requests}) > 1:
        return None
    answers = [_read_answer(*pair) for pair in zip(document.requests, document.responses, strict=False)]
    known = tuple(answer for answer in answers if answer is not None)
    if len(known) < len(document.requests):
        return None
    if len(known) == 1:
        return QuestionLikelihood(known, (), None)
    right = tuple(known[number] for number in _find_right(document.target, [answer.text for answer in known]))
    return QuestionLikelihood(right, known, None) if right else None


def _read_answer(request: Sequence[Any], responses: Any) -> AnswerLikelihood | None:
    if not _is_likelihood(responses) or len(request) != 2 or not isinstance(request[1], str):
        return None
    logprob, is_greedy = _first(responses)
    text, value = request[1].lstrip(), _as_number(logprob)
    if not text or value is None:
        return None
    return AnswerLikelihood(text, value, None, len(text.encode()), None, is_greedy == "True")


def _as_number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _find_right(target: str, choices: Sequence[str]) -> list[int]:
    """Return the numbers of the right choices: the target is a number, a choice, or a list of these."""
    targets = split_target(target)
    if targets == (target,) and target not in choices:
        targets = tuple(target.strip("[]").split(", "))
    numbers = [
        int(each) if _NUMBER.fullmatch(each) else choices.index(each)
        for each in targets
        if _NUMBER.fullmatch(each) or each in choices
    ]
    return [number for number in numbers if number < len(choices)]
