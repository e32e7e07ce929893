"""Records as the lines of lm-evaluation-harness's samples files: one for each question and filter.

A completion is the response to one request, a prompt with its options of decoding. Where nothing was decoded, each
choice is a request, and its log-likelihood the response. The doc holds the fields that the record has.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from icl_eval.runs.folders import Run
from icl_eval.runs.records import AnswerLikelihood, Record

_NO_FILTER = "none"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")


def split_name(name: str) -> tuple[str, str]:
    """Return the harness's metric and filter of a metric's name; the filter of this package's own is `none`.

    >>> split_name("exact_match,strict-match"), split_name("token_f1")
    (('exact_match', 'strict-match'), ('token_f1', 'none'))
    """
    metric, _, filter_name = name.partition(",")
    return metric, filter_name or _NO_FILTER


def hash_text(text: str) -> str:
    """Return the digest by which the harness identifies documents, prompts and targets."""
    return hashlib.sha256(text.encode()).hexdigest()


def find_output_type(records: Sequence[Record]) -> str:
    """Return which kind of request a task makes."""
    if any(record.finish_reason != "undecoded" for record in records):
        return "generate_until"
    ranked = [record.likelihood for record in records if record.likelihood]
    return "multiple_choice" if ranked and ranked[0].choices else "loglikelihood"


def generation_options(run: Run, task: str) -> dict[str, Any]:
    """Return a task's options of generation under the harness's names."""
    options: Mapping[str, Any] = run.report.run.decoding.get("tasks", {}).get(task, {})
    names = {"stop": "until", "max_new_tokens": "max_gen_toks"}
    return {names.get(name, name): value for name, value in options.items()}


def list_samples(run: Run, task: str, records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the lines of a task's samples file."""
    output_type, options = find_output_type(records), generation_options(run, task)
    filters = list(dict.fromkeys(split_name(name)[1] for name in run.report.results[task].metrics))
    exchanges = [_find_exchange(record, output_type, options) for record in records]
    documents = list(zip(_number_documents(records), records, exchanges, strict=True))
    return [
        _make_line(number, record, exchange, filter_name, is_first=filter_name == filters[0])
        for filter_name in filters
        for number, record, exchange in documents
    ]


def _number_documents(records: Sequence[Record]) -> Sequence[int]:
    """Return a number for each record: its id if all ids are numbers, as the harness's are, and otherwise its place."""
    ids = [record.example_id for record in records]
    return list(map(int, ids)) if all(map(_NUMBER.fullmatch, ids)) else range(len(ids))


@dataclass(frozen=True)
class _Exchange:
    """The requests for a question, and the responses to them."""

    requests: tuple[tuple[str, Any], ...]
    responses: list[Any]
    filtered: list[Any]
    target: str


def _find_exchange(record: Record, output_type: str, options: dict[str, Any]) -> _Exchange:
    prompt = "\n".join(side for side in (record.encoder, record.decoder) if side is not None)
    targets = list(record.targets)
    target = targets[0] if len(targets) == 1 else str(targets)
    if output_type == "generate_until" or record.likelihood is None:
        completions = [each.completion for each in record.completions]
        return _Exchange(((prompt, options),), [completions], [record.prediction], target)
    answers = record.likelihood.choices or record.likelihood.references[:1]
    if record.likelihood.choices:
        right = [number for number, answer in enumerate(answers) if answer.text in targets]
        target = str(right[0] if len(right) == 1 else right)
    responses = [_describe(answer) for answer in answers]
    return _Exchange(
        tuple((prompt, answer.text) for answer in answers), [[response] for response in responses], responses, target
    )


def _describe(answer: AnswerLikelihood) -> list[str]:
    return [str(answer.logprob), str(answer.is_greedy)]


def _make_line(number: int, record: Record, exchange: _Exchange, filter_name: str, is_first: bool) -> dict[str, Any]:
    doc = dict(record.doc)
    values = {
        split_name(name)[0]: value
        for name, value in record.metrics.items()
        if value is not None and split_name(name)[1] == filter_name
    }
    return {
        "doc_id": number,
        "doc": doc,
        "target": exchange.target,
        "arguments": {
            f"gen_args_{index}": {"arg_0": prompt, "arg_1": rest}
            for index, (prompt, rest) in enumerate(exchange.requests)
        },
        "resps": exchange.responses,
        "filtered_resps": exchange.filtered if is_first else [],  # records keep what one filter made of the response
        "filter": filter_name,
        "metrics": list(values),
        "doc_hash": hash_text(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": hash_text(exchange.requests[0][0]),
        "target_hash": hash_text(exchange.target),
        "example_id": record.example_id,
        **values,
    }
