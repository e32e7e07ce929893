"""How records and reports name what lm-evaluation-harness calls documents, targets, metrics and filters.

A task of the harness that runs here and an imported run of the harness can be compared because both use these names.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from icl_eval.errors import DataError, UserError
from icl_eval.formatting import describe_error


@contextmanager
def explaining(task: str, what: str) -> Iterator[None]:
    """Report in one line what Python of a task raises, which can be anything; raises DataError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise DataError(f"task '{task}' of lm-evaluation-harness: {what} ({describe_error(error)})") from None


def task_name(harness_name: str) -> str:
    """Return the name of a task of the harness as it can stand in the name of a file."""
    return re.sub(r"[^\w.-]", "_", harness_name)


def example_id(doc_id: int) -> str:
    """Return the id of a document's example."""
    return str(doc_id)


def question_fields(doc: Any) -> dict[str, str]:
    """Return the fields of a document as strings: a string as it is, any other value as JSON."""
    fields = doc if isinstance(doc, Mapping) else {"doc": doc}
    return {str(name): as_text(value) for name, value in fields.items()}


def as_text(value: Any) -> str:
    """Return a string as it is, and any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def split_target(target: str) -> tuple[str, ...]:
    """Return the targets in a string, since the harness logs a list of targets as Python writes it.

    >>> split_target("['Paris', 'paris']"), split_target("Paris")
    (('Paris', 'paris'), ('Paris',))
    """
    try:
        targets = ast.literal_eval(target) if target.startswith("[") else target
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return (target,)
    is_list = isinstance(targets, list) and targets and all(isinstance(each, str) for each in targets)
    return tuple(dict.fromkeys(targets)) if is_list else (target,)


def metric_name(metric: str, filter_name: str) -> str:
    """Return the name of a metric of a filter, as the harness writes it: `exact_match,strict-match`."""
    return f"{metric},{filter_name}"


def metric_signature(metric: str, filter_name: str, task: str, task_version: object, library_version: str) -> str:
    """Return the signature of a metric whose values the harness computes."""
    return f"{metric}|filter:{filter_name}|task:{task}@{task_version}|lm_eval:{library_version}"


def find_versions(signature: str) -> tuple[str, str] | None:
    """Return the versions of task and library in such a signature; None for a metric of another origin.

    >>> find_versions("acc|filter:none|task:arc@1.0|lm_eval:0.4.13")
    ('1.0', '0.4.13')
    """
    found = re.search(r"\|task:[^|]*@([^|]*)\|lm_eval:([^|]*)$", signature)
    return (found[1], found[2]) if found else None
