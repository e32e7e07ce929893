"""Recognize a run that is finished, so that the same command again computes nothing.

`finished.json` in a run's folder says what the results were made from, and what was written. If both are still the
same, the results are what the command would compute. Otherwise the run starts as it always does: it checks the records,
computes what is missing, and scores all of them again.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from icl_eval.evaluation.preparation import Evaluation
from icl_eval.metrics.building import runs_external_code
from icl_eval.models.loading import LanguageModel, ModelSource
from icl_eval.models.weights import resolve_parts
from icl_eval.prompts import chats
from icl_eval.runs import provenance
from icl_eval.runs.folders import FAILURE_FILE, FINGERPRINT_FILE, PAGE_FILE, REPORT_FILE, is_cell, name_records
from icl_eval.runs.reports import write_json

FINISHED_FILE = "finished.json"
_SCORING_LIBRARIES = ("numpy", "scipy", "rouge-score")
"""Libraries that scores depend on, beside those that every report lists."""


@dataclass(frozen=True)
class _Mark:
    """The content of `finished.json`."""

    origin: str
    """A digest of everything that the results were made from, but for the date."""
    day: str | None
    """The date that the prompts show; None if they show none."""
    files: Mapping[str, str | None]
    """The sha256 of each file of results, by its name; None for one that was not written."""
    mistakes: tuple[str, ...]
    """The warnings about options and data, which a later start repeats."""


_MARK = TypeAdapter(_Mark)


class Finish:
    """The end of a run, in a folder that is locked."""

    def __init__(self, evaluation: Evaluation, folder: Path):
        """Find out what the results are made from.

        Args:
            evaluation: The run.
            folder: Its folder.
        """
        self._evaluation = evaluation
        self._path = folder / FINISHED_FILE
        self._origin = None if _runs_external_code(evaluation) else _digest_origin(evaluation, folder)
        self.day: str | None = None
        """The date that the prompts show; None if they show none."""
        self.mistakes: tuple[str, ...] = ()
        """The warnings about options and data."""

    def is_reached(self) -> bool:
        """Return whether the folder holds all results of the run, unchanged; if so, read its warnings."""
        folder = self._path.parent
        if self._origin is None or (folder / FAILURE_FILE).exists():
            return False
        try:
            mark = _MARK.validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return False
        today = (self._evaluation.day or chats.today()).isoformat()
        if mark.origin != self._origin or mark.day not in (None, today) or mark.files != self._digest_results():
            return False
        self.day, self.mistakes = mark.day, mark.mistakes
        return True

    def write(self) -> None:
        """Mark the results as finished, unless code from elsewhere, which may change at any time, made some of them."""
        if self._origin is None:
            self._path.unlink(missing_ok=True)
        else:
            write_json(asdict(_Mark(self._origin, self.day, self._digest_results(), self.mistakes)), self._path)

    def _digest_results(self) -> dict[str, str | None]:
        """Return the sha256 of each file of results; None for one that is missing."""
        records = [name_records(plan.task.name) for plan in self._evaluation.plans]
        paths = [self._path.with_name(name) for name in (FINGERPRINT_FILE, *records, REPORT_FILE, PAGE_FILE)]
        return {path.name: _digest(path) if path.is_file() else None for path in paths}


def _runs_external_code(evaluation: Evaluation) -> bool:
    """Return whether scores depend on code or files that `_digest_origin` does not know."""
    tasks = list(evaluation.config["task"].values())
    is_another_harness = any(options.get("name") is not None for options in tasks)
    return is_another_harness or any(runs_external_code(each["metrics"] or {}) for each in (evaluation.config, *tasks))


def _digest_origin(evaluation: Evaluation, folder: Path) -> str:
    """Return a digest of all that decides the results: options, data, weights, and the code that scores and writes."""
    encoder = evaluation.encoder
    origin = {
        "identity": dict(evaluation.identity),
        "config": evaluation.config,
        "overrides": evaluation.overrides,
        "inputs": [list(plan.examples[0].inputs) for plan in evaluation.plans],
        "clusters": [[example.cluster for example in plan.examples] for plan in evaluation.plans],
        "model": _describe_model(evaluation.model),
        "encoder": None if encoder is None else encoder.identify(),
        "is_cell": is_cell(folder),
        "code": provenance.digest_code(),
        "versions": provenance.read_versions(_SCORING_LIBRARIES),
    }
    written = json.dumps(origin, default=str)  # in the order of the options, which reports have
    return hashlib.sha256(written.encode()).hexdigest()


def _describe_model(model: ModelSource) -> list[Any]:
    """Return the names and the identities of a model's parts."""
    if isinstance(model, LanguageModel):
        return [model.name, model.identify(), model.tokenizer.special_tokens_map]
    return [[kind, part.name, part.identify()] for kind, part in resolve_parts(model).items()]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
