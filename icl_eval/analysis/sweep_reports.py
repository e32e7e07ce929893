"""Sweep reports: what the cells of a sweep came to, one by one and together, as `sweep.json`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from icl_eval.analysis import SweepAnalysis
from icl_eval.errors import DataError
from icl_eval.runs.cells import Cell
from icl_eval.runs.reports import write_json

SWEEP_FILE = "sweep.json"
SCHEMA_VERSION: Literal[1] = 1


@dataclass(frozen=True)
class Sweep:
    """What a sweep found."""

    schema_version: Literal[1]
    cells: tuple[Cell, ...]
    analysis: SweepAnalysis


_SWEEP = TypeAdapter(Sweep)


def write_sweep(sweep: Sweep, folder: Path) -> None:
    """Write a sweep's file into its folder, at once or not at all; a cell has an error, or a run and results."""
    content = asdict(sweep)
    content["cells"] = [{key: value for key, value in cell.items() if value is not None} for cell in content["cells"]]
    write_json(content, folder / SWEEP_FILE)


def read_sweep(folder: Path) -> Sweep:
    """Read what `write_sweep` wrote.

    Raises:
        DataError: When it is none, or was written by another version.
    """
    path = folder / SWEEP_FILE
    try:
        return _SWEEP.validate_json(path.read_bytes())
    except ValidationError as error:
        first: Any = error.errors()[0]
        found = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise DataError(f"{path}: not a sweep of this version ({found}); the same command writes it again") from None
