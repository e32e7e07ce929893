"""Write a run as a log of Every Eval Ever, in the folders of its data store.

    data/icl_eval/org/model/0b7c….json
    data/icl_eval/org/model/0b7c…_samples.jsonl

The identifier and the dates are those of the run, so that the same run always gives the same bytes.
"""

import hashlib
import json
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_eval.errors import ConfigError
from icl_eval.harnesses.every_eval_ever.results import list_results
from icl_eval.harnesses.every_eval_ever.rows import list_rows
from icl_eval.runs.folders import Run
from icl_eval.runs.writing import write_whole

SCHEMA_VERSION = "0.3.0"
RELATIONSHIPS = ("first_party", "third_party", "collaborative", "other")
_NAME = "icl_eval"
_PART = r"[A-Za-z0-9][\w.-]*"


@dataclass(frozen=True)
class Publisher:
    """What a run does not say of itself."""

    model_id: str
    """The model's name on the hub: `org/name`."""
    organization: str
    """Who publishes the results."""
    relationship: str
    """What the publisher is to the model."""

    def __post_init__(self) -> None:
        """Check the form of the values; raises ConfigError."""
        if not re.fullmatch(f"{_PART}/{_PART}", self.model_id):
            raise ConfigError(f"model_id={self.model_id}: must be ORGANIZATION/MODEL, as on the hub")
        if not self.organization.strip():
            raise ConfigError("organization: must not be empty")
        if self.relationship not in RELATIONSHIPS:
            raise ConfigError(f"relationship={self.relationship}: must be one of {', '.join(RELATIONSHIPS)}")


def write_log(run: Run, folder: Path, publisher: Publisher) -> list[Path]:
    """Write a run's log and the rows of its questions, and return the paths of the files.

    Args:
        run: A finished run.
        folder: The folder for `data`, created if necessary.
        publisher: What the run does not say.

    Raises:
        DataError: If records are missing.
    """
    identity = f"{run.report.run.fingerprint} {publisher.model_id} {run.finished.isoformat()}"
    name = uuid.UUID(bytes=hashlib.sha256(identity.encode()).digest()[:16], version=4)
    place = Path("data", _NAME, *publisher.model_id.split("/"))
    seconds = str(int(run.finished.timestamp()))
    log_id = f"{_NAME}/{publisher.model_id}/{seconds}"
    shared = {"schema_version": SCHEMA_VERSION, "evaluation_id": log_id}
    rows = [{**shared, "model_id": publisher.model_id, **row} for row in list_rows(run)]
    lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    log = {
        **shared,
        "evaluation_timestamp": seconds,
        "retrieved_timestamp": seconds,
        **_describe_origin(run, publisher),
        "evaluation_results": list_results(run),
    }
    rows_path = place / f"{name}_samples.jsonl"
    if rows:
        log["detailed_evaluation_results"] = {
            "format": "jsonl",
            "file_path": rows_path.as_posix(),
            "hash_algorithm": "sha256",
            "checksum": hashlib.sha256(lines.encode()).hexdigest(),
            "total_rows": len(rows),
        }
    files = {place / f"{name}.json": json.dumps(log, indent=2, ensure_ascii=False, allow_nan=False) + "\n"}
    files |= {rows_path: lines} if rows else {}
    (folder / place).mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        write_whole(content, folder / path)
    return [folder / path for path in files]


def _describe_origin(run: Run, publisher: Publisher) -> dict[str, Any]:
    """Return who evaluated which model with which program."""
    info, origin = run.report.run, run.report.provenance
    is_imported = "lm_eval" in origin.config
    version = origin.versions["icl_eval"]
    library = {"name": "lm_eval", "version": origin.versions.get("lm_eval", "unknown")}
    details = {"architecture": info.architecture, "weights": origin.weights, "dtype": str(info.decoding.get("dtype"))}
    return {
        "source_metadata": {
            "source_name": _NAME,
            "source_type": "evaluation_run",
            "source_organization_name": publisher.organization,
            "evaluator_relationship": publisher.relationship,
        },
        "eval_library": (
            {**library, "additional_details": {"statistics": f"icl_eval {version}"}}
            if is_imported
            else {"name": _NAME, "version": version}
        ),
        "model_info": {
            "name": info.model,
            "id": publisher.model_id,
            "developer": publisher.model_id.partition("/")[0],
            **({} if is_imported else {"inference_engine": {"name": _NAME, "version": version}}),
            "additional_details": {"deployment_type": "self_deployed", "model_availability": "unknown", **details},
        },
    }
