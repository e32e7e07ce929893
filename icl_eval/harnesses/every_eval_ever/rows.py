"""The rows of questions: one for each question and each metric of which the best value means a right answer.

The schema asks of every row whether the answer is correct. A log-likelihood or a sentence's BLEU does not say so, and
such metrics have no rows.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from typing import Any

from icl_eval.formatting import list_names
from icl_eval.harnesses.every_eval_ever.results import find_metric_range, result_id
from icl_eval.runs.folders import Run
from icl_eval.runs.records import Record

logger = logging.getLogger(__name__)


def list_rows(run: Run) -> list[dict[str, Any]]:
    """Return the rows of a run. Metrics that say of no answer whether it is right are named in a warning."""
    rows, others = [], set()
    for task, result in run.report.results.items():
        scored = {name: find_metric_range(name, score, result.n) for name, score in result.metrics.items()}
        right = [name for name, known in scored.items() if known and known.says_right]
        others |= scored.keys() - set(right)
        rows += [row for record in run.records(task) for row in _list_rows(task, record, right)]
    if others:
        names = list_names(sorted(others))
        logger.warning("%s: no rows for %s, which do not say whether an answer is right", run.folder, names)
    return rows


def _list_rows(task: str, record: Record, metrics: list[str]) -> Iterator[dict[str, Any]]:
    shared = _describe_question(record)
    for metric in metrics:
        value = record.metrics.get(metric)
        if value is not None:
            yield {
                "evaluation_name": task,
                "evaluation_result_id": result_id(task, metric),
                **shared,
                "evaluation": {"score": value, "is_correct": value == 1.0},
            }


def _describe_question(record: Record) -> dict[str, Any]:
    raw = record.doc.get("question") or json.dumps(dict(record.doc), ensure_ascii=False)
    prompt = "\n".join(side for side in (record.encoder, record.decoder) if side is not None)
    choices = record.likelihood.choices if record.likelihood else ()
    decoded = record.finish_reason != "undecoded"
    best = max(choices, key=lambda choice: choice.logprob).text if choices and not decoded else None
    answer = record.prediction if best is None else best
    return {
        "sample_id": record.example_id,
        "sample_hash": _digest(raw, record.targets),
        "interaction_type": "single_turn",
        "input": {
            "raw": raw,
            "formatted": prompt,
            "reference": list(record.targets),
            "choices": [choice.text for choice in choices] or None,
        },
        "output": {"raw": [each.completion for each in record.completions] if best is None else [best]},
        "answer_attribution": [
            {
                "turn_idx": 0,
                "source": "output.raw",
                "extracted_value": answer,
                "extraction_method": "postprocessing" if best is None else "highest log-likelihood",
                "is_terminal": True,
            }
        ],
        **_count_tokens(record),
        "metadata": {"prompt_hash": record.prompt_hash, "demonstrations": ", ".join(record.demonstration_ids)},
    }


def _digest(raw: str, references: tuple[str, ...]) -> str:
    content = json.dumps({"raw": raw, "reference": list(references)}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _count_tokens(record: Record) -> dict[str, Any]:
    if record.prompt_tokens is None or record.completion_tokens is None:
        return {}
    total = record.prompt_tokens + record.completion_tokens
    numbers = {"input_tokens": record.prompt_tokens, "output_tokens": record.completion_tokens, "total_tokens": total}
    return {"token_usage": numbers}
