"""Adopting the records of another cell of a sweep that cannot differ.

Without demonstrations in the prompts, seeds of demonstrations change nothing: the first cell is decoded, and the others
take over its records.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from icl_eval.evaluation.preparation import Evaluation
from icl_eval.runs.folders import FINGERPRINT_FILE, REPORT_FILE, name_records
from icl_eval.runs.writing import write_whole

_SEEDS_OF_DEMONSTRATIONS = ("seed", "demonstrations.seed", "order.seed", "control.seed")


def adopt_records(evaluation: Evaluation, identity: Mapping[str, Any], folder: Path, cells: Iterable[Path]) -> None:
    """Copy records into a folder that has none, if a finished cell differs in nothing but seeds that have no effect.

    Args:
        evaluation: The evaluation to run in the folder.
        identity: The options that determine its records.
        folder: The folder.
        cells: The folders of other cells.
    """
    names = [name_records(plan.task.name) for plan in evaluation.plans]
    if any(plan.few_shot.num_shown for plan in evaluation.plans) or any((folder / name).exists() for name in names):
        return
    for cell in sorted(cells):
        if (cell / REPORT_FILE).exists() and _is_same(_read_identity(cell), identity):
            for name in names:
                write_whole((cell / name).read_text(encoding="utf-8"), folder / name)
            return


def _read_identity(cell: Path) -> Any:
    try:
        return json.loads((cell / FINGERPRINT_FILE).read_bytes())
    except (OSError, ValueError):
        return None


def _is_same(other: Any, identity: Mapping[str, Any]) -> bool:
    """Return whether two identities differ in seeds of demonstrations alone."""
    if not isinstance(other, dict) or other.keys() != identity.keys():
        return False
    return all(other[key] == identity[key] for key in identity if key not in _SEEDS_OF_DEMONSTRATIONS)
